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
from collections.abc import Callable

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from server.gateway.fanout.fanout import Reader
from server.gateway.webrtc.negotiate import Line, Sources
from server.gateway.webrtc.rtp import RtpFrame

HISTORY_PACKETS = 1024  # two large key frames; the payloads are shared by all viewers
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
        on_need_keyframe: Callable[[], None],
    ) -> None:
        self._line = line
        self._ssrc = sources.ssrc
        self._sources = sources
        self._transport = transport
        self._reader = reader
        self._on_need_keyframe = on_need_keyframe
        self._history: list[tuple[int, int, bool, bytes] | None] = [None] * HISTORY_PACKETS
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

    async def _send(self, frame: RtpFrame) -> None:
        timestamp = (self._timestamp_origin + frame.timestamp) & 0xFFFFFFFF
        last = len(frame.payloads) - 1
        for index, payload in enumerate(frame.payloads):
            if index and index % BURST_PACKETS == 0:
                await asyncio.sleep(BURST_PAUSE_S)
            sequence, marker = self._sequence, index == last
            self._sequence = (sequence + 1) & 0xFFFF
            self._history[sequence % HISTORY_PACKETS] = (sequence, timestamp, marker, payload)
            packet = self._packet(
                self._line.codec.payloadType, marker, sequence, timestamp, self._ssrc, payload
            )
            await self._transport._send_rtp(packet)
            self._packets += 1
            self._octets += len(payload)

    def _packet(
        self, payload_type: int | None, marker: bool, sequence: int, timestamp: int, ssrc: int, payload: bytes
    ) -> bytes:
        assert payload_type is not None
        first = 0x90 if self._extension else 0x80
        header = _HEADER.pack(first, marker << 7 | payload_type, sequence, timestamp, ssrc)
        return header + self._extension + payload

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            for sequence in packet.lost:
                await self._retransmit(sequence)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_PLI:
            self._on_need_keyframe()

    async def _retransmit(self, sequence: int) -> None:
        sent = self._history[sequence % HISTORY_PACKETS]
        if sent is None or sent[0] != sequence:
            return
        _, timestamp, marker, payload = sent
        if self._line.rtx is None:
            packet = self._packet(
                self._line.codec.payloadType, marker, sequence, timestamp, self._ssrc, payload
            )
        else:  # RFC 4588: a stream of its own, the lost number in front
            payload = struct.pack("!H", sequence) + payload
            rtx_sequence, self._rtx_sequence = self._rtx_sequence, (self._rtx_sequence + 1) & 0xFFFF
            ssrc = self._sources.rtx_ssrc
            packet = self._packet(self._line.rtx.payloadType, marker, rtx_sequence, timestamp, ssrc, payload)
        await self._transport._send_rtp(packet)

    async def _report(self) -> None:
        """Sender reports that put this line's clock beside the wall clock, for lip sync (RFC 3550, 6.4.1)."""
        while True:
            await asyncio.sleep(0.5 + random.random())
            # Every line's timestamps are of CLOCK_MONOTONIC, so "now" is the same moment on all of them.
            now_s = time.time() + _NTP_EPOCH_S
            timestamp = self._timestamp_origin + int(time.monotonic() * self._line.clock_hz)
            report = RtcpSrPacket(
                ssrc=self._ssrc,
                sender_info=RtcpSenderInfo(
                    ntp_timestamp=int(now_s * (1 << 32)),
                    rtp_timestamp=timestamp & 0xFFFFFFFF,
                    packet_count=self._packets & 0xFFFFFFFF,
                    octet_count=self._octets & 0xFFFFFFFF,
                ),
            )
            name = RtcpSourceInfo(ssrc=self._ssrc, items=[(_CNAME, self._sources.cname.encode())])
            with contextlib.suppress(ConnectionError):  # the sending of frames finds out as well
                await self._transport._send_rtp(bytes(report) + bytes(RtcpSdesPacket(chunks=[name])))


def _mid_extension(line: Line) -> bytes:
    """The one-byte header extension that names the line (RFC 8285), padded to 32 bits."""
    if line.mid_extension is None:
        return b""
    mid = line.mid.encode()
    element = bytes([line.mid_extension << 4 | len(mid) - 1]) + mid
    element += bytes(-len(element) % 4)
    return struct.pack("!HH", 0xBEDE, len(element) // 4) + element
