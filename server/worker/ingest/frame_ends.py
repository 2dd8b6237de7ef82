"""Where a frame ends, said to libav in the stream itself: its parsers would wait for the next frame."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from av.packet import Packet

# What is remembered of frames that libav has not given yet.
_MOST_KNOWN = 256
_MAGIC = b"livesr-end:"
_NUMBER_BYTES = 8
# Filler data (ISO/IEC 14496-10, 7.3.2.7; 23008-2, 7.3.2.8) is the frame's own, and nothing to a decoder.
_FILLER = {"h264": b"\0\0\0\1\x0c", "hevc": b"\0\0\0\1\x4c\1"}
_DELIMITER = {"h264": b"\0\0\0\1\x09\xf0", "hevc": b"\0\0\0\1\x46\1\x50"}
_RBSP_END = b"\x80"
# What the last bytes of a packet may hold of it: some zeros may follow.
_TAIL_BYTES = len(_MAGIC) + _NUMBER_BYTES + 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameEnd:
    """`arrival_ns`: its last byte's. `pts` and `dts` in ticks of the stream that it came in."""

    arrival_ns: int
    pts: int | None = None
    dts: int | None = None


class FrameEnds:
    """Frames whose end has been said, until libav gives them."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._next = 0
        self._known: OrderedDict[int, FrameEnd] = OrderedDict()

    def units(self, end: FrameEnd) -> tuple[bytes, bytes]:
        """What goes behind the frame's last byte: two NAL units with their start codes."""
        number, self._next = self._next, (self._next + 1) % 10**_NUMBER_BYTES
        self._known[number] = end
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        mark = _MAGIC + str(number).zfill(_NUMBER_BYTES).encode()
        return _FILLER[self._codec] + mark + _RBSP_END, _DELIMITER[self._codec]

    def find(self, packet: "Packet[Any]") -> FrameEnd | None:
        """What is known of a frame that libav gives."""
        tail = bytes(memoryview(packet)[-_TAIL_BYTES:])
        at = tail.find(_MAGIC)
        if at < 0:
            return None
        number = tail[at + len(_MAGIC) : at + len(_MAGIC) + _NUMBER_BYTES]
        return self._known.pop(int(number), None) if number.isdigit() else None


def can_be_said(codec: str) -> bool:
    return codec in _FILLER


def begins_picture(codec: str, data: bytes) -> bool:
    """Whether an Annex B stream could be cut here: what follows is no later slice of a picture."""
    at = data.find(b"\0\0\1")
    if at not in (0, 1) or len(data) < at + 6:
        return False
    unit = data[at + 3 :]
    if codec == "h264":
        kind = unit[0] & 0x1F
        return kind in (6, 7, 8, 9) or (kind in (1, 5) and unit[1] & 0x80 != 0)
    kind = unit[0] >> 1 & 0x3F
    return 32 <= kind <= 35 or kind == 39 or (kind < 32 and unit[2] & 0x80 != 0)
