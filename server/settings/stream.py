"""One stream: where it comes from and how it is processed."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from engine.load import BACKENDS
from engine.machine import MOST_THREADS
from engine.shipped import zoo
from server.settings.limits import Limits
from server.settings.table import Table
from server.wire.messages import (
    BICUBIC,
    DEFAULT_KEYFRAME_INTERVAL_S,
    SOURCE,
    UPSCALED,
    Deinterlace,
    When,
    WorkerJob,
)
from server.wire.source_policy import SourcePolicy
from server.wire.srt import srt_address
from server.wire.synthetic import parse_synthetic
from server.wire.urls import SCHEMES, find_port, find_scheme, mask_target, publish_address, scheme
from server.wire.v4l2 import parse_v4l2

DEFAULT_MODEL = "awsrn-live-x2"

Preset = Literal[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
]

# Of a rendition smaller than the upscaled one, in lines.
_LEAST_LINES, _MOST_LINES = 90, 4318
_LINES = "9[02468]|[1-9][0-9][02468]|[1-3][0-9][0-9][02468]|4[0-2][0-9][02468]|43[01][02468]"
RenditionName = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": f"^({UPSCALED}|{SOURCE}|({_LINES})p)$"})
]

# Options of the stream that its worker is not told.
_GATEWAYS = {"upscale_when", "priority", "record", "push", "override_publisher"}
PUSH_SCHEMES = ("rtmp", "rtmps", "rtsp", "udp", "srt", "whip", "whips")


STREAM_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
StreamId = Annotated[str, Field(pattern=STREAM_ID)]


def _push_address(address: str) -> str:
    if any(ord(c) <= 32 for c in address):
        raise ValueError("must not hold spaces or control characters")
    parts = urlsplit(address)
    if parts.scheme not in PUSH_SCHEMES or not parts.hostname:
        raise ValueError(f"{mask_target(address)}: must be of {', '.join(PUSH_SCHEMES)}, and name a host")
    if ".." in unquote(parts.path).split("/"):
        raise ValueError(f"{mask_target(address)}: must not hold '..'")  # or it began as one that is allowed
    try:
        port = find_port(address)
    except ValueError as exc:
        raise ValueError(f"{mask_target(address)}: {exc}") from None
    if parts.scheme == "udp" and port is None:
        raise ValueError(f"{mask_target(address)}: must name a port")
    if parts.scheme == "srt":
        try:
            if srt_address(address).mode != "caller":
                raise ValueError("a push calls: mode must be caller")
        except ValueError as exc:
            raise ValueError(f"{mask_target(address)}: {exc}") from None
    return address


PushAddress = Annotated[
    str, Field(max_length=2048, examples=["rtmp://live.example/app/KEY"]), AfterValidator(_push_address)
]


class PipelineOptions(Table):
    """How a stream is processed; `[defaults]` sets it for every stream, a stream's own table for that one."""

    model: str = Field(
        default=DEFAULT_MODEL, min_length=1, description="Zoo name, or path of an artifact or a checkpoint"
    )
    backend: str | None = Field(
        default=None, description="Which engine runs the network; unset: the best of the machine"
    )
    lanes: int = Field(
        default=0, ge=0, le=16, description="Frames in flight in the engine; 0: as many as suit it"
    )
    engine_threads: int = Field(
        default=0, ge=0, le=MOST_THREADS, description="CPU threads of the engine; 0: every core"
    )
    batch_wait_s: float = Field(
        default=0.003,
        ge=0,
        le=0.05,
        description="On a GPU a frame waits so long, at most, for those of other streams to be computed with",
    )
    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    preset: Preset = Field(default="superfast", description="libx264's, from the quickest to the slowest")
    bitrate_bps: int = Field(
        default=0, ge=0, le=200_000_000, description="Of the upscaled video; 0: chosen from its size and rate"
    )
    keyframe_interval_s: float = Field(default=DEFAULT_KEYFRAME_INTERVAL_S, ge=0.5, le=10.0)
    renditions: tuple[RenditionName, ...] = Field(
        default=(UPSCALED, SOURCE),
        max_length=8,
        description="What viewers may watch, and is encoded while somebody does: 'upscaled', which must be "
        "one; 'source', its own picture; and smaller ones by their lines, such as '540p'. One that isn't "
        "smaller than the upscaled picture is left out",
        examples=[["upscaled", "540p", "source"]],
        json_schema_extra={"contains": {"const": UPSCALED}, "uniqueItems": True},
    )
    source_timeout_s: float = Field(
        default=10.0, gt=0, le=120, description="A source silent for longer is reopened"
    )
    override_publisher: bool = Field(
        default=False,
        description="Who publishes while another does takes its place (RTMP, RTSP, WHIP); else it is refused",
    )
    engine_patience_s: float = Field(
        default=2.0,
        ge=0,
        le=3600,
        description="An engine that takes longer to load is stood in for by bicubic; a twentieth of it where "
        "another worker begins, after a death or a change, as viewers wait",
    )
    ladder: tuple[str, ...] | None = Field(
        default=None,
        max_length=8,
        description="Models that upscale where the stream's own comes too late, the largest first; the last "
        "may be 'bicubic'. Unset: the smaller ones of its scale that ship, then bicubic; empty: none",
    )
    latency_budget_s: float = Field(
        default=0.0, ge=0, le=10, description="Of a frame; 0: three frame intervals, at most 150 ms"
    )
    priority: int = Field(
        default=0, ge=-100, le=100, description="Who gets a larger network first when there is room for it"
    )
    upscale_when: When = Field(
        default="watched", description="Pictures are upscaled and encoded: always, or while somebody watches"
    )
    record: bool = Field(default=False, description="Written to files in recording.folder, watched or not")
    push: tuple[PushAddress, ...] = Field(
        default=(),
        max_length=8,
        description="Addresses of other servers that the stream is sent on to, watched or not",
    )
    source_when: When = Field(
        default="always", description="The source is open: always, or while somebody watches"
    )
    deinterlace: Deinterlace = Field(
        default="frame",
        description="Interlaced frames become one picture each, or one of each field, which moves as "
        "smoothly as the camera saw it; 'off': they are upscaled as they are",
    )
    slate: str | None = Field(
        default=None,
        min_length=1,
        description="Path of the image that viewers see while the source is away; unset: the last picture, "
        "dimmed, and since when",
    )
    loop: bool = Field(default=True, description="A file starts again at its end")

    @field_validator("model")
    @classmethod
    def _model_exists(cls, model: str) -> str:
        _check_model(model)
        return model

    @field_validator("ladder")
    @classmethod
    def _models_exist(cls, ladder: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for model in ladder or ():
            if model != BICUBIC:
                _check_model(model)
        if ladder and BICUBIC in ladder[:-1]:
            raise ValueError(f"{BICUBIC!r} must be the last: nothing is smaller")
        return ladder

    @field_validator("renditions")
    @classmethod
    def _renditions_exist(cls, renditions: tuple[str, ...]) -> tuple[str, ...]:
        for name in renditions:
            _check_rendition(name)
            if renditions.count(name) > 1:
                raise ValueError(f"{name!r} must be given once")
        if UPSCALED not in renditions:
            raise ValueError(f"{UPSCALED!r} must be one: the others' key frames are its own")
        return tuple(sorted(renditions, key=_likely_lines, reverse=True))

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str | None) -> str | None:
        if backend is not None and backend not in BACKENDS:
            raise ValueError(f"must be one of {', '.join(BACKENDS)}")
        return backend


def _known_scheme(source: str) -> str:
    if any(ord(c) < 32 for c in source):
        raise ValueError("must not hold control characters")
    if find_scheme(source).reader == "network":
        place = urlsplit(source).netloc
        if not place:
            raise ValueError("must name a host")
        if any(c.isspace() for c in place):  # libav's messages would hold one, and a URL in them ends there
            raise ValueError("a space of a user or password is %20")
        find_port(source)
    publish_address(source)
    match scheme(source):
        case "srt":
            srt_address(source)
        case "udp":
            if find_port(source) is None:
                raise ValueError("must name a port")
        case "v4l2":
            parse_v4l2(source)
        case "synthetic":
            parse_synthetic(source)
    return source


Source = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description=f"URL ({', '.join(SCHEMES)}) or path of a file",
        examples=["rtsp://camera.example/stream"],
    ),
    AfterValidator(_known_scheme),
]


class StreamChanges(PipelineOptions):
    """What may be changed of a stream. Only fields that are given count; the others stay as they are."""

    source: Source = ""


class StreamSettings(PipelineOptions):
    """One stream: where it comes from and how it is processed."""

    id: StreamId = Field(description="Name in URLs and metrics")
    source: Source

    def job(self, limits: Limits, policy: SourcePolicy | None = None) -> WorkerJob:
        """What the stream's worker is told; `policy` is None for a stream of the settings."""
        options = self.model_dump(include=set(PipelineOptions.model_fields) - _GATEWAYS)
        return WorkerJob(
            stream=self.id,
            source=self.source,
            policy=policy,
            max_width=limits.max_width,
            max_height=limits.max_height,
            worker_memory_bytes=limits.worker_memory_bytes,
            **options,
        )


def _likely_lines(name: str) -> int:
    """For an order that holds until the sizes are known."""
    return _MOST_LINES + 1 if name == UPSCALED else 0 if name == SOURCE else int(name.removesuffix("p"))


def _check_rendition(name: str) -> None:
    """Raises ValueError."""
    if name in (UPSCALED, SOURCE):
        return
    lines = name.removesuffix("p")
    if lines == name or not (lines.isascii() and lines.isdecimal()) or lines.startswith("0"):
        raise ValueError(f"{name!r} must be {UPSCALED!r}, {SOURCE!r} or a height such as '540p'")
    if len(lines) > 4 or not _LEAST_LINES <= int(lines) <= _MOST_LINES or int(lines) % 2:
        raise ValueError(f"{name!r} must have an even number of lines, from {_LEAST_LINES} to {_MOST_LINES}")


def _check_model(model: str) -> None:
    """Raises ValueError for a name that is none of the zoo's; a path is the worker's to open, which may run
    on another machine."""
    path = Path(model)
    is_name = path.name == model and not path.suffix and not path.exists()
    if is_name and model not in zoo():
        raise ValueError(f"{model!r} must be one of {', '.join(zoo())}, or a path")
