"""Sends one line's encoded frames to one viewer: sequence numbers, sender reports, retransmission.

Stands where aiortc's own RTCRtpSender would: that one encodes for each viewer, keeps 128 packets for NACKs
(less than one upscaled key frame), and stamps its reports with the time of sending, which tears sound and
picture apart by what the upscaling takes.
"""

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    unpack_remb_fci,
)

from server.gateway.fanout.fanout import SwitchingReader
from server.gateway.webrtc.dtls import ViewerTransport
from server.gateway.webrtc.extensions import HeaderExtensions
from server.gateway.webrtc.negotiate import Line, Sources
from server.gateway.webrtc.pacer import Pacer
from server.gateway.webrtc.path import Path
from server.gateway.webrtc.resend import Resends, Sent, TooLossy
from server.gateway.webrtc.rtp import RtpFrame

# A frame of more than that goes out over half of the time until the next one: in one burst a key frame would
# overflow the buffers on its way.
BURST_PACKETS = 8
_SPREAD, _LONGEST_FRAME_S = 0.5, 0.1
_NTP_EPOCH_S = 2_208_988_800
_CNAME = 1
_WITHOUT, _WITH_EXTENSIONS = 0x80, 0x90
_HEADER = struct.Struct("!BBHII")


class _Rest(NamedTuple):
    """A frame from the packet at `start` on, in bursts with that pause between them."""

    payloads: tuple[bytes, ...]
    start: int
    timestamp: int
    pause_s: float


class RtpSender:
    """Owned by its peer, which runs `run`; its transport tells it what the viewer says."""

    def __init__(
        self,
        *,
        line: Line,
        sources: Sources,
        transport: ViewerTransport,
        reader: SwitchingReader[RtpFrame],
        path: Path,
        pacer: Pacer,
        on_feedback: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_feedback`: something has been heard of the path."""
        self._line = line
        self._ssrc = sources.ssrc
        self._sources = sources
        self._transport = transport
        self._reader = reader
        self._resends = Resends()
        self._skipping = False
        # From the lower half, as a wrap soon after the start breaks SRTP.
        self._sequence = random.randrange(1 << 15)
        self._rtx_sequence = random.randrange(1 << 15)
        self._timestamp_origin = sources.timestamp_origin
        self._packets = 0
        self._octets = 0
        self._path = path
        self._on_feedback = on_feedback
        self._extensions = HeaderExtensions(line)
        self._first = _WITH_EXTENSIONS if self._extensions else _WITHOUT
        assert line.codec.payloadType is not None
        self._payload_type = line.codec.payloadType
        self._repairs = any(feedback.type == "nack" for feedback in line.codec.rtcpFeedback)
        name = RtcpSourceInfo(ssrc=sources.ssrc, items=[(_CNAME, sources.cname.encode())])
        self._name = bytes(RtcpSdesPacket(chunks=[name]))
        self._before: int | None = None  # the last frame's timestamp
        self._sent = -1  # and as it was sent
        self._pacer = pacer
        self._rest: _Rest | None = None  # of the frame that is being sent
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Sends until the reader or the connection ends; raises ReaderClosed or ConnectionError."""
        self._transport.hearers[self._ssrc] = self
        self._reader.listen(self._send)
        self._send()
        try:
            await self._over
        finally:
            self._over.cancel()
            del self._transport.hearers[self._ssrc]
            self._reader.close()
            self._say_goodbye()

    def _send(self) -> None:
        """Sends what the reader has, up to where a pause is due; what goes wrong is `run`'s to raise."""
        if self._rest is not None or self._over.done():
            return
        try:
            while self._rest is None and (frame := self._reader.take()) is not None:
                if self._skipping:
                    self._skipping = False
                    self._resends.start_over(sum(map(len, frame.payloads)))
                self._send_frame(frame)
        except Exception as exc:
            self._over.set_exception(exc)

    def _send_frame(self, frame: RtpFrame) -> None:
        before, self._before = self._before, frame.timestamp
        # Of two renditions the next may begin with the picture that the other one ended with.
        self._sent = max(frame.timestamp, self._sent + 1)
        timestamp = (self._timestamp_origin + self._sent) & 0xFFFFFFFF
        if len(frame.payloads) <= BURST_PACKETS:
            self._send_burst(frame.payloads, timestamp, ends=True)
        else:
            self._send_from(_Rest(frame.payloads, 0, timestamp, self._pause_s(frame, before)))

    def _pause_s(self, frame: RtpFrame, before: int | None) -> float:
        """Between its bursts; `before`: when the last frame was."""
        interval_s = _LONGEST_FRAME_S
        if before is not None:
            interval_s = min(max(frame.timestamp - before, 0) / self._line.clock_hz, _LONGEST_FRAME_S)
        return _SPREAD * interval_s / -(-len(frame.payloads) // BURST_PACKETS)

    def _go_on(self) -> None:
        """After a pause."""
        rest, self._rest = self._rest, None
        if rest is None or self._over.done():
            return
        try:
            if not self._skipping:
                self._send_from(rest)
        except Exception as exc:
            self._over.set_exception(exc)
        self._send()

    def _send_from(self, rest: "_Rest") -> None:
        end = rest.start + BURST_PACKETS
        ends = end >= len(rest.payloads)
        self._send_burst(rest.payloads[rest.start : end], rest.timestamp, ends=ends)
        if not ends:
            self._rest = rest._replace(start=end)
            self._pacer.after(rest.pause_s, self._go_on)

    def _send_burst(self, payloads: Sequence[bytes], timestamp: int, *, ends: bool) -> None:
        """`ends`: the frame."""
        sizes = [len(payload) for payload in payloads]
        extensions = self._header_extensions(sizes)
        sequence, kind, packets = self._sequence, self._payload_type, []
        last = len(payloads) - 1 if ends else -1
        for index, payload in enumerate(payloads):
            marked = kind | (index == last) << 7
            number = sequence + index & 0xFFFF
            header = _HEADER.pack(self._first, marked, number, timestamp, self._ssrc)
            packets.append(header + extensions[index] + payload)
        if self._repairs:
            self._resends.sent(sequence, timestamp, payloads, ends=ends)
        self._sequence = sequence + len(packets) & 0xFFFF
        self._octets += sum(sizes)
        self._packets += len(packets)
        self._transport.send(packets)

    async def pad(self, size: int) -> None:
        """Sends so many bytes of what was sent last once more, to see whether the network carries them."""
        self._transport.send(self._again(self._resends.latest(size)))

    def _header_extensions(self, sizes: Sequence[int]) -> Sequence[bytes]:
        """Of packets with so many bytes of payload that are sent now, which the path takes note of."""
        now_s, path, extensions = time.monotonic(), self._path, self._extensions
        if extensions.numbered:
            return extensions.of(path.sent(sizes, now_s), now_s, path.hold_s)
        path.count(sum(sizes), now_s)
        return extensions.of(sizes, now_s, path.hold_s)

    def hear(self, packet: AnyRtcpPacket) -> None:
        match packet:
            case RtcpRtpfbPacket(fmt=fmt, lost=lost) if fmt == RTCP_RTPFB_NACK:
                self._on_lost(lost)
            case RtcpPsfbPacket(fmt=fmt) if fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
                self._reader.ask_keyframe()
            case RtcpPsfbPacket(fmt=fmt, fci=fci) if fmt == RTCP_PSFB_APP:
                with contextlib.suppress(ValueError):  # not an estimate
                    self._path.estimate_bps = float(unpack_remb_fci(fci)[0])
            case RtcpRrPacket(reports=reports):
                for report in reports:
                    if report.ssrc == self._ssrc:
                        self._on_report(report)

    def _on_report(self, report: RtcpReceiverInfo) -> None:
        if report.lsr:
            ticks = (_ntp(time.time()) >> 16) - report.lsr - report.dlsr + (1 << 31)
            rtt_s = (ticks % (1 << 32) - (1 << 31)) / (1 << 16)
            self._resends.measured(rtt_s)
            self._path.measured(rtt_s)
        if self._line.kind == "video":  # sound is too little to lose any
            self._path.reported_loss(report.fraction_lost / 256, time.monotonic())
            self._on_feedback()

    def _on_lost(self, sequences: Iterable[int]) -> None:
        if self._skipping:
            return
        try:
            again = self._resends.lost(sequences, time.monotonic(), self._path.loss)
        except TooLossy:
            self._skipping = True
            self._reader.skip()
            return
        with contextlib.suppress(ConnectionError):  # the sending of frames finds out as well
            self._transport.send(self._again(again))

    def _again(self, packets: Sequence[Sent]) -> list[bytes]:
        codec, ssrc = self._line.codec, self._ssrc
        if self._line.rtx is not None:  # RFC 4588: a stream of its own, the lost number in front
            codec, ssrc = self._line.rtx, self._sources.rtx_ssrc
        assert codec.payloadType is not None
        extensions = self._header_extensions([len(sent.payload) for sent in packets])
        again = []
        for sent, extension in zip(packets, extensions, strict=True):
            sequence, front = sent.sequence, b""
            if self._line.rtx is not None:
                sequence, front = self._rtx_sequence, struct.pack("!H", sent.sequence)
                self._rtx_sequence = (sequence + 1) & 0xFFFF
            marker = sent.marker << 7 | codec.payloadType
            header = _HEADER.pack(self._first, marker, sequence, sent.timestamp, ssrc)
            again.append(header + extension + front + sent.payload)
        return again

    def report(self) -> bytes:
        """Puts this line's clock beside the wall clock, for lip sync (RFC 3550, 6.4.1)."""
        # Every line's timestamps are of CLOCK_MONOTONIC, so "now" is the same moment on all of them.
        now_s = time.time()
        timestamp = self._timestamp_origin + int(time.monotonic() * self._line.clock_hz)
        report = RtcpSrPacket(
            ssrc=self._ssrc,
            sender_info=RtcpSenderInfo(
                ntp_timestamp=_ntp(now_s),
                rtp_timestamp=timestamp & 0xFFFFFFFF,
                packet_count=self._packets & 0xFFFFFFFF,
                octet_count=self._octets & 0xFFFFFFFF,
            ),
        )
        return bytes(report) + self._name

    def _say_goodbye(self) -> None:
        """Tells the viewer that the line is over, so that it waits for nothing more (RFC 3550, 6.6)."""
        sources = [self._ssrc] if self._line.rtx is None else [self._ssrc, self._sources.rtx_ssrc]
        with contextlib.suppress(ConnectionError):
            self._transport.send_report(self.report() + bytes(RtcpByePacket(sources=sources)))


def _ntp(unix_s: float) -> int:
    """NTP's 64 bits, of which reports give back the middle ones."""
    return int((unix_s + _NTP_EPOCH_S) * (1 << 32))
