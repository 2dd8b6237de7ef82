"""One WebRTC publisher: takes what it sends apart into whole frames, and tells it what arrives."""

import asyncio
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from aiortc import RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import HeaderExtensionsMap, RtcpPacket, RtcpSrPacket, RtpPacket

from server.gateway.fanout.keyframes import KeyframeRequests
from server.gateway.limits.refusals import Refusals
from server.gateway.webrtc.feedback import TRANSPORT_CC_URI
from server.gateway.webrtc.ice import Gatherer, Network
from server.gateway.webrtc.inbound.offer import Offer, answer_sdp
from server.gateway.webrtc.inbound.track import Piece, Track
from server.gateway.webrtc.inbound.transport import PublisherTransport
from server.gateway.webrtc.inbound.transport_feedback import TransportFeedback
from server.gateway.webrtc.session import Session
from server.settings import Limits
from server.wire.clock import now_ns
from server.wire.messages import PieceKind

_TICK_S = 0.01  # what is missing is asked for so soon
_FEEDBACK_S, _REPORT_S, _KEY_FRAME_S = 0.05, 1.0, 1.0
# Until both have a sender report libav takes picture and sound to begin together: sound of seconds before the
# first key frame would be late by these, and with the report cut by them. So long it waits for the picture.
_PICTURE_S = 5.0


class Sink(Protocol):
    """Where a publisher's media go."""

    def push(self, data: bytes, kind: PieceKind, *, picture: bool, arrival_ns: int) -> None: ...

    def dropped(self, count: int) -> None:
        """So many pictures wanted a key frame that had not come."""
        ...


class Publisher:
    """`answer` gathers and answers; from then on its session connects, and what comes is pushed."""

    def __init__(
        self,
        offer: Offer,
        *,
        address: str,
        network: Network,
        limits: Limits,
        sink: Sink,
        refusals: Refusals,
        on_closed: Callable[["Publisher"], None],
    ) -> None:
        self.shown = address
        self._offer = offer
        self._sink = sink
        self._on_closed = on_closed
        self._refusals = refusals
        self._tracks = [Track(number, line) for number, line in enumerate(offer.lines)]
        self._by_type = {number: track for track in self._tracks for number in track.line.payload_types}
        self._extensions = _extensions(offer)
        self._feedback = TransportFeedback()
        self._key_frames = KeyframeRequests(self._ask_key_frame)
        self._outgoing: list[bytes] = []
        self._begun = False  # there was a key frame
        self._sound_from_s: float | None = None  # in any case
        self._transport: PublisherTransport

        def transport(ice: RTCIceTransport, gatherer: Gatherer) -> PublisherTransport:
            self._transport = PublisherTransport(
                ice,
                network.certificates.current,
                bytes_per_s=limits.max_publisher_bps / 8,
                on_rtp=self._on_rtp,
                on_rtcp=self._on_rtcp,
                on_refused=self._refuse,
            )
            return self._transport

        self.session = Session(
            offer.remote,
            address=address,
            network=network,
            limits=limits,
            transport=transport,
            work=lambda: [self._report()],
            on_closed=self._closed,
        )

    async def answer(self) -> str:
        """The SDP answer, with every candidate of ours in it."""
        return answer_sdp(self._offer, await self.session.open(), session_id=secrets.randbits(62))

    def request_key_frame(self) -> None:
        self._key_frames.ask()

    def hang_up(self, reason: str) -> None:
        self.session.end()

    def _refuse(self) -> None:
        self._refusals.add("bad_publisher", self.shown)

    def _closed(self) -> None:
        self._key_frames.satisfied()
        self._on_closed(self)

    # What comes

    def _on_rtp(self, data: bytes) -> None:
        arrival_ns, now_s = now_ns(), time.monotonic()
        try:
            packet = RtpPacket.parse(data, self._extensions)
        except (ValueError, IndexError, struct.error):  # aiortc's of an extension with a wrong length
            self._refuse()
            return
        number = packet.extensions.transport_sequence_number
        if number is not None:
            self._feedback.arrived(number, arrival_ns)
        track = self._by_type.get(packet.payload_type)
        if track is not None:
            self._push_media(track, track.rtp(packet, arrival_ns, now_s), now_s)

    def _on_rtcp(self, data: bytes) -> None:
        arrival_ns, now_s = now_ns(), time.monotonic()
        try:
            packets = RtcpPacket.parse(data)
        except (ValueError, IndexError, struct.error):
            self._refuse()
            return
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                pieces = (track.sender_report(packet, arrival_ns, now_s) for track in self._tracks)
                self._push(piece for piece in pieces if piece is not None)

    def _push_media(self, track: Track, pieces: Iterable[Piece], now_s: float) -> None:
        for piece in pieces:
            if self._sound_from_s is None:
                self._sound_from_s = now_s + _PICTURE_S
            if track.line.video or self._begun or now_s >= self._sound_from_s:
                self._push([piece])

    def _push(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if piece.begins:
                self._begun = True
                self._key_frames.satisfied()
            self._sink.push(
                piece.data,
                "start" if piece.begins else "rest",
                picture=piece.picture,
                arrival_ns=piece.arrival_ns,
            )

    # What we say

    async def _report(self) -> None:
        feedback_s = report_s = key_frame_s = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            for track in self._tracks:
                self._push_media(track, track.expire(now_s), now_s)
                self._outgoing += track.nacks(now_s)
                if dropped := track.take_dropped():
                    self._sink.dropped(dropped)
            if now_s - feedback_s >= _FEEDBACK_S:
                feedback_s = now_s
                self._say(self._feedback.take(*self._tracks[0].ssrcs))
            if now_s - report_s >= _REPORT_S:
                report_s = now_s
                for track in self._tracks:
                    self._say(track.receiver_report(now_s))
            if now_s - key_frame_s >= _KEY_FRAME_S and any(t.waits_for_key_frame for t in self._tracks):
                key_frame_s = now_s
                self._key_frames.ask()
            outgoing, self._outgoing = self._outgoing, []
            try:
                for packet in outgoing:
                    await self._transport._send_rtp(packet)
            except ConnectionError:
                self.session.end()
                return

    def _ask_key_frame(self) -> None:
        for track in self._tracks:
            self._say(track.picture_loss())

    def _say(self, packet: bytes | None) -> None:
        if packet is not None:
            self._outgoing.append(packet)


def _extensions(offer: Offer) -> HeaderExtensionsMap:
    extensions = HeaderExtensionsMap()
    found = {uri: number for line in offer.lines for uri, number in line.extensions.items()}
    number = found.get(TRANSPORT_CC_URI)
    if number is not None:
        parameters = RTCRtpParameters()
        parameters.headerExtensions = [RTCRtpHeaderExtensionParameters(id=number, uri=TRANSPORT_CC_URI)]
        extensions.configure(parameters)
    return extensions
