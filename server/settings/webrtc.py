"""How WebRTC viewers reach this machine."""

import re
from ipaddress import ip_address
from typing import Self

from pydantic import Field, field_validator, model_validator

from server.settings.table import Table


class IceServer(Table):
    urls: tuple[str, ...] = Field(min_length=1)
    username: str | None = None
    credential: str | None = None
    secret: str | None = Field(default=None, min_length=1)  # shared with the TURN server

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.secret is not None and (self.username is not None or self.credential is not None):
            raise ValueError("username and credential must be left out where secret is given")
        return self

    @field_validator("urls")
    @classmethod
    def _stun_or_turn(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.fullmatch(r"(stun|turn|turns):[^?:\s]+(:\d+)?(\?transport=(udp|tcp))?", url):
                raise ValueError(f"{url!r} must look like stun:HOST:PORT or turn:HOST:PORT?transport=udp")
        return urls


class WebRtc(Table):
    ice_servers: tuple[IceServer, ...] = ()
    # Of this machine's addresses, those to offer to viewers; empty: every one but loopback.
    host_addresses: tuple[str, ...] = ()
    # Where viewers find this machine behind NAT, told to them in place of its private addresses.
    announced_addresses: tuple[str, ...] = ()
    # First and last port for viewers' media, one for each viewer and address, or the same for all where there
    # is but one; unset: the system chooses.
    udp_ports: tuple[int, int] | None = None

    @field_validator("udp_ports")
    @classmethod
    def _ports(cls, ports: tuple[int, int] | None) -> tuple[int, int] | None:
        if ports is not None and not 0 < ports[0] <= ports[1] < 1 << 16:
            raise ValueError("must be the first and the last of ports from 1 to 65535")
        return ports

    @field_validator("host_addresses", "announced_addresses")
    @classmethod
    def _addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ip_address(address)  # raises ValueError that names it
        return addresses
