"""One encoded frame as RTP payloads, made once for all viewers (RFC 6184, RFC 7587)."""

from dataclasses import dataclass

from aiortc.codecs.h264 import H264Encoder

from server.gateway.h264 import split
from server.wire.messages import AudioPacket, VideoPacket


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpFrame:
    """The payloads of all packets of one frame; the timestamp ticks at the media clock, not yet wrapped."""

    timestamp: int
    keyframe: bool
    payloads: tuple[bytes, ...]


def h264_frame(packet: VideoPacket) -> RtpFrame:
    """Annex B to payloads: single NAL units, STAP-A and FU-A."""
    # Its `pack` splits by itself and trips over a NAL unit of no bytes, which ours leaves out.
    payloads = H264Encoder._packetize(split(packet.payload))
    return RtpFrame(timestamp=packet.pts, keyframe=packet.keyframe, payloads=tuple(payloads))


def opus_frame(packet: AudioPacket) -> RtpFrame:
    return RtpFrame(timestamp=packet.pts, keyframe=True, payloads=(packet.payload,))
