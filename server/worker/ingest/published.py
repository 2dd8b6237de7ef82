"""What is published to the gateway as a source: it comes by the worker's connection."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet

from server.wire.messages import Published, PublishedData, PublisherGone
from server.wire.urls import mask_url
from server.worker.ingest.container import (
    LOW_LATENCY,
    METADATA_ERRORS,
    find_tracks,
    packets_of,
    pixel_limit,
    tracks_of,
)
from server.worker.ingest.handover import Handover
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.source import Arrival, PublisherLost, Times, Tracks
from server.worker.ingest.transport import TransportStream


class PublishedSource:
    def __init__(
        self,
        url: str,
        inbox: PublisherInbox,
        *,
        max_size: tuple[int, int],
        timeout_s: float,
        stop: threading.Event,
    ) -> None:
        self._shown = mask_url(url)
        self._inbox = inbox
        self._timeout_s = timeout_s
        self._stop = stop
        self._options = pixel_limit(max_size) | LOW_LATENCY
        self._container: InputContainer | None = None
        self._transport: TransportStream | None = None
        self._feed: _Reader | Handover | None = None

    def open(self) -> Tracks:
        """Raises PublisherLost where nobody publishes a video within the timeout."""
        self._inbox.await_publisher()
        match self._inbox.take(self._timeout_s, self._stop):
            case Published() as published:
                pass
            case PublisherGone(reason=reason):
                raise self._lost(reason)
            case _:
                raise self._lost(f"no publisher within {self._timeout_s:g} s")
        try:
            self._container = self._opened(published)
            video, audio = find_tracks(self._container)
            if isinstance(self._feed, Handover):
                self._feed.stream.follow(video.index, video.codec_context.name)
            elif self._transport is not None:
                self._transport.follow(video.id, video.codec_context.name)
        except MemoryError:
            raise
        except av.FFmpegError as exc:
            raise self._lost(self._reason(exc)) from exc
        except LookupError as exc:
            raise self._lost(str(exc)) from exc
        return tracks_of(video, audio)

    def _opened(self, published: Published) -> InputContainer:
        match published.format:
            case "flv":
                reader = self._feed = _Reader(self._inbox, timeout_s=self._timeout_s, stop=self._stop)
                reader.wait()
                # The reader itself ends after the timeout: libav's own would begin at the last packet.
                timeout = (self._timeout_s, None)
                return av.open(
                    reader,
                    "r",
                    format="flv",
                    options=self._options,
                    timeout=timeout,
                    metadata_errors=METADATA_ERRORS,
                )
            case "mpegts":
                transport = self._transport = TransportStream()
                reader = self._feed = _Reader(
                    self._inbox, timeout_s=self._timeout_s, stop=self._stop, feed=transport.feed
                )
                reader.wait()
                return av.open(
                    reader,
                    "r",
                    format="mpegts",
                    options=self._options,
                    timeout=(self._timeout_s, None),
                    metadata_errors=METADATA_ERRORS,
                )
            case "rtsp":
                handover = self._feed = Handover(
                    self._inbox, published.description, timeout_s=self._timeout_s
                )
                options = self._options | {"rtsp_transport": "tcp", "protocol_whitelist": "rtsp,tcp"}
                return av.open(
                    handover.url,
                    options=options,
                    timeout=(self._timeout_s, self._timeout_s),
                    metadata_errors=METADATA_ERRORS,
                )

    def arrivals(self) -> Iterator[Arrival]:
        """Never ends by itself: where the publisher does, PublisherLost is raised."""
        assert self._container is not None
        picture, sound = find_tracks(self._container)
        try:
            for video, packet in packets_of(self._container, picture, [sound] if sound else []):
                if self._stop.is_set():
                    return
                if packet.size:
                    yield Arrival(
                        video=video, packet=packet, times=Times.now(self._arrival_ns(video, packet))
                    )
        except MemoryError:
            raise
        except av.FFmpegError as exc:
            raise self._lost(self._reason(exc)) from exc
        raise self._lost(self._ended() or "the publication ended")

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        if isinstance(self._feed, Handover):
            self._feed.close()
        self._feed = self._transport = None

    def _arrival_ns(self, video: bool, packet: "Packet[Any]") -> int | None:
        """When the gateway got the last byte of a packet that libav gives now; None where nobody knows."""
        if self._transport is not None:
            return self._transport.stamp(packet, video=video)
        match self._feed:
            case _Reader(arrival_ns=arrival_ns):
                return arrival_ns
            case Handover(stream=stream):
                return stream.stamp(packet, video=video)
        return None

    def _ended(self) -> str:
        return self._feed.end if self._feed is not None else ""

    def _reason(self, exc: av.FFmpegError) -> str:
        if isinstance(exc, av.error.ExitError):  # libav's word for our timeout
            return self._ended() or f"nothing arrived within {self._timeout_s:g} s"
        return self._ended() or exc.strerror or type(exc).__name__

    def _lost(self, reason: str) -> PublisherLost:
        return PublisherLost(f"{self._shown}: {reason}")


class _Reader:
    """A publication as the file that libav reads: one piece at a time, so that `arrival_ns` is that of the
    packet which was read last. It ends where the publication does; `end` says why."""

    def __init__(
        self,
        inbox: PublisherInbox,
        *,
        timeout_s: float,
        stop: threading.Event,
        feed: Callable[[bytes, int], bytes] = lambda data, arrival_ns: data,
    ) -> None:
        """`feed` makes of each piece what libav reads."""
        self._inbox = inbox
        self._pass = feed
        self._timeout_s = timeout_s
        self._stop = stop
        self._piece = memoryview(b"")
        self.arrival_ns = 0
        self.end = ""

    def wait(self) -> None:
        """Until there is something to read, or it has ended."""
        while not self._piece and not self.end:
            match self._inbox.take(self._timeout_s, self._stop):
                case PublishedData(data=data, arrival_ns=arrival_ns):
                    self._piece, self.arrival_ns = memoryview(self._pass(data, arrival_ns)), arrival_ns
                case PublisherGone(reason=reason):
                    self.end = reason
                case _:
                    self.end = f"nothing arrived within {self._timeout_s:g} s"

    def read(self, size: int) -> bytes:
        self.wait()
        data, self._piece = self._piece[:size], self._piece[size:]
        return bytes(data)
