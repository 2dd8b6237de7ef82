"""DTLS-SRTP with one viewer, who may say little: nothing but feedback, and only so much of it."""

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pylibsrtp
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceTransport
from aiortc.rtcdtlstransport import State
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    AnyRtcpPacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    is_rtcp,
    unpack_remb_fci,
)

from server.gateway.fanout.budget import Budget
from server.gateway.webrtc.feedback import Arrivals, split_feedback

# A packet full of NACKs takes 1.6 ms: 8 Mbit/s of them would be all that the gateway has time for. A viewer
# that loses a fifth of 4 Mbit/s sends 4 kB/s.
FEEDBACK_BYTES_PER_S = 8 << 10
FEEDBACK_BYTES_AT_ONCE = 16 << 10


class FeedbackListener(Protocol):
    """Hears what a viewer says of what it is sent; must not raise."""

    def hear(self, packet: AnyRtcpPacket) -> None: ...


class ViewerTransport(RTCDtlsTransport):
    """`send` takes datagrams; `on_arrivals` hears of transport-wide feedback, `on_refused` of each packet
    that is passed over. What the viewer says comes by `receive`, past aiortc's queue and task."""

    def __init__(
        self,
        ice: RTCIceTransport,
        certificate: RTCCertificate,
        *,
        send: Callable[[Sequence[bytes]], None],
        on_arrivals: Callable[[Arrivals], None],
        on_refused: Callable[[], None],
    ) -> None:
        super().__init__(ice, [certificate])
        self.hearers: dict[int, FeedbackListener] = {}  # by the source that they send
        self._send_datagrams = send
        self._on_arrivals = on_arrivals
        self._on_refused = on_refused
        self._feedback = Budget(capacity=FEEDBACK_BYTES_AT_ONCE, per_s=FEEDBACK_BYTES_PER_S)

    def send(self, packets: Sequence[bytes]) -> None:
        """RTP packets, at once; raises ConnectionError when it is over."""
        if self._state != State.CONNECTED:
            raise ConnectionError("the viewer isn't connected")
        protect = self._tx_srtp.protect
        self._send_datagrams([protect(packet) for packet in packets])

    def send_report(self, packet: bytes) -> None:
        """An RTCP packet; nothing happens when it is over, as the sending of frames finds out as well."""
        if self._state == State.CONNECTED:
            self._send_datagrams([self._tx_srtp.protect_rtcp(packet)])

    def receive(self, datagram: bytes) -> None:
        """SRTP or SRTCP of the viewer; we only send, so that RTP is nothing to us."""
        if self._state != State.CONNECTED or not is_rtcp(datagram):
            return
        try:
            data = self._rx_srtp.unprotect_rtcp(datagram)
        except pylibsrtp.Error:
            return
        if not self._feedback.take(len(data), time.monotonic()):
            self._on_refused()
            return
        try:
            feedback, rest = split_feedback(data)
            packets = RtcpPacket.parse(rest) if rest else []
        except ValueError:
            self._on_refused()
            return
        for arrivals in feedback:
            self._on_arrivals(arrivals)
        for packet in packets:
            for source in sources_of(packet):
                if (listener := self.hearers.get(source)) is not None:
                    listener.hear(packet)


def sources_of(packet: AnyRtcpPacket) -> Iterator[int]:
    """Those that the packet speaks of."""
    match packet:
        case RtcpRrPacket(reports=reports) | RtcpSrPacket(reports=reports):
            yield from {report.ssrc for report in reports}
        case RtcpRtpfbPacket(media_ssrc=source):
            yield source
        case RtcpPsfbPacket(fmt=fmt, fci=fci) if fmt == RTCP_PSFB_FIR:
            # They stand in its entries, its media source is 0 (RFC 5104, 4.3.1).
            yield from {struct.unpack_from("!I", fci, at)[0] for at in range(0, len(fci) - 7, 8)}
        case RtcpPsfbPacket(fmt=fmt, fci=fci) if fmt == RTCP_PSFB_APP:
            try:
                yield from set(unpack_remb_fci(fci)[1])
            except ValueError:
                return  # not an estimate
        case RtcpPsfbPacket(media_ssrc=source):
            yield source
