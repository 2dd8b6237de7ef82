"""A network stream as a source: RTSP, RTMP, HLS, HTTP and MPEG-TS over UDP, pulled or waited for."""

import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from server.wire.urls import find_scheme, mask_credentials, scheme
from server.worker.ingest.container import Pacer, find_tracks, packets_of, pixel_limit, tracks_of
from server.worker.ingest.source import Arrival, PublisherLost, SourceLost, SourceUnusable, Tracks

# Live protocols: what is in flight is enough to find the tracks; libav's 5 s of analysis would be latency.
_LOW_LATENCY = {"fpsprobesize": "4", "probesize": "1000000", "analyzeduration": "1000000"}


class NetworkSource:
    """`?listen=1` in an RTMP or RTSP URL waits at that address for a publisher instead of pulling from it."""

    def __init__(
        self, url: str, *, max_size: tuple[int, int], timeout_s: float, stop: threading.Event
    ) -> None:
        self._shown = mask_credentials(url)
        self._url, self._listen = without_listen(url)
        if self._listen and not find_scheme(url).listens:
            raise ValueError(f"source {self._shown!r}: listen=1 needs rtmp or rtsp, not {scheme(url)!r}")
        self._timeout_s = timeout_s
        self._stop = stop
        self._options = pixel_limit(max_size) | _options(
            scheme(url), listen=self._listen, timeout_s=timeout_s
        )
        # HTTP hands over whole segments at once; what comes in bursts is played at its own pace.
        self._paced = scheme(url) in ("http", "https")
        self._container: InputContainer | None = None
        self._video: VideoStream
        self._audio: AudioStream | None = None

    def open(self) -> Tracks:
        """Raises SourceLost where nobody answers or sends video within the timeout."""
        try:
            self._container = av.open(
                self._url, options=self._options, timeout=(self._timeout_s, self._timeout_s)
            )
            self._video, self._audio = find_tracks(self._container)
        except av.error.ProtocolNotFoundError as exc:
            raise SourceUnusable(f"{self._shown}: this FFmpeg has no such protocol") from exc
        except av.FFmpegError as exc:
            raise self._lost(self._reason(exc)) from exc
        except LookupError as exc:
            raise self._lost(str(exc)) from exc
        return tracks_of(self._video, self._audio)

    def arrivals(self) -> Iterator[Arrival]:
        """Never ends by itself: where the stream does, SourceLost is raised."""
        assert self._container is not None
        audio = [self._audio] if self._audio else []
        pacer = Pacer(self._stop) if self._paced else None
        try:
            for video, packet in packets_of(self._container, self._video, audio):
                if self._stop.is_set():
                    return
                if packet.size == 0:
                    continue
                if pacer and packet.dts is not None:
                    pacer.hold(float(packet.dts * packet.time_base))
                yield Arrival(video=video, packet=packet, arrival_ns=time.monotonic_ns())
        except av.FFmpegError as exc:
            raise self._lost(self._reason(exc)) from exc
        raise self._lost("the stream ended")

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _lost(self, reason: str) -> SourceLost:
        return (PublisherLost if self._listen else SourceLost)(f"{self._shown}: {reason}")

    def _reason(self, exc: av.FFmpegError) -> str:
        if isinstance(exc, av.error.ExitError):  # libav's word for our timeout
            who = "no publisher" if self._listen and self._container is None else "nothing arrived"
            return f"{who} within {self._timeout_s:g} s"
        return exc.strerror or type(exc).__name__


def without_listen(url: str) -> tuple[str, bool]:
    """The URL as libav shall see it, and whether it asked to listen."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    listen = ("listen", "1") in query
    if not listen:
        return url, False
    rest = urlencode([pair for pair in query if pair[0] != "listen"])
    return urlunsplit(parts._replace(query=rest)), True


def _options(name: str, *, listen: bool, timeout_s: float) -> dict[str, str]:
    """libav's options for each protocol."""
    micros = str(round(timeout_s * 1e6))
    match name:
        case "rtsp" | "rtsps" if listen:
            seconds = str(max(1, round(timeout_s)))
            return _LOW_LATENCY | {"rtsp_flags": "listen", "rtsp_transport": "tcp", "listen_timeout": seconds}
        case "rtsp" | "rtsps":
            # TCP first: a lost RTP packet costs a picture until the next keyframe.
            return _LOW_LATENCY | {"rtsp_flags": "prefer_tcp", "timeout": micros}
        case "rtmp" | "rtmps":
            return _LOW_LATENCY | {"rtmp_live": "live"} | ({"listen": "1"} if listen else {})
        case "udp":
            return _LOW_LATENCY | {"timeout": micros, "fifo_size": "50000", "overrun_nonfatal": "1"}
        case _:
            # A playlist from the network may name only what is on the network.
            return {
                "protocol_whitelist": "http,https,tls,tcp,crypto,httpproxy",
                "rw_timeout": micros,
                "live_start_index": "-2",
            }
