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
from collections.abc import Callable, Iterable

from aiortc.rtcdtlstransport import RTCDtlsTransport
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
_HEADER = struct.Struct("!BBHII")


class RtpSender:
    """Owned by its peer, which runs `run`; aiortc's transport hands feedback to `_handle_rtcp_packet`."""

    def __init__(
        self,
        *,
        line: Line,
        sources: Sources,
        transport: RTCDtlsTransport,
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
        last = len(frame.payloads) - 1
        for index, payload in enumerate(frame.payloads):
            if index and index % BURST_PACKETS == 0:
                await asyncio.sleep(pause_s)
                if self._skipping:
                    return
            sent = Sent(sequence=self._sequence, timestamp=timestamp, marker=index == last, payload=payload)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._resends.sent(sent)
            await self._transport._send_rtp(self._original(sent))
            self._packets += 1
            self._octets += len(payload)

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
        for sent in self._resends.latest(size):
            await self._transport._send_rtp(self._again(sent))

    def _original(self, sent: Sent) -> bytes:
        payload_type = self._line.codec.payloadType
        return self._packet(
            payload_type, sent.marker, sent.sequence, sent.timestamp, self._ssrc, sent.payload
        )

    def _packet(
        self, payload_type: int | None, marker: bool, sequence: int, timestamp: int, ssrc: int, payload: bytes
    ) -> bytes:
        assert payload_type is not None
        extensions = self._extensions
        first = 0x90 if extensions else 0x80
        header = _HEADER.pack(first, marker << 7 | payload_type, sequence, timestamp, ssrc)
        if not extensions:
            return header + payload
        now_s, number, size = time.monotonic(), 0, len(header) + len(payload)
        if extensions.numbered:
            number = self._path.sent(size, now_s)
        else:
            self._path.count(size, now_s)
        return header + extensions.of(number, now_s, self._path.hold_s) + payload

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
        for sent in again:
            await self._transport._send_rtp(self._again(sent))

    def _again(self, sent: Sent) -> bytes:
        if self._line.rtx is None:
            return self._original(sent)
        # RFC 4588: a stream of its own, the lost number in front.
        payload = struct.pack("!H", sent.sequence) + sent.payload
        sequence, self._rtx_sequence = self._rtx_sequence, (self._rtx_sequence + 1) & 0xFFFF
        payload_type, ssrc = self._line.rtx.payloadType, self._sources.rtx_ssrc
        return self._packet(payload_type, sent.marker, sequence, sent.timestamp, ssrc, payload)

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
