"""Where packets come from: the seam `Source`, and what it gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from server.wire.clock import now_ns


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
class Times:
    """When a packet's last byte arrived; when the demuxer or its pace gave it away; and when it was live,
    which is the arrival but for what came ahead of its time. In nanoseconds of CLOCK_MONOTONIC."""

    arrival_ns: int
    demuxed_ns: int
    live_ns: int

    @classmethod
    def at(cls, time_ns: int) -> "Times":
        """Of a packet that is live as it is made or read."""
        return cls(arrival_ns=time_ns, demuxed_ns=time_ns, live_ns=time_ns)

    @classmethod
    def paced(cls, arrival_ns: int | None) -> "Times":
        """Of a packet that came ahead of its time, which is now."""
        given = cls.now(arrival_ns)
        return cls(arrival_ns=given.arrival_ns, demuxed_ns=given.demuxed_ns, live_ns=given.demuxed_ns)

    @classmethod
    def now(cls, arrival_ns: int | None) -> "Times":
        """Of a packet that the demuxer gives now; None where nobody knows when it arrived."""
        demuxed_ns = now_ns()
        arrival_ns = demuxed_ns if arrival_ns is None else min(arrival_ns, demuxed_ns)
        return cls(arrival_ns=arrival_ns, demuxed_ns=demuxed_ns, live_ns=arrival_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One packet of the picture or the sound, and its times. An empty packet flushes its decoder."""

    video: bool
    packet: "Packet[Any]"
    times: Times


class Source(Protocol):
    """`open`, `arrivals` until they end or raise SourceError, `close`; then `open` may follow again."""

    def open(self) -> Tracks: ...

    def arrivals(self) -> Iterator[Arrival]: ...

    def close(self) -> None: ...
