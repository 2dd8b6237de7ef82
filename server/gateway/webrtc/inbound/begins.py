"""Where a decoder can begin: what the first bytes of an RTP payload say, and no more of it is read."""

from typing import Literal, assert_never

from server.gateway.webrtc.inbound import vp9

VideoCodec = Literal["H264", "VP8", "VP9", "AV1"]

# ISO/IEC 14496-10, table 7-1, and RFC 6184, table 1.
_IDR, _SPS, _STAP_A, _FU_A = 5, 7, 24, 28
_BEGINS = (_IDR, _SPS)


def begins(codec: VideoCodec, payload: bytes) -> bool:
    """Whether a key frame begins in this packet. Damaged payloads are none."""
    match codec:
        case "H264":
            return _h264(payload)
        case "VP8":
            return _vp8(payload)
        case "VP9":
            return vp9.begins(payload)
        case "AV1":  # the RTP payload format's section 4.4: first packet of a coded video sequence
            return len(payload) > 1 and payload[0] & 0x08 != 0
        case _:
            assert_never(codec)


def _h264(payload: bytes) -> bool:
    """RFC 6184, sections 5.6 to 5.8."""
    kind = payload[0] & 0x1F if payload else 0
    if kind == _FU_A:
        return len(payload) > 2 and payload[1] & 0x80 != 0 and payload[1] & 0x1F in _BEGINS
    if kind != _STAP_A:
        return len(payload) > 1 and kind in _BEGINS
    at = 1
    while at + 2 < len(payload):
        if payload[at + 2] & 0x1F in _BEGINS:
            return True
        at += 2 + int.from_bytes(payload[at : at + 2])
    return False


def _vp8(payload: bytes) -> bool:
    """RFC 7741, section 4.2: behind a descriptor of one to six bytes a frame's header, whose first bit is 0
    for a key frame."""
    if not payload or payload[0] & 0x17 != 0x10:  # the first partition's start
        return False
    at = 1
    if payload[0] & 0x80:
        extended = payload[1] if len(payload) > 1 else 0
        at = 2
        if extended & 0x80:
            at += 2 if len(payload) > at and payload[at] & 0x80 else 1
        at += (extended & 0x40 != 0) + (extended & 0x30 != 0)
    return len(payload) > at and payload[at] & 1 == 0
