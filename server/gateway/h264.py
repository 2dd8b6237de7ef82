"""An H.264 access unit's parts: Annex B in, what an MP4 track wants out (ISO/IEC 14496-10 and -15)."""

import struct
from dataclasses import dataclass

_PROFILES_WITH_CHROMA = (100, 110, 122, 144)
_CHROMA_420, _EIGHT_BIT = 0xFD, 0xF8


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSets:
    """What a decoder must know before the first picture."""

    sps: bytes
    pps: bytes

    @property
    def codec(self) -> str:
        """RFC 6381, as in `avc1.64001f`."""
        return f"avc1.{self.sps[1:4].hex()}"

    def avcc(self) -> bytes:
        """AVCDecoderConfigurationRecord, for 8-bit 4:2:0."""
        record = bytes([1, *self.sps[1:4], 0xFF, 0xE1]) + struct.pack("!H", len(self.sps)) + self.sps
        record += b"\x01" + struct.pack("!H", len(self.pps)) + self.pps
        if self.sps[1] in _PROFILES_WITH_CHROMA:
            record += bytes([_CHROMA_420, _EIGHT_BIT, _EIGHT_BIT, 0])
        return record


def split(annex_b: bytes) -> list[bytes]:
    """The NAL units without their start codes."""
    units = []
    start = annex_b.find(b"\0\0\1")
    while start >= 0:
        start += 3
        end = annex_b.find(b"\0\0\1", start)
        # A zero in front of a start code belongs to it: no NAL unit ends with one.
        units.append((annex_b[start:] if end < 0 else annex_b[start:end]).rstrip(b"\0"))
        start = end
    return [unit for unit in units if unit]


def to_sample(annex_b: bytes) -> tuple[bytes, ParameterSets | None]:
    """The access unit with lengths for start codes, and the parameter sets that stood in it, apart."""
    sample = bytearray()
    sps = pps = b""
    for unit in split(annex_b):
        match unit[0] & 0x1F:
            case 7:
                sps = unit
            case 8:
                pps = unit
            case 9:
                pass  # access unit delimiter
            case _:
                sample += struct.pack("!I", len(unit)) + unit
    return bytes(sample), ParameterSets(sps=sps, pps=pps) if len(sps) > 3 and pps else None
