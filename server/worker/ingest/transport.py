"""MPEG-TS on its way to libav: the end of each frame is said as soon as it is there (ISO/IEC 13818-1).

A PES packet of video seldom says how long it is, so libav gives it away when the next one begins, and then
its parser waits for the one after. But whoever packs a PES packet has to fill up its last transport packet.
"""

from collections import OrderedDict
from typing import Any

from av.packet import Packet

from server.worker.ingest.frame_ends import FrameEnd, FrameEnds, begins_picture, can_be_said

PACKET_BYTES = 188
_SYNC = 0x47
_CLOCK_BITS = 33
# So many frames have to end as expected before it is relied on.
_TRIAL_FRAMES = 12
_MOST_KNOWN = 256
_MOST_LISTED = 4096  # of a segment that has been read


class TransportStream:
    """`feed` takes what arrives and returns what libav is to read; `stamp` puts right what libav gives."""

    def __init__(self) -> None:
        self._rest = b""
        self._synced = True
        self._pid: int | None = None
        self._codec = ""
        self._ends: FrameEnds | None = None  # None: of this codec the parser has to find them by itself
        self._sure = True  # frames have ended where they seem to
        self._right = 0  # frames that ended as expected, one after the other
        self._begun = False  # the first byte of a frame has been seen
        self._said = False  # and where it ends
        self._filled = False  # its last transport packet so far had to be filled up
        self._counter = 0
        self._pts: int | None = None
        self._dts: int | None = None
        self._arrival_ns = 0  # of the frame's last byte so far
        self._arrivals: OrderedDict[int, int] = OrderedDict()  # by PTS
        self._reference = 0  # a timestamp of libav's

    def follow(self, pid: int, codec: str) -> None:
        """The picture is in these packets."""
        self._pid, self._codec = pid, codec
        self._ends = FrameEnds(codec) if can_be_said(codec) else None

    def feed(self, data: bytes, arrival_ns: int) -> bytes:
        if self._pid is None or not self._synced:
            return data
        data = self._rest + data
        whole = len(data) - len(data) % PACKET_BYTES
        if any(data[at] != _SYNC for at in range(0, whole, PACKET_BYTES)):
            # Packets of another size, or damaged ones: libav may yet find its way.
            self._synced, self._rest = False, b""
            return data
        self._rest = data[whole:]
        out = []
        for at in range(0, whole, PACKET_BYTES):
            packet = data[at : at + PACKET_BYTES]
            if (packet[1] & 0x1F) << 8 | packet[2] == self._pid and packet[3] & 0x10:
                out.append(self._follow(packet, arrival_ns))
            else:
                out.append(packet)
        return b"".join(out)

    def stamp(self, packet: "Packet[Any]", *, video: bool) -> int | None:
        """When the last byte of a packet arrived; None where that isn't known."""
        end = self._ends.find(packet) if video and self._ends is not None else None
        if end is not None:
            packet.pts = self._unwrapped(end.pts)
            packet.dts = self._unwrapped(end.dts)
        elif packet.pts is not None:
            self._reference = packet.pts
        elif video:  # libav sees it begin in the packet before, which ended another
            packet.pts = self._unwrapped(self._pts)
        if not video:
            return None
        if end is not None:
            return end.arrival_ns
        return None if packet.pts is None else self._arrivals.get(packet.pts % (1 << _CLOCK_BITS))

    def _unwrapped(self, ticks: int | None) -> int | None:
        """As libav counts: it goes on where 33 bits don't."""
        if ticks is None:
            return None
        half = 1 << (_CLOCK_BITS - 1)
        return self._reference + (ticks - self._reference + half) % (2 * half) - half

    def _follow(self, packet: bytes, arrival_ns: int) -> bytes:
        """A packet of the picture's."""
        body, filled = _body(packet)
        before = b""
        if packet[1] & 0x40:
            if self._begun:
                if not self._said:
                    before = self._say()  # it filled its last packet by itself, or is still on trial
                self._right += 1 if self._filled else 0
            packet = self._begin(packet, body)
        elif self._filled and packet[3] & 0x0F == (self._counter + 1) & 0x0F:  # none is lost between them
            self._sure = False
        self._arrival_ns, self._filled = arrival_ns, filled
        self._counter = packet[3] & 0x0F
        if self._begun and self._pts is not None:
            self._arrivals[self._pts] = arrival_ns
        if filled and self._begun and not self._said:
            return before + packet + self._say()
        return before + packet

    def _begin(self, packet: bytes, body: int) -> bytes:
        """A PES packet's first. Returns it without the length, which would be wrong."""
        pes = packet[body:]
        self._begun = self._said = False
        if len(pes) < 9 or pes[:3] != b"\0\0\1":
            return packet
        self._begun = True
        self._pts = _ticks(pes, 9) if pes[7] & 0x80 else None
        self._dts = _ticks(pes, 14) if pes[7] & 0x40 == 0x40 else self._pts
        while len(self._arrivals) >= _MOST_KNOWN:
            self._arrivals.popitem(last=False)
        if self._ends is not None and not begins_picture(self._codec, pes[9 + pes[8] :]):
            self._sure = False
            return packet
        return packet[: body + 4] + b"\0\0" + packet[body + 6 :]

    def _say(self) -> bytes:
        """What tells libav that the frame is over; nothing where that isn't sure."""
        if not self._sure or self._right < _TRIAL_FRAMES:
            return b""
        self._said = True
        # What begins a PES packet ends the one before; this one has no more than its beginning.
        over = self._packet(b"\0", first=True)
        if self._ends is None:
            return over
        end = FrameEnd(arrival_ns=self._arrival_ns, pts=self._pts, dts=self._dts)
        return self._packet(b"".join(self._ends.units(end)), first=False) + over

    def _packet(self, payload: bytes, *, first: bool) -> bytes:
        assert self._pid is not None
        filling = PACKET_BYTES - 4 - 2 - len(payload)
        # Marked as a discontinuity, since its number is one that has been.
        head = bytes([_SYNC, first << 6 | self._pid >> 8, self._pid & 0xFF, 0x30 | self._counter])
        return head + bytes([filling + 1, 0x80]) + b"\xff" * filling + payload


class Arrivals:
    """When the pictures of transport streams arrived, by PTS, whatever packets they are in."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, int] = OrderedDict()

    def find(self, pts: int) -> int | None:
        return self._known.get(pts % (1 << _CLOCK_BITS))

    def add(self, pts: int, arrival_ns: int) -> None:
        self._known[pts] = arrival_ns
        if len(self._known) > _MOST_LISTED:
            self._known.popitem(last=False)


class Segment:
    """Sees in one body where each picture begins; what is no transport stream tells nothing."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._rest = b""
        self._synced = True

    def feed(self, data: bytes, arrival_ns: int) -> None:
        if not self._synced:
            return
        data = self._rest + data
        whole = len(data) - len(data) % PACKET_BYTES
        self._rest = data[whole:]
        for at in range(0, whole, PACKET_BYTES):
            if data[at] != _SYNC:
                self._synced, self._rest = False, b""
                return
            if data[at + 1] & 0x40 and data[at + 3] & 0x10:
                packet = data[at : at + PACKET_BYTES]
                pes = packet[_body(packet)[0] :]
                if pes[:3] == b"\0\0\1" and len(pes) > 9 and pes[3] >> 4 == 0xE and pes[7] & 0x80:
                    pts = _ticks(pes, 9)
                    if pts is not None:
                        self._arrivals.add(pts, arrival_ns)


def _body(packet: bytes) -> tuple[int, bool]:
    """Where a packet's payload begins, and whether it was filled up."""
    if not packet[3] & 0x20:
        return 4, False
    length = packet[4]
    if not length:
        return 5, True
    flags = packet[5]
    used = 1 + (6 if flags & 0x10 else 0) + (6 if flags & 0x08 else 0) + (1 if flags & 0x04 else 0)
    # Private data and extensions aren't filling, but who sends them at all may send them anywhere.
    return 5 + length, length > used and not flags & 0x03


def _ticks(pes: bytes, at: int) -> int | None:
    """A PTS or DTS of 33 bits in five bytes."""
    if len(pes) < at + 5:
        return None
    p = pes[at : at + 5]
    return (p[0] >> 1 & 7) << 30 | p[1] << 22 | p[2] >> 1 << 15 | p[3] << 7 | p[4] >> 1
