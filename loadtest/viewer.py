"""One WHEP viewer that counts frames instead of decoding them, so that a small machine can be many."""

import asyncio
import contextlib
import itertools
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

import aioice.ice
from aiortc import (
    RTCConfiguration,
    RTCDtlsTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError, OperationError
from aiortc.rtp import RtpPacket

from loadtest.arrivals import Arrivals, offer_feedback
from loadtest.http import ServerError, request
from loadtest.relay import Relay

JOIN_TIMEOUT_S = 15.0
FEEDBACK_S = 0.1
_IDR, _NAL_TYPE = 5, 0x1F


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerReport:
    """What one viewer saw. Frames are whole ones, counted within the measured window of `window_s`."""

    join_s: float | None  # POST → first whole key frame; None: no picture came
    window_s: float
    frames: int
    longest_gap_s: float  # between two frames
    packets_received: int
    packets_lost: int  # for good: NACKed ones that came after all are not among them
    error: str | None = None

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.window_s if self.window_s > 0 else 0.0


OnFrame = Callable[[bytes, float], None]  # Annex B of a whole frame, when its last packet came
_OnVideo = Callable[[bytes, int, float], None]  # with its RTP timestamp


class _EncodedFrames(queue.Queue[Any]):
    """Stands where aiortc's receiver queues whole frames for its decoder thread; hands them on at once.

    The thread then only waits for the None that ends it. aiortc takes a frame for whole when the next one
    begins; its time here is that of its own last packet. This is the one place that reaches into aiortc.
    """

    def __init__(self, receiver: RTCRtpReceiver, on_frame: _OnVideo) -> None:
        super().__init__()
        self._on_frame = on_frame
        self._handle = receiver._handle_rtp_packet
        self._last_marker_s = 0.0
        vars(receiver)["_RTCRtpReceiver__decoder_queue"] = self
        vars(receiver)["_handle_rtp_packet"] = self._on_packet

    async def _on_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        await self._handle(packet, arrival_time_ms)
        if packet.marker:
            self._last_marker_s = time.monotonic()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is None:
            super().put(None, block, timeout)
        else:
            _codec, frame = item
            self._on_frame(frame.data, frame.timestamp, self._last_marker_s)


class Viewer:
    """Joins one stream, watches, leaves. Owned by one task; `on_frame` gets frames from a key frame on."""

    def __init__(
        self, base: str, stream: str, on_frame: OnFrame | None = None, *, relay: Relay | None = None
    ) -> None:
        """`relay`: the network between. Behind one it says what arrives, as a browser does."""
        self.arrivals = Arrivals() if relay is not None else None
        self._telling: asyncio.Task[None] | None = None
        self._on_frame = on_frame
        self._relay = relay
        self.timestamps: list[int] = []  # of whole frames
        self._url = urljoin(base, f"whep/{quote(stream, safe='')}")
        self._resource: str | None = None
        self._arrivals_s: list[float] = []  # of whole frames, the first being a key frame
        self._picture: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peer.on("connectionstatechange", self._on_state)
        self._video = self._peer.addTransceiver("video", direction="recvonly")
        # Without RTX a repaired packet keeps its number, so that loss is what no retransmission brought.
        codecs = RTCRtpReceiver.getCapabilities("video").codecs  # type: ignore[union-attr]
        self._video.setCodecPreferences([c for c in codecs if c.name == "H264"])
        audio = self._peer.addTransceiver("audio", direction="recvonly")
        _EncodedFrames(self._video.receiver, self._on_video)
        _EncodedFrames(audio.receiver, lambda data, timestamp, at_s: None)
        self.join_s: float | None = None

    async def join(self) -> None:
        """Returns when the first picture is there; raises ServerError where none comes."""
        await self._peer.setLocalDescription(await self._peer.createOffer())
        offer = self._peer.localDescription.sdp
        if self._relay is not None:
            offer = offer_feedback(self._relay.offer(offer))
        posted_s = time.monotonic()
        answer = await asyncio.to_thread(request, "POST", self._url, offer.encode(), "application/sdp")
        if answer.status != 201 or "location" not in answer.headers:
            raise ServerError(f"{self._url} answered {answer.reason()}")
        self._resource = urljoin(self._url, answer.headers["location"])
        try:
            sdp = answer.text if self._relay is None else self._relay.answer(answer.text)
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="answer"))
        except (ValueError, OperationError, InvalidStateError) as exc:
            raise ServerError(f"{self._url} gave an answer that doesn't fit the offer: {exc}") from exc
        if self.arrivals is not None:
            self._telling = asyncio.create_task(_tell_arrivals(self._video.receiver.transport, self.arrivals))
        try:
            await asyncio.wait_for(self._picture, JOIN_TIMEOUT_S)
        except TimeoutError as exc:
            state = self._peer.connectionState
            raise ServerError(f"no key frame within {JOIN_TIMEOUT_S:g} s (connection is {state})") from exc
        self.join_s = self._arrivals_s[0] - posted_s

    async def leave(self) -> None:
        """Ends the session as a viewer should, by DELETE; safe after a failed join and more than once."""
        resource, self._resource = self._resource, None
        if self._telling is not None:
            self._telling.cancel()
        try:
            if resource is not None:
                await asyncio.to_thread(request, "DELETE", resource)
        finally:
            await self._peer.close()

    async def report(self, from_s: float, until_s: float) -> ViewerReport:
        """What came between two moments of the monotonic clock, or since the first picture if later."""
        since_s = max([from_s, *self._arrivals_s[:1]])
        frames = [t for t in self._arrivals_s if since_s <= t < until_s]
        edges = [since_s, *frames, until_s]
        received = lost = 0
        for stats in (await self._video.receiver.getStats()).values():
            if stats.type == "inbound-rtp":
                received += stats.packetsReceived
                lost += stats.packetsLost
        return ViewerReport(
            join_s=self.join_s,
            window_s=until_s - since_s,
            frames=len(frames),
            longest_gap_s=max(b - a for a, b in itertools.pairwise(edges)),
            packets_received=received,
            packets_lost=lost,
        )

    def _on_video(self, data: bytes, timestamp: int, at_s: float) -> None:
        if not self._arrivals_s and not is_key_frame(data):
            return
        self._arrivals_s.append(at_s)
        self.timestamps.append(timestamp)
        if not self._picture.done():
            self._picture.set_result(None)
        if self._on_frame is not None:
            self._on_frame(data, at_s)

    def _on_state(self) -> None:
        if self._peer.connectionState == "failed" and not self._picture.done():
            self._picture.set_exception(ServerError("the connection failed (ICE or DTLS)"))


async def _tell_arrivals(transport: RTCDtlsTransport, arrivals: Arrivals) -> None:
    """Ten times a second, until cancelled."""
    handle = transport._handle_rtp_data

    async def on_rtp(data: bytes, arrival_time_ms: int) -> None:
        arrivals.packet(data, time.monotonic())
        await handle(data, arrival_time_ms=arrival_time_ms)

    vars(transport)["_handle_rtp_data"] = on_rtp
    while True:
        await asyncio.sleep(FEEDBACK_S)
        if (packet := arrivals.feedback()) is not None:
            with contextlib.suppress(ConnectionError):  # it isn't connected yet, or no more
                await transport._send_rtp(packet)


def is_key_frame(annex_b: bytes) -> bool:
    """Whether one H.264 access unit holds an IDR slice."""
    start = annex_b.find(b"\0\0\1")
    while 0 <= start < len(annex_b) - 3:
        if annex_b[start + 3] & _NAL_TYPE == _IDR:
            return True
        start = annex_b.find(b"\0\0\1", start + 3)
    return False


def gather_loopback_too() -> None:
    """From now on this process's viewers gather 127.0.0.1 as well, which aioice leaves out: a service on this
    machine may offer that, or the machine's other addresses, and none of it leaves the machine."""
    usual = aioice.ice.get_host_addresses

    def with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return ["127.0.0.1", *usual(use_ipv4, use_ipv6)]

    aioice.ice.get_host_addresses = with_loopback
