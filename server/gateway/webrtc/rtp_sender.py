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
from collections.abc import Callable, Iterable, Iterator, Sequence

from aiortc.rtcrtpparameters import RTCRtpSendParameters
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

from server.gateway.fanout.fanout import Reader, SwitchingReader
from server.gateway.webrtc.dtls import ViewerTransport
from server.gateway.webrtc.extensions import HeaderExtensions
from server.gateway.webrtc.negotiate import Line, Sources
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


class RtpSender:
    """Owned by its peer, which runs `run`; aiortc's transport hands feedback to `_handle_rtcp_packet`."""

    def __init__(
        self,
        *,
        line: Line,
        sources: Sources,
        transport: ViewerTransport,
        reader: Reader[RtpFrame] | SwitchingReader[RtpFrame],
        path: Path,
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
        self._last: tuple[int, int] | None = None  # the timestamps of the last frame, its own and as sent

    async def run(self) -> None:
        """Sends until the reader or the connection ends; raises ReaderClosed or ConnectionError."""
        parameters = RTCRtpSendParameters(muxId=self._line.mid)
        self._transport._register_rtp_sender(self, parameters)
        reports = asyncio.create_task(self._report())
        try:
            while True:
                await self._send(await self._reader.next())
        finally:
            reports.cancel()
            self._transport._unregister_rtp_sender(self)
            self._reader.close()
            await self._say_goodbye()

    async def _send(self, frame: RtpFrame) -> None:
        if self._skipping:
            self._skipping = False
            self._resends.start_over(sum(map(len, frame.payloads)))
        timestamp, pause_s = self._timing(frame)
        for start in range(0, len(frame.payloads), BURST_PACKETS):
            if start:
                await asyncio.sleep(pause_s)
                if self._skipping:
                    return
            payloads = frame.payloads[start : start + BURST_PACKETS]
            self._send_burst(payloads, timestamp, ends=start + BURST_PACKETS >= len(frame.payloads))

    def _send_burst(self, payloads: Sequence[bytes], timestamp: int, *, ends: bool) -> None:
        """`ends`: the frame."""
        payload_type, last = self._line.codec.payloadType, len(payloads) - 1 if ends else -1
        assert payload_type is not None
        packets = []
        for index, (payload, extension) in enumerate(
            zip(payloads, self._header_extensions(payloads), strict=True)
        ):
            marker, sequence = index == last, self._sequence
            self._sequence = (sequence + 1) & 0xFFFF
            self._resends.sent(sequence, timestamp, marker, payload)
            header = _HEADER.pack(self._first, marker << 7 | payload_type, sequence, timestamp, self._ssrc)
            packets.append(header + extension + payload)
            self._octets += len(payload)
        self._packets += len(packets)
        self._transport.send(packets)

    def _timing(self, frame: RtpFrame) -> tuple[int, float]:
        """The timestamp to send, and the pause between bursts."""
        timestamp, interval_s = frame.timestamp, _LONGEST_FRAME_S
        if self._last is not None:
            before, sent = self._last
            interval_s = min(max(frame.timestamp - before, 0) / self._line.clock_hz, _LONGEST_FRAME_S)
            # Of two renditions the next may begin with the picture that the other one ended with.
            timestamp = max(timestamp, sent + 1)
        self._last = frame.timestamp, timestamp
        bursts = -(-len(frame.payloads) // BURST_PACKETS)
        return (self._timestamp_origin + timestamp) & 0xFFFFFFFF, _SPREAD * interval_s / bursts

    async def pad(self, size: int) -> None:
        """Sends so many bytes of what was sent last once more, to see whether the network carries them."""
        self._transport.send(self._again(self._resends.latest(size)))

    def _header_extensions(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Of packets that are sent now, which the path takes note of."""
        now_s, sizes = time.monotonic(), [_HEADER.size + len(payload) for payload in payloads]
        if not self._extensions.numbered:
            self._path.count(sum(sizes), now_s)
            return (
                self._extensions.of(sizes, now_s, self._path.hold_s)
                if self._extensions
                else [b""] * len(sizes)
            )
        return self._extensions.of(self._path.sent(sizes, now_s), now_s, self._path.hold_s)

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        match packet:
            case RtcpRtpfbPacket(fmt=fmt, lost=lost) if fmt == RTCP_RTPFB_NACK:
                await self._on_lost(lost)
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

    async def _on_lost(self, sequences: Iterable[int]) -> None:
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

    def _again(self, packets: Sequence[Sent]) -> Iterator[bytes]:
        codec, ssrc = self._line.codec, self._ssrc
        if self._line.rtx is not None:  # RFC 4588: a stream of its own, the lost number in front
            codec, ssrc = self._line.rtx, self._sources.rtx_ssrc
        assert codec.payloadType is not None
        extensions = self._header_extensions([sent.payload for sent in packets])
        for sent, extension in zip(packets, extensions, strict=True):
            sequence, front = sent.sequence, b""
            if self._line.rtx is not None:
                sequence, front = self._rtx_sequence, struct.pack("!H", sent.sequence)
                self._rtx_sequence = (sequence + 1) & 0xFFFF
            marker = sent.marker << 7 | codec.payloadType
            header = _HEADER.pack(self._first, marker, sequence, sent.timestamp, ssrc)
            yield header + extension + front + sent.payload

    async def _report(self) -> None:
        """Sender reports that put this line's clock beside the wall clock, for lip sync (RFC 3550, 6.4.1)."""
        while True:
            await asyncio.sleep(0.5 + random.random())
            with contextlib.suppress(ConnectionError):  # the sending of frames finds out as well
                await self._transport._send_rtp(self._report_now())

    def _report_now(self) -> bytes:
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
        name = RtcpSourceInfo(ssrc=self._ssrc, items=[(_CNAME, self._sources.cname.encode())])
        return bytes(report) + bytes(RtcpSdesPacket(chunks=[name]))

    async def _say_goodbye(self) -> None:
        """Tells the viewer that the line is over, so that it waits for nothing more (RFC 3550, 6.6)."""
        sources = [self._ssrc] if self._line.rtx is None else [self._ssrc, self._sources.rtx_ssrc]
        with contextlib.suppress(ConnectionError):
            await self._transport._send_rtp(self._report_now() + bytes(RtcpByePacket(sources=sources)))


def _ntp(unix_s: float) -> int:
    """NTP's 64 bits, of which reports give back the middle ones."""
    return int((unix_s + _NTP_EPOCH_S) * (1 << 32))
