"""Where packets come from: the seam `Source`, and what it gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext


class SourceError(Exception):
    """A source that gives nothing; the message says which and why, without credentials."""


class SourceLost(SourceError):
    """A source that is not there now, but may come back."""


class PublisherLost(SourceLost):
    """Nobody publishes now: waiting again at once calls nobody."""


class SourceUnusable(SourceError):
    """It can never be a stream as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """What an open source has, as decoders that nobody has used yet."""

    video: VideoCodecContext
    fps: float  # nominal; 0 where the source does not say
    sample_aspect_ratio: tuple[int, int]
    audio: AudioCodecContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One packet of the picture or the sound, and when it came. An empty packet flushes its decoder."""

    video: bool
    packet: "Packet[Any]"
    arrival_ns: int


class Source(Protocol):
    """`open`, `arrivals` until they end or raise SourceError, `close`; then `open` may follow again."""

    def open(self) -> Tracks: ...

    def arrivals(self) -> Iterator[Arrival]: ...

    def close(self) -> None: ...
