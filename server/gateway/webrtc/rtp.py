"""One encoded frame as RTP payloads, made once for all viewers (RFC 6184, RFC 7587)."""

from dataclasses import dataclass
from fractions import Fraction

import av
from aiortc.codecs.h264 import H264Encoder

from server.wire.messages import VIDEO_CLOCK_HZ, AudioPacket, VideoPacket

_VIDEO_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpFrame:
    """The payloads of all packets of one frame; the timestamp ticks at the media clock, not yet wrapped."""

    timestamp: int
    keyframe: bool
    payloads: tuple[bytes, ...]


class H264Packetizer:
    """Annex B to payloads: single NAL units, STAP-A and FU-A."""

    def __init__(self) -> None:
        self._packer = H264Encoder()  # encodes nothing until it is asked to

    def frame(self, packet: VideoPacket) -> RtpFrame:
        access_unit = av.Packet(packet.payload)
        access_unit.pts = packet.pts
        access_unit.time_base = _VIDEO_TIME_BASE
        payloads, timestamp = self._packer.pack(access_unit)
        return RtpFrame(timestamp=timestamp, keyframe=packet.keyframe, payloads=tuple(payloads))


def opus_frame(packet: AudioPacket) -> RtpFrame:
    return RtpFrame(timestamp=packet.pts, keyframe=True, payloads=(packet.payload,))
