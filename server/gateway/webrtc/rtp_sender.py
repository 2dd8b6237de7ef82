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
from collections.abc import Iterable

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from server.gateway.fanout.fanout import Reader
from server.gateway.webrtc.negotiate import Line, Sources
from server.gateway.webrtc.resend import Resends, Sent, TooLossy
from server.gateway.webrtc.rtp import RtpFrame

BURST_PACKETS = 16
BURST_PAUSE_S = 0.001  # a key frame in one burst would overflow a receiver's socket buffer
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
        reader: Reader[RtpFrame],
    ) -> None:
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
        self._timestamp_origin = random.getrandbits(32)
        self._packets = 0
        self._octets = 0
        self._extension = _mid_extension(line)

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
        timestamp = (self._timestamp_origin + frame.timestamp) & 0xFFFFFFFF
        last = len(frame.payloads) - 1
        for index, payload in enumerate(frame.payloads):
            if index and index % BURST_PACKETS == 0:
                await asyncio.sleep(BURST_PAUSE_S)
                if self._skipping:
                    return
            sent = Sent(sequence=self._sequence, timestamp=timestamp, marker=index == last, payload=payload)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._resends.sent(sent)
            await self._transport._send_rtp(self._original(sent))
            self._packets += 1
            self._octets += len(payload)

    def _original(self, sent: Sent) -> bytes:
        payload_type = self._line.codec.payloadType
        return self._packet(
            payload_type, sent.marker, sent.sequence, sent.timestamp, self._ssrc, sent.payload
        )

    def _packet(
        self, payload_type: int | None, marker: bool, sequence: int, timestamp: int, ssrc: int, payload: bytes
    ) -> bytes:
        assert payload_type is not None
        first = 0x90 if self._extension else 0x80
        header = _HEADER.pack(first, marker << 7 | payload_type, sequence, timestamp, ssrc)
        return header + self._extension + payload

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        match packet:
            case RtcpRtpfbPacket(fmt=fmt, lost=lost) if fmt == RTCP_RTPFB_NACK:
                await self._on_lost(lost)
            case RtcpPsfbPacket(fmt=fmt) if fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
                self._reader.ask_keyframe()
            case RtcpRrPacket(reports=reports):
                for report in reports:
                    if report.ssrc == self._ssrc and report.lsr:
                        ticks = (_ntp(time.time()) >> 16) - report.lsr - report.dlsr + (1 << 31)
                        self._resends.measured((ticks % (1 << 32) - (1 << 31)) / (1 << 16))

    async def _on_lost(self, sequences: Iterable[int]) -> None:
        if self._skipping:
            return
        try:
            again = self._resends.lost(sequences, time.monotonic())
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


def _mid_extension(line: Line) -> bytes:
    """The one-byte header extension that names the line (RFC 8285), padded to 32 bits."""
    if line.mid_extension is None:
        return b""
    mid = line.mid.encode()
    element = bytes([line.mid_extension << 4 | len(mid) - 1]) + mid
    element += bytes(-len(element) % 4)
    return struct.pack("!HH", 0xBEDE, len(element) // 4) + element
