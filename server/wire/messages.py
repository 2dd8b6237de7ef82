"""What crosses between a stream's worker and the gateway, and how it is framed on the socket.

Every message is a JSON head and an optional binary payload, behind their two lengths. No pickle: a worker
parses hostile media, and the gateway must not run what it says.
"""

import builtins
import json
import struct
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

VIDEO_CLOCK_HZ = 90_000
AUDIO_CLOCK_HZ = 48_000

Rendition = Literal["upscaled", "plain"]
Stage = Literal["decode", "queue", "upscale", "encode", "publish"]
LoadState = Literal["loading", "ready", "failed"]
BICUBIC = "bicubic"  # the backend that stands in for a network's
AudioCodec = Literal["aac", "opus"]

_LENGTHS = struct.Struct("!II")
MAX_HEAD_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJob:
    """Gateway → worker, first message: everything a worker needs to run one stream."""

    stream: str
    source: str  # URL or path, as the operator wrote it
    loop: bool  # a file starts again at its end
    model: str  # zoo name, artifact or checkpoint path
    backend: str | None  # None: the best of this machine
    lanes: int  # 0: as many as suit the engine
    engine_threads: int  # 0: every core
    encoder: str  # "auto", "libx264" or "h264_nvenc"
    preset: str
    bitrate_bps: int  # 0: chosen from the output's size and rate
    keyframe_interval_s: float
    max_width: int  # of the source picture; larger fails the stream
    max_height: int
    source_timeout_s: float
    engine_patience_s: float  # an engine that takes longer to load is stood in for by bicubic


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKeyframe:
    """Gateway → worker: the next frame encoded shall be an IDR."""

    rendition: Rendition = "upscaled"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlain:
    """Gateway → worker: also encode the source's own picture, for comparison; nobody watches it otherwise."""

    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Gateway → worker: finish and exit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Worker → gateway: the source is open and the engine loaded, or either has changed."""

    source_codec: str
    source_width: int
    source_height: int
    source_pixel_format: str
    source_fps: float  # nominal; 0 where the source does not say
    sample_aspect_ratio: tuple[int, int]
    width: int  # of the upscaled picture
    height: int
    video_decoder: str
    video_encoder: str
    on_gpu: bool  # pictures go from decoder to encoder without passing through the host's memory
    bitrate_bps: int
    audio: bool
    aac_config: str  # hex AudioSpecificConfig; "" without audio
    audio_rate_hz: int  # of the AAC; Opus is always 48 kHz
    audio_channels: int
    model: str
    backend: str  # BICUBIC where the engine isn't there
    precision: str
    parity_db: float | None
    scale: int

    @property
    def super_resolution(self) -> bool:
        """Whether the network upscales."""
        return self.backend != BICUBIC


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """Worker → gateway: how far the engine for the source's pictures is, as it changes, and with each
    heartbeat while it loads. What upscales meanwhile is in `Opened`."""

    state: LoadState
    model: str  # as the operator named it
    width: int  # of the planes that go into the engine
    height: int
    elapsed_s: float  # of loading
    detail: str  # what is being done, or why it failed; "" where nobody says


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPacket:
    """Worker → gateway: one encoded frame, H.264 Annex B, SPS and PPS in front of every IDR, no B-frames.

    `pts` ticks at 90 kHz and `arrival_ns` is when the frame's packet arrived; both are on CLOCK_MONOTONIC
    (pts = 90000 × monotonic seconds of presentation), so they go on unbroken over a worker's restart.
    """

    rendition: Rendition
    pts: int
    duration: int
    keyframe: bool
    arrival_ns: int
    sent_ns: int
    stages_s: dict[str, float]  # decode, queue, upscale, encode; publish is the gateway's
    payload: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPacket:
    """Worker → gateway: one audio frame (raw AAC access unit, or one Opus packet), on the video's timeline.

    `pts` and `duration` tick at 48 kHz on CLOCK_MONOTONIC, whatever the sample rate is.
    """

    codec: AudioCodec
    pts: int
    duration: int
    payload: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Worker → gateway: frames that will not be shown, and why."""

    stage: Stage
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnecting:
    """Worker → gateway: the source is lost or not there yet; the worker tries again by itself."""

    reason: str
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Worker → gateway: this stream can never run as it is (no video, wrong model …). The worker exits."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """Worker → gateway, its last word: why it ends although another may do better (a GPU that failed …)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Worker → gateway, twice a second while its pipeline moves: alive, and how full its queues are."""

    queues: dict[str, int]  # frames waiting, by stage
    rss_bytes: int
    cpu_s: float  # user + system since start


Message = (
    WorkerJob
    | RequestKeyframe
    | SetPlain
    | Stop
    | Opened
    | EngineLoad
    | VideoPacket
    | AudioPacket
    | Dropped
    | Reconnecting
    | Failed
    | Broke
    | Heartbeat
)


class ProtocolError(Exception):
    """The other side sent what is no message."""


class Codec:
    """Between messages and bytes. `feed` takes bytes as they come and gives the messages that are whole."""

    _types: ClassVar[dict[str, type[Any]]] = {t.__name__: t for t in Message.__args__}

    def __init__(self) -> None:
        self._buffer = bytearray()

    @staticmethod
    def encode(message: Message) -> bytes:
        head = asdict(message)
        payload: bytes = head.pop("payload", b"")
        text = json.dumps([type(message).__name__, head], separators=(",", ":")).encode()
        return _LENGTHS.pack(len(text), len(payload)) + text + payload

    def feed(self, data: bytes) -> list[Message]:
        """Raises ProtocolError on a length above the limits, an unknown type or a missing field."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _LENGTHS.size:
            head_bytes, payload_bytes = _LENGTHS.unpack_from(self._buffer)
            if head_bytes > MAX_HEAD_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
                raise ProtocolError(f"message of {head_bytes} + {payload_bytes} bytes is above the limit")
            start, end = _LENGTHS.size, _LENGTHS.size + head_bytes + payload_bytes
            if len(self._buffer) < end:
                break
            head = bytes(self._buffer[start : start + head_bytes])
            payload = bytes(self._buffer[start + head_bytes : end])
            del self._buffer[:end]
            messages.append(self._decode(head, payload))
        return messages

    def _decode(self, head: bytes, payload: bytes) -> Message:
        try:
            name, values = json.loads(head)
            cls = self._types[name]
        except (ValueError, KeyError, TypeError) as exc:
            raise ProtocolError(f"no message: {head[:80]!r}") from exc
        known = {f.name: f for f in fields(cls)}
        if "payload" in known:
            values["payload"] = payload
        missing = [n for n, f in known.items() if n not in values and f.default is MISSING]
        if missing or values.keys() - known.keys():
            raise ProtocolError(f"{name}: fields {sorted(values)} where {sorted(known)} belong")
        for key, value in values.items():
            if isinstance(value, list):
                value = values[key] = tuple(value)
            if not _is_a(_TYPES[cls][key], value):
                raise ProtocolError(f"{name}: {key} must be {known[key].type}, not {str(value)[:80]!r}")
        message: Message = cls(**values)
        return message


def _is_a(wanted: Any, value: object) -> bool:
    """Whether JSON's word for a value fits the field's type."""
    parts = get_args(wanted)
    match get_origin(wanted):
        case typing.Literal:
            return value in parts
        case types.UnionType:
            return any(_is_a(part, value) for part in parts)
        case builtins.dict:
            return isinstance(value, dict) and all(_is_a(parts[1], v) for v in value.values())
        case builtins.tuple:
            return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is_a, parts, value))
    if isinstance(value, bool) or wanted is bool:
        return wanted is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if wanted is float else wanted)


_TYPES = {cls: get_type_hints(cls) for cls in Message.__args__}
