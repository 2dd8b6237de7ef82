"""What streams that the API makes may read."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from server.settings.table import Table
from server.wire.source_policy import SourcePolicy, parse_network
from server.wire.urls import SCHEMES


class Sources(Table):
    """What streams that the API makes may read; those of the settings may read anything."""

    schemes: tuple[str, ...] = (
        "rtsp",
        "rtsps",
        "rtmp",
        "rtmps",
        "http",
        "https",
        "srt",
        "whip",
        "synthetic",
        "demo",
    )
    hosts: tuple[str, ...] = ()  # names, addresses and networks beside public addresses
    folders: tuple[str, ...] = ()  # that files may lie in
    listen_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()  # of listeners and UDP

    @field_validator("schemes")
    @classmethod
    def _known(cls, schemes: tuple[str, ...]) -> tuple[str, ...]:
        for name in schemes:
            if name not in SCHEMES:
                raise ValueError(f"{name!r} must be one of {', '.join(SCHEMES)}")
            if SCHEMES[name].reader == "device":
                raise ValueError(f"{name!r} is for streams of the settings file alone")
        return schemes

    @field_validator("hosts")
    @classmethod
    def _names_or_networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if parse_network(host) is None and not re.fullmatch(r"[\w.-]+", host):
                raise ValueError(f"{host!r} must be a name, an address or a network such as 10.0.0.0/8")
        return hosts

    @field_validator("folders")
    @classmethod
    def _absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not Path(folder).is_absolute():
                raise ValueError(f"{folder!r} must be absolute")
        return tuple(map(os.path.normpath, folders))

    def policy(self) -> SourcePolicy:
        """These rules, as a worker is told them."""
        return SourcePolicy(
            schemes=self.schemes, hosts=self.hosts, folders=self.folders, listen_ports=self.listen_ports
        )
