"""A network stream as a source: RTSP, RTMP, HLS and HTTP, pulled, and MPEG-TS over UDP and SRT.

When a frame's last byte arrived is known of MPEG-TS, which our own sockets read, and of H.264 and HEVC by
RTSP over TCP, which comes through our relay. Of the rest the time counts at which libav gives a frame away.
By RTMP it has then just read it; by RTSP over UDP or TLS, or in other codecs, it may have held it back.
"""

import errno
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import av
from av.container import InputContainer

from server.wire.source_policy import SourcePolicy, not_allowed
from server.wire.srt import SrtAddress, srt_address
from server.wire.urls import mask_url, scheme
from server.worker.ingest.container import (
    LOW_LATENCY,
    METADATA_ERRORS,
    Pacer,
    find_tracks,
    packets_of,
    pixel_limit,
    tracks_of,
)
from server.worker.ingest.datagrams import Datagrams, can_listen, listen
from server.worker.ingest.dial import Dialer, Refused
from server.worker.ingest.relay import Relay
from server.worker.ingest.source import (
    Arrival,
    PublisherLost,
    SourceLost,
    SourceUnusable,
    Times,
    Tracks,
)
from server.worker.ingest.srt import SrtReceiver
from server.worker.ingest.transport import TransportStream
from server.worker.ingest.web import Web

_LATE_SEGMENT_S = 0.1
_SKIPPED_SEGMENT_S = 1.0
_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}


class NetworkSource:
    def __init__(
        self,
        url: str,
        *,
        policy: SourcePolicy | None,
        max_size: tuple[int, int],
        timeout_s: float,
        stop: threading.Event,
    ) -> None:
        self._shown = mask_url(url)
        self._url = url
        self._policy = policy
        self._timeout_s = timeout_s
        self._dialer = Dialer(policy, timeout_s=timeout_s)
        self._relay: Relay | None = None
        self._web = Web(url, self._dialer, timeout_s=timeout_s) if scheme(url) in ("http", "https") else None
        self._stop = stop
        self._srt = srt_address(url) if scheme(url) == "srt" else None
        self._waits = self._srt is not None and self._srt.mode == "listener"  # for who publishes
        self._receiver: SrtReceiver | None = None
        self._datagrams: Datagrams | None = None
        self._transport: TransportStream | None = None
        self._options = pixel_limit(max_size) | _options(url, timeout_s=timeout_s)
        self._container: InputContainer | None = None

    def open(self) -> Tracks:
        """Raises SourceLost where nobody answers or sends video within the timeout."""
        try:
            self._container = self._opened()
            video, audio = find_tracks(self._container)
            if self._transport is not None:
                self._transport.follow(video.id, video.codec_context.name)
            elif self._relay is not None:
                self._relay.stream.follow(video.index, video.codec_context.name)
        except av.error.ProtocolNotFoundError as exc:
            raise SourceUnusable(f"{self._shown}: this FFmpeg has no such protocol") from exc
        except MemoryError:
            raise
        except Refused as exc:
            raise self._lost(str(exc)) from exc
        except UnicodeDecodeError as exc:
            raise self._lost("it leads to an address that is no text") from exc
        except av.FFmpegError as exc:
            raise self._lost(self._reason(exc)) from exc
        except (LookupError, OSError) as exc:
            raise self._lost((isinstance(exc, OSError) and exc.strerror) or str(exc)) from exc
        return tracks_of(video, audio)

    def _opened(self) -> InputContainer:
        timeout = (self._timeout_s, self._timeout_s)
        if self._web is not None:
            self._web.begin()
            container = av.open(
                self._web.url,
                options=self._options,
                timeout=timeout,
                io_open=self._web.open,
                metadata_errors=METADATA_ERRORS,
            )
            self._web.begun()
            return container
        if scheme(self._url) == "udp":  # whoever sends decides the bytes, not the format that reads them
            return self._opened_udp()
        if self._srt is not None:
            return self._opened_srt(self._srt)
        direct = self._policy is None  # libav may open connections by itself
        if direct and scheme(self._url) != "rtsp":
            return self._av_open(self._url, {})
        self._relay, url, options = relayed(self._url, self._dialer)
        try:
            return self._av_open(url, options)
        except av.FFmpegError as exc:
            if not direct or exc.errno != errno.EPROTONOSUPPORT:
                raise
        # The server has packets over UDP only, which no relay can pass on.
        self._relay.close()
        self._relay = None
        return self._av_open(self._url, {"rtsp_transport": "udp"})

    def _av_open(self, url: str, options: dict[str, str]) -> InputContainer:
        timeout = (self._timeout_s, self._timeout_s)
        return av.open(url, options=self._options | options, timeout=timeout, metadata_errors=METADATA_ERRORS)

    def _opened_udp(self) -> InputContainer:
        if not can_listen(self._url):
            timeout = (self._timeout_s, self._timeout_s)
            return av.open(
                self._url,
                format="mpegts",
                options=self._options,
                timeout=timeout,
                metadata_errors=METADATA_ERRORS,
            )
        self._transport = TransportStream()
        self._datagrams = Datagrams(
            listen(self._url), self._transport, timeout_s=self._timeout_s, stop=self._stop
        )
        return self._opened_datagrams(self._datagrams)

    def _opened_srt(self, address: SrtAddress) -> InputContainer:
        if self._receiver is None:
            hosts = [address.host]
            if not self._waits:
                hosts = self._dialer.addresses(address.host, address.port)
            if not hosts:
                raise Refused(not_allowed(address.host))
            self._receiver = SrtReceiver(address, hosts, timeout_s=self._timeout_s)
        if not self._receiver.begins(self._stop):
            what = "no publisher" if self._waits else "nothing arrived"
            raise self._lost(f"{what} within {self._timeout_s:g} s")
        self._transport = TransportStream()
        self._datagrams = Datagrams(
            self._receiver.socket,
            self._transport,
            timeout_s=self._timeout_s,
            stop=self._stop,
            why_over=self._receiver.reason,
        )
        return self._opened_datagrams(self._datagrams)

    def _opened_datagrams(self, datagrams: Datagrams) -> InputContainer:
        # It ends after the timeout by itself: libav's own would begin at the last packet.
        container = av.open(
            datagrams,
            "r",
            format="mpegts",
            options=self._options,
            timeout=(self._timeout_s, None),
            metadata_errors=METADATA_ERRORS,
        )
        datagrams.begun()
        return container

    def arrivals(self) -> Iterator[Arrival]:
        """Never ends by itself: where the stream does, SourceLost is raised."""
        assert self._container is not None
        picture, sound = find_tracks(self._container)
        # HTTP hands over whole segments at once. One that comes late is played at its pace all the same: a
        # rush after it would be a stutter at each. Where some have expired before they could be read, libav
        # goes on with the oldest that is left: who waits as long as those last loses the next ones, too.
        skip = {"skip_s": _SKIPPED_SEGMENT_S} if self._container.format.name == "hls" else {}
        pacer = Pacer(self._stop, stall_s=_LATE_SEGMENT_S, **skip)
        try:
            for video, packet in packets_of(self._container, picture, [sound] if sound else []):
                if self._stop.is_set():
                    return
                if packet.size == 0:
                    continue
                if self._web is not None:
                    arrival_ns = self._web.arrival_ns(packet.pts if video else None)
                    if packet.dts is not None:
                        pacer.hold(float(packet.dts * packet.time_base), video=video)
                    yield Arrival(video=video, packet=packet, times=Times.paced(arrival_ns))
                    continue
                stream = self._transport or (self._relay and self._relay.stream)
                arrival_ns = stream.stamp(packet, video=video) if stream else None
                yield Arrival(video=video, packet=packet, times=Times.now(arrival_ns))
        except MemoryError:
            raise
        except Refused as exc:
            raise self._lost(str(exc)) from exc
        except UnicodeDecodeError as exc:
            raise self._lost("it leads to an address that is no text") from exc
        except av.FFmpegError as exc:
            raise self._lost(self._reason(exc)) from exc
        raise self._lost(
            (self._web and self._web.failure)
            or (self._datagrams and self._datagrams.end)
            or "the stream ended"
        )

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._web is not None:
            self._web.close()
        # A port that nobody has come to yet stays open: who comes just now is not turned away.
        receiver, waits = self._receiver, self._waits and self._datagrams is None and not self._stop.is_set()
        if receiver is not None and not waits:
            receiver.end()
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        if receiver is not None and not waits:
            receiver.close()
            self._receiver = None
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    def _lost(self, reason: str) -> SourceLost:
        return (PublisherLost if self._waits else SourceLost)(f"{self._shown}: {reason}")

    def _reason(self, exc: av.FFmpegError) -> str:
        if self._web and self._web.failure:
            return self._web.failure
        if self._relay and (failure := self._relay.failure):
            return str(failure.strerror if isinstance(failure, OSError) and failure.strerror else failure)
        if isinstance(exc, av.error.ExitError):  # libav's word for our timeout
            return f"nothing arrived within {self._timeout_s:g} s"
        if self._datagrams and self._datagrams.end:
            return self._datagrams.end
        return exc.strerror or type(exc).__name__


def relayed(url: str, dialer: Dialer) -> tuple[Relay, str, dict[str, str]]:
    """A relay to where an RTSP or RTMP URL leads, and the URL and options by which libav goes through it."""
    parts, name = urlsplit(url), scheme(url)
    host, port = parts.hostname or "", parts.port or _PORTS[name]
    relay = Relay(lambda: dialer.dial(host, port, tls=name.endswith("s")), rtsp=name.startswith("rtsp"))
    user, at, _ = parts.netloc.rpartition("@")
    inner = parts._replace(scheme=name.removesuffix("s"), netloc=f"{user}{at}127.0.0.1:{relay.port}")
    if name.startswith("rtsp"):
        # Over UDP a server may have packets sent to any address, and a lost one costs pictures.
        return relay, urlunsplit(inner), {"rtsp_transport": "tcp"}
    app = parts.path.strip("/").partition("/")[0]
    return relay, urlunsplit(inner), {"rtmp_tcurl": f"{name}://{host}:{port}/{app}"}


def _options(url: str, *, timeout_s: float) -> dict[str, str]:
    """libav's options for each protocol."""
    micros = str(round(timeout_s * 1e6))
    match scheme(url):
        case "rtsp" | "rtsps":
            return LOW_LATENCY | {"timeout": micros}
        case "rtmp" | "rtmps":
            return LOW_LATENCY | {"rtmp_live": "live"}
        case "srt":
            return LOW_LATENCY
        case "udp":
            if can_listen(url):
                return LOW_LATENCY
            return LOW_LATENCY | {"timeout": micros, "fifo_size": "50000", "overrun_nonfatal": "1"}
        case _:
            # What it reads comes through `Web`: libav opens nothing by itself, whatever a playlist names, and
            # can't reuse connections that it does not know.
            return {
                "protocol_whitelist": "none",
                "http_persistent": "0",
                "http_multiple": "0",
                "live_start_index": "-2",
            }
