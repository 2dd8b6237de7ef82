"""What the operator decides, read at the start and at SIGHUP (`read.py` says from where), and passed down."""

from typing import Any, Self
from urllib.parse import urlsplit

from PIL import Image
from pydantic import Field, field_validator, model_validator

from engine.shipped import zoo
from server.settings.access import Auth, Jwt, Server, Token, split_address
from server.settings.limits import Limits
from server.settings.log import Log
from server.settings.sources import Sources
from server.settings.stream import (
    DEFAULT_MODEL,
    PUSH_SCHEMES,
    STREAM_ID,
    PipelineOptions,
    StreamChanges,
    StreamId,
    StreamSettings,
)
from server.settings.table import Table, check_table, describe_error
from server.settings.tracing import Tracing
from server.settings.webrtc import IceServer, WebRtc
from server.wire.messages import BICUBIC
from server.wire.source_policy import check_text
from server.wire.urls import mask_target, mask_url, without_user

__all__ = [
    "DEFAULT_MODEL",
    "STREAM_ID",
    "Auth",
    "Hls",
    "IceServer",
    "Jwt",
    "Limits",
    "Log",
    "PipelineOptions",
    "Push",
    "Recording",
    "Server",
    "Settings",
    "Sources",
    "StreamChanges",
    "StreamId",
    "StreamSettings",
    "Token",
    "Tracing",
    "WebRtc",
    "check_table",
    "describe_error",
    "split_address",
]


class GpuSharing(Table):
    slots: int = Field(default=0, ge=0, le=64)  # streams that share one GPU; 0: as many as measured to fit


class Workers(Table):
    standby: int = Field(default=1, ge=0, le=16)  # processes that wait for a worker to die
    streams_per_worker: int = Field(default=1, ge=1, le=64)  # of those on the CPU


class Hls(Table):
    segment_s: float = Field(default=2.0, ge=1.0, le=10.0)
    segments: int = Field(default=6, ge=3, le=60)  # in the playlist


class Recording(Table):
    folder: str | None = Field(default=None, min_length=1)  # None: nothing can be recorded
    remote: str | None = Field(default=None, min_length=1)  # where finished files go, as fsspec addresses it
    file_s: float = Field(default=3600.0, ge=1, le=86_400)  # then another file begins
    file_bytes: int = Field(default=0, ge=0)  # then, too; 0: however large it gets
    keep_s: float = Field(default=0.0, ge=0)  # then a file is deleted; 0: never
    keep_bytes: int = Field(default=0, ge=0)  # of all streams; above, the oldest are deleted; 0: no limit
    free_bytes: int = Field(default=2 << 30, ge=0)  # of the disk, which recording leaves alone

    @model_validator(mode="after")
    def _from_a_folder(self) -> Self:
        if self.remote is not None and self.folder is None:
            raise ValueError("remote: needs folder, from which files go there")
        return self


class Push(Table):
    allowed: tuple[str, ...] = ()  # how addresses begin that streams of the API may be pushed to

    @field_validator("allowed")
    @classmethod
    def _whole_hosts(cls, allowed: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in allowed:
            parts = urlsplit(prefix)
            if parts.scheme not in PUSH_SCHEMES or not parts.hostname or not parts.path.startswith("/"):
                raise ValueError(f"{prefix!r} must begin as rtmp://host/ does, up to a slash at least")
        return allowed


class Settings(Table):
    """All of it. Every key has a default; without a file no stream runs until the API asks."""

    server: Server = Server()
    log: Log = Log()
    auth: Auth | None = None
    webrtc: WebRtc = WebRtc()
    defaults: PipelineOptions = PipelineOptions()
    limits: Limits = Limits()
    sources: Sources = Sources()
    workers: Workers = Workers()
    gpu: GpuSharing = GpuSharing()
    hls: Hls = Hls()
    recording: Recording = Recording()
    push: Push = Push()
    tracing: Tracing = Tracing()
    streams: tuple[StreamSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _streams_take_defaults(cls, tables: Any) -> Any:
        if not isinstance(tables, dict):
            return tables
        defaults, streams = tables.get("defaults", {}), tables.get("streams", [])
        if isinstance(defaults, dict) and isinstance(streams, list | tuple):
            merged = [{**defaults, **s} if isinstance(s, dict) else s for s in streams]
            return {**tables, "streams": merged}
        return tables

    @model_validator(mode="after")
    def _streams_fit(self) -> Self:
        ids = [stream.id for stream in self.streams]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"streams: id {name!r} must be given once")
        if len(ids) > self.limits.max_streams:
            raise ValueError(f"streams: {len(ids)} are above limits.max_streams={self.limits.max_streams}")
        for stream in (self.defaults, *self.streams):
            self.check_record(stream)
        return self

    def check_record(self, stream: PipelineOptions) -> None:
        """Raises ValueError for a stream to be recorded where there is no folder for it."""
        if stream.record and self.recording.folder is None:
            raise ValueError("record=true: needs recording.folder")

    def check_slates(self) -> None:
        """Raises ValueError for one that is no image; only who runs the streams has them."""
        for slate in filter(None, self._slates()):
            try:
                with Image.open(slate) as image:
                    image.verify()
            except (OSError, SyntaxError, Image.DecompressionBombError) as exc:  # as Pillow sees damage
                raise ValueError(f"slate={slate!r}: must be the path of an image") from exc

    def _slates(self) -> set[str | None]:
        return {known.slate for known in (self.defaults, *self.streams)}

    def stream(self, **fields: Any) -> StreamSettings:
        """A stream with these fields, the rest from `[defaults]`; raises pydantic.ValidationError."""
        return StreamSettings(**self.defaults.model_dump() | fields)

    def check_stranger(self, stream: StreamSettings) -> None:
        """Raises ValueError, naming key, value and rule, for a stream that the API may not make."""
        try:
            check_text(stream.source, self.sources.policy())
        except ValueError as exc:
            raise ValueError(f"source={mask_url(stream.source)!r}: {exc}") from None
        self.check_record(stream)
        named = {address for known in (self.defaults, *self.streams) for address in known.push}
        allowed = tuple(map(_with_path, self.push.allowed))
        for address in set(stream.push) - named:
            if not _with_path(address).startswith(allowed):
                raise ValueError(f"push={mask_target(address)!r}: must begin as one of push.allowed does")
        if stream.slate not in self._slates() | {None}:
            raise ValueError(f"slate={stream.slate!r}: must be one that the settings name")
        own = {
            model
            for known in (self.defaults, *self.streams)
            for model in (known.model, *(known.ladder or ()))
        }
        for model in (stream.model, *(stream.ladder or ())):
            if model not in zoo() and model not in own and model != BICUBIC:
                raise ValueError(f"model={model!r}: must be one of {', '.join(zoo())}, or in the settings")


def _with_path(address: str) -> str:
    """The address without user or token; where it has no path, that is a slash."""
    parts = urlsplit(without_user(address), allow_fragments=False)
    return parts._replace(path=parts.path or "/").geturl()
