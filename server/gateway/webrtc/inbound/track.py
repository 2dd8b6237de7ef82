"""One line of a publisher: from its RTP packets to what a worker reads, and what the sender is told."""

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_rtcp_packet,
    unwrap_rtx,
)

from server.gateway.webrtc.inbound import vp9
from server.gateway.webrtc.inbound.frames import Frames
from server.gateway.webrtc.inbound.offer import Line, payload_type
from server.gateway.webrtc.inbound.order import Lost, Order, Packet

# A picture is worth a second try at what is sent again, over a way of up to 100 ms; sound isn't.
VIDEO_PATIENCE_S, SOUND_PATIENCE_S = 0.4, 0.06
_SENDER_REPORT = 200


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole RTP packets as RTSP interleaves them (RFC 2326, 10.12), and where they lie in the stream."""

    data: bytes
    picture: bool
    begins: bool
    arrival_ns: int


class Track:
    """Packets of the line's first source; those of others are passed over."""

    def __init__(self, number: int, line: Line) -> None:
        """`number`: which track of the worker's description it is."""
        self.line = line
        self._number = number
        self._frames = Frames(line.video) if line.video else None
        self._order = Order(patience_s=VIDEO_PATIENCE_S if line.video else SOUND_PATIENCE_S)
        self._statistics = StreamStatistics(line.codec.clockRate)
        self._ssrc: int | None = None
        self._own_ssrc = secrets.randbits(32)
        self._sent = 0  # the worker's packets are numbered anew: it sees no gap
        self._report: tuple[int, float] | None = None  # the last of the sender, and when it came

    @property
    def ssrcs(self) -> tuple[int, int]:
        """Ours and the sender's, 0 before anything has come."""
        return self._own_ssrc, self._ssrc or 0

    @property
    def waits_for_key_frame(self) -> bool:
        return self._frames is not None and self._ssrc is not None and self._frames.waits

    def take_dropped(self) -> int:
        """Frames that weren't given, since it was asked last."""
        if self._frames is None:
            return 0
        dropped, self._frames.dropped = self._frames.dropped, 0
        return dropped

    def rtp(self, packet: RtpPacket, arrival_ns: int, now_s: float) -> Iterator[Piece]:
        """What is whole with this packet."""
        own, *_ = self.line.payload_types
        again = packet.payload_type != own
        if again:
            if len(packet.payload) < 2 or self._ssrc is None:  # a probe of the bandwidth
                return
            packet = unwrap_rtx(packet, payload_type=own, ssrc=self._ssrc)
        else:
            self._ssrc = packet.ssrc if self._ssrc is None else self._ssrc
            if packet.ssrc != self._ssrc:
                return
            self._statistics.add(packet)
        kept = Packet(
            packet.sequence_number, packet.timestamp, bool(packet.marker), packet.payload, arrival_ns
        )
        yield from self._pieces(self._order.add(kept, now_s, again=again))

    def expire(self, now_s: float) -> Iterator[Piece]:
        """What no longer waits for what is missing."""
        yield from self._pieces(self._order.expire(now_s))

    def sender_report(self, report: RtcpSrPacket, arrival_ns: int, now_s: float) -> Piece | None:
        """For the worker, who synchronises picture and sound by it; None where it is of another source."""
        if report.ssrc != self._ssrc:
            return None
        self._report = report.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF, now_s
        body = struct.pack("!I", self._number) + bytes(report.sender_info)
        data = self._interleaved(2 * self._number + 1, pack_rtcp_packet(_SENDER_REPORT, 0, body))
        return Piece(data, False, False, arrival_ns)

    # RTCP to the sender

    def nacks(self, now_s: float) -> Iterator[bytes]:
        """Asks for what is missing of the picture."""
        if self.line.video and self._ssrc is not None:
            for numbers in self._order.ask(now_s):
                yield bytes(
                    RtcpRtpfbPacket(
                        fmt=RTCP_RTPFB_NACK, ssrc=self._own_ssrc, media_ssrc=self._ssrc, lost=numbers
                    )
                )

    def picture_loss(self) -> bytes | None:
        """Asks for a key frame (PLI)."""
        if not self.line.video or self._ssrc is None:
            return None
        return bytes(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=self._own_ssrc, media_ssrc=self._ssrc))

    def receiver_report(self, now_s: float) -> bytes | None:
        """RFC 3550, section 6.4.2; None before anything has come."""
        if self._ssrc is None or self._statistics.max_seq is None:
            return None
        last, since_s = self._report or (0, now_s)
        info = RtcpReceiverInfo(
            ssrc=self._ssrc,
            fraction_lost=self._statistics.fraction_lost,
            packets_lost=self._statistics.packets_lost,
            highest_sequence=(self._statistics.cycles + self._statistics.max_seq) & 0xFFFFFFFF,
            jitter=self._statistics.jitter & 0xFFFFFFFF,
            lsr=last,
            dlsr=min(int((now_s - since_s) * 65536), 0xFFFFFFFF),
        )
        return bytes(RtcpRrPacket(ssrc=self._own_ssrc, reports=[info]))

    def _pieces(self, ordered: Iterator[Packet | Lost]) -> Iterator[Piece]:
        for item in ordered:
            if isinstance(item, Lost):
                if self._frames is not None:
                    self._frames.lost()
            elif self._frames is None:
                if item.payload:
                    yield Piece(self._rtp(item), False, False, item.arrival_ns)
            else:
                for frame in self._frames.add(item):
                    yield Piece(b"".join(map(self._rtp, frame.packets)), True, frame.key, frame.arrival_ns)

    def _rtp(self, packet: Packet) -> bytes:
        marker = 0x80 if packet.marker else 0
        header = struct.pack(
            "!BBHII",
            *(0x80, marker | payload_type(self._number), self._sent, packet.timestamp, self._number),
        )
        self._sent = (self._sent + 1) % (1 << 16)
        payload = vp9.plain(packet.payload) if self.line.video == "VP9" else packet.payload
        return self._interleaved(2 * self._number, header + payload)

    @staticmethod
    def _interleaved(channel: int, packet: bytes) -> bytes:
        return struct.pack("!BBH", 0x24, channel, len(packet)) + packet
