"""Where packets come from: the seam `Source`, what it gives, and which one a URL opens."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

DEMO_CLIP = Path(__file__).parents[2] / "demo" / "demo.mp4"

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*):")


class SourceError(Exception):
    """A source that gives nothing; the message says which and why, without credentials."""


class SourceLost(SourceError):
    """Not there now, but it may come back."""


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


def open_source(url: str, *, loop: bool, timeout_s: float, stop: threading.Event) -> Source:
    """The source that a URL or path means. Waits inside it end soon after `stop` is set.

    Raises ValueError for a scheme that nothing here reads.
    """
    from server.worker.ingest.file import FileSource
    from server.worker.ingest.network import NetworkSource
    from server.worker.ingest.synthetic import SyntheticSource, parse_synthetic

    match scheme(url):
        case "" | "file":
            path = Path(url.removeprefix("file://").removeprefix("file:"))
            return FileSource(path, loop=loop, stop=stop)
        case "demo":
            return FileSource(DEMO_CLIP, loop=True, stop=stop)
        case "synthetic":
            return SyntheticSource(parse_synthetic(url), stop=stop)
        case "rtsp" | "rtsps" | "rtmp" | "rtmps" | "http" | "https" | "udp":
            return NetworkSource(url, timeout_s=timeout_s, stop=stop)
        case "srt":
            raise ValueError(
                f"source {redacted(url)!r}: SRT is not in the FFmpeg that PyAV ships; "
                "let ffmpeg receive it and send it on as RTMP, RTSP or MPEG-TS over UDP"
            )
        case other:
            raise ValueError(
                f"source {redacted(url)!r}: scheme {other!r} must be one of file, demo, synthetic, "
                "rtsp(s), rtmp(s), http(s), udp"
            )


def scheme(url: str) -> str:
    """The scheme in lower case; empty for a plain path."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else ""


def redacted(url: str) -> str:
    """The URL as logs may show it: user names, passwords and query strings are left out."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
