"""DTLS-SRTP with one viewer, who may say little: nothing but feedback, and only so much of it."""

import struct
import time
from collections.abc import Callable, Iterable

from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceTransport
from aiortc.rtcdtlstransport import RtpReceiver, RtpRouter, State
from aiortc.rtcdtlstransport import RtpSender as AnySender
from aiortc.rtp import RTCP_PSFB_FIR, AnyRtcpPacket, RtcpPsfbPacket

from server.gateway.fanout.budget import Budget
from server.gateway.webrtc.feedback import Arrivals, split_feedback

# A packet full of NACKs takes 1.6 ms: 8 Mbit/s of them would be all that the gateway has time for. A viewer
# that loses a fifth of 4 Mbit/s sends 4 kB/s.
FEEDBACK_BYTES_PER_S = 8 << 10
FEEDBACK_BYTES_AT_ONCE = 16 << 10


class ViewerTransport(RTCDtlsTransport):
    """`send` takes datagrams; `on_arrivals` hears of transport-wide feedback, `on_refused` of each packet
    that is passed over."""

    def __init__(
        self,
        ice: RTCIceTransport,
        *,
        send: Callable[[list[bytes]], None],
        on_arrivals: Callable[[Arrivals], None],
        on_refused: Callable[[], None],
    ) -> None:
        super().__init__(ice, [RTCCertificate.generateCertificate()])
        self._rtp_router = FeedbackRouter()
        self._send_datagrams = send
        self._on_arrivals = on_arrivals
        self._on_refused = on_refused
        self._feedback = Budget(capacity=FEEDBACK_BYTES_AT_ONCE, per_s=FEEDBACK_BYTES_PER_S)

    def send(self, packets: Iterable[bytes]) -> None:
        """RTP packets, at once; raises ConnectionError when it is over."""
        if self._state != State.CONNECTED:
            raise ConnectionError("the viewer isn't connected")
        protect = self._tx_srtp.protect
        self._send_datagrams([protect(packet) for packet in packets])

    async def _handle_rtcp_data(self, data: bytes) -> None:
        if not self._feedback.take(len(data), time.monotonic()):
            self._on_refused()
            return
        try:
            feedback, rest = split_feedback(data)
        except ValueError:
            self._on_refused()
            return
        for arrivals in feedback:
            self._on_arrivals(arrivals)
        if rest:
            await super()._handle_rtcp_data(rest)

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        pass  # we only send


class FeedbackRouter(RtpRouter):
    """Finds the senders of a FIR: they stand in its entries, its media source is 0 (RFC 5104, 4.3.1)."""

    def route_rtcp(self, packet: AnyRtcpPacket) -> set[RtpReceiver | AnySender]:
        recipients = super().route_rtcp(packet)
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_FIR:
            for offset in range(0, len(packet.fci) - 7, 8):
                (ssrc,) = struct.unpack_from("!I", packet.fci, offset)
                if ssrc in self.senders:
                    recipients.add(self.senders[ssrc])
        return recipients
