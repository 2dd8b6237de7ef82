"""One encoded frame as RTP payloads, made once for all viewers (RFC 6184, RFC 7587, RFC 7741)."""

import math
from dataclasses import dataclass

from aiortc.codecs.h264 import PACKET_MAX, H264Encoder

from server.gateway.h264 import split
from server.wire.messages import AudioPacket, VideoPacket

_FU_A, _FU_HEADER_BYTES = 28, 2
_VP8_DESCRIPTOR_BYTES = 4
_EXTENDED, _START, _PICTURE_ID, _15_BITS = 0x80, 0x10, 0x80, 0x8000


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpFrame:
    """The payloads of all packets of one frame; the timestamp ticks at the media clock, not yet wrapped."""

    timestamp: int
    keyframe: bool
    payloads: tuple[bytes, ...]


class _Packetizer(H264Encoder):
    @staticmethod
    def _packetize_fu_a(data: bytes) -> list[bytes]:
        """Fragments of one size, but the last: only these can be sent by one call."""
        indicator, kind = data[0] & 0xE0 | _FU_A, data[0] & 0x1F
        rest = memoryview(data)[1:]
        size = _even_size(len(rest), PACKET_MAX - _FU_HEADER_BYTES)
        return [
            bytes((indicator, kind | (at == 0) << 7 | (at + size >= len(rest)) << 6)) + rest[at : at + size]
            for at in range(0, len(rest), size)
        ]


def h264_frame(packet: VideoPacket) -> RtpFrame:
    """Annex B to payloads: single NAL units, STAP-A and FU-A."""
    # Its `pack` splits by itself and trips over a NAL unit of no bytes, which ours leaves out.
    payloads = _Packetizer._packetize(split(packet.payload))
    return RtpFrame(timestamp=packet.pts, keyframe=packet.keyframe, payloads=tuple(payloads))


def vp8_frame(packet: VideoPacket, picture_id: int) -> RtpFrame:
    """`picture_id`, of which 15 bits are sent, is one more than that of the frame before."""
    identified = bytes((_PICTURE_ID,)) + (_15_BITS | picture_id & 0x7FFF).to_bytes(2, "big")
    data = memoryview(packet.payload)
    size = _even_size(len(data), PACKET_MAX - _VP8_DESCRIPTOR_BYTES)
    payloads = tuple(
        bytes((_EXTENDED | (0 if at else _START),)) + identified + data[at : at + size]
        for at in range(0, len(data), size)
    )
    return RtpFrame(timestamp=packet.pts, keyframe=packet.keyframe, payloads=payloads)


def opus_frame(packet: AudioPacket) -> RtpFrame:
    return RtpFrame(timestamp=packet.pts, keyframe=True, payloads=(packet.payload,))


def _even_size(whole: int, most: int) -> int:
    """Of pieces that are as few and as alike as can be; 1 where there is nothing to be cut."""
    return max(1, math.ceil(whole / max(1, math.ceil(whole / most))))
