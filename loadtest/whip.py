"""The load test's pictures by WHIP: encoded once, packetised and sent by aiortc."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from urllib.parse import urljoin

import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.exceptions import InvalidStateError, OperationError
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from loadtest.http import ServerError, request
from loadtest.numbered_source import OnSent

_JOIN_TIMEOUT_S = 15.0
_MOST_WAITING = 8  # before the connection is there, or while it is slow


class EncodedTrack(MediaStreamTrack):
    """Pictures that are H.264 already; for one loop. `on_sent` hears of each when its last packet is sent."""

    kind = "video"

    def __init__(self, on_sent: Callable[[int], None]) -> None:
        super().__init__()
        self._on_sent = on_sent
        self._frames = deque[tuple[bytes, int, Fraction, int]](maxlen=_MOST_WAITING)
        self._there = asyncio.Event()
        self._sent: int | None = None

    def put(self, data: bytes, pts: int, time_base: Fraction, number: int) -> None:
        """Annex B of one frame."""
        self._frames.append((data, pts, time_base, number))
        self._there.set()

    async def recv(self) -> "Packet[Any]":
        if self._sent is not None:  # aiortc asks for the next once that has been sent
            self._on_sent(self._sent)
            self._sent = None
        while not self._frames:
            self._there.clear()
            await self._there.wait()
        data, pts, time_base, self._sent = self._frames.popleft()
        packet = Packet(data)
        packet.pts, packet.time_base = pts, time_base
        return packet


class WhipPublisher:
    """Publishes tracks to an address (RFC 9725), pictures as H.264. Owned by one task."""

    def __init__(self, url: str, *tracks: MediaStreamTrack) -> None:
        self._url = url
        self._resource: str | None = None
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for track in tracks:
            transceiver = self.peer.addTransceiver(track, direction="sendonly")
            if track.kind == "video":
                codecs = RTCRtpSender.getCapabilities("video").codecs
                transceiver.setCodecPreferences([c for c in codecs if c.name in ("H264", "rtx")])

    async def join(self) -> None:
        """Returns when it is connected; raises ServerError where that can't be."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = self.peer.localDescription.sdp.encode()
        answer = await asyncio.to_thread(request, "POST", self._url, offer, "application/sdp")
        if answer.status != 201 or "location" not in answer.headers:
            raise ServerError(f"{self._url} answered {answer.reason()}")
        self._resource = urljoin(self._url, answer.headers["location"])
        connected = asyncio.Event()

        def changed() -> None:
            if self.peer.connectionState in ("connected", "failed", "closed"):
                connected.set()

        self.peer.on("connectionstatechange", changed)
        try:
            await self.peer.setRemoteDescription(RTCSessionDescription(sdp=answer.text, type="answer"))
            await asyncio.wait_for(connected.wait(), _JOIN_TIMEOUT_S)
        except (ValueError, OperationError, InvalidStateError, TimeoutError) as exc:
            raise ServerError(f"{self._url}: no connection: {exc}") from exc
        if self.peer.connectionState != "connected":
            raise ServerError(f"{self._url}: the connection is {self.peer.connectionState}")

    async def leave(self) -> None:
        """Ends it as a publisher should, by DELETE."""
        resource, self._resource = self._resource, None
        try:
            if resource is not None:
                await asyncio.to_thread(request, "DELETE", resource)
        finally:
            await self.peer.close()


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


class Whip:
    """A way in (`numbered_source.Way`): its own thread has the connection."""

    def __init__(self, url: str, on_sent: OnSent) -> None:
        self._url = url
        self._on_sent = on_sent
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="whip")
        self._thread.start()
        self._publisher: WhipPublisher | None = None
        self._track: EncodedTrack | None = None

    def open(self) -> OutputContainer:
        """Raises OSError where the service takes no publisher."""
        try:
            asyncio.run_coroutine_threadsafe(self._join(), self._loop).result()
        except ServerError as exc:
            raise OSError(str(exc)) from exc
        return av.open(_Nowhere(), "w", format="h264")

    def send(self, container: OutputContainer, packet: "Packet[VideoStream]", number: int) -> None:
        assert self._track is not None
        assert packet.pts is not None
        self._loop.call_soon_threadsafe(self._track.put, bytes(packet), packet.pts, packet.time_base, number)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _join(self) -> None:
        await self._leave()
        self._track = EncodedTrack(lambda number: self._on_sent([number]))
        self._publisher = WhipPublisher(self._url, self._track)
        await self._publisher.join()

    async def _leave(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.leave()
