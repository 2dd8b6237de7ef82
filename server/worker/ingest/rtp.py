"""RTP in RTSP's connection on its way to libav: the end of each frame is said as its last packet comes.

libav gives a frame of H.264 (RFC 6184) or HEVC (RFC 7798) away when the next one begins, though the marker
tells its last packet. Frames of other codecs it gives as they are whole, and their timestamps tell which.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from av.packet import Packet

from server.worker.ingest.frame_ends import FrameEnd, FrameEnds, can_be_said

# So many frames have to end as expected before it is relied on.
_TRIAL_FRAMES = 12
_FIRST_DYNAMIC_TYPE = 96
_HEADER_BYTES = 12
_LONGEST_TEXT = 1 << 16
# What holds several units: STAP-A, and an aggregation packet.
_AGGREGATION = {"h264": b"\x78", "hevc": b"\x60\1"}
_START_CODE_BYTES = 4
# libav's timestamps drift against the packets' by its synchronisation, by less than half a frame's time.
_NEAR_TICKS = 750
_MOST_FRAMES = 256


class RtpStream:
    """`feed` takes what arrives and returns what libav is to read; `stamp` puts right what libav gives. One
    thread may do the one, and another the other."""

    def __init__(self) -> None:
        self._split = _Splitter()
        self._channel: int | None = None
        self._codec = ""
        self._ends: FrameEnds | None = None
        self._sure = True  # frames have ended where they seem to
        self._right = 0
        self._over = False  # the last packet had the marker
        self._time = 0  # its timestamp
        self._said_time: int | None = None  # of the frame whose end has just been said
        self._whole: dict[int, _WholeFrames] = {}  # by channel; libav has read some before it is followed

    def follow(self, track: int, codec: str) -> None:
        """The picture is the description's track of that number."""
        if can_be_said(codec):
            self._codec, self._ends = codec, FrameEnds(codec)
        self._channel = 2 * track

    def feed(self, data: bytes, arrival_ns: int) -> bytes:
        return b"".join(self._follow(part, arrival_ns) for part in self._split.feed(data))

    def stamp(self, packet: "Packet[Any]", *, video: bool) -> int | None:
        """When the last byte of a packet arrived; None where that isn't known."""
        if not video or self._channel is None:
            return None
        if self._ends is None:
            frames = self._whole.get(self._channel)
            return None if frames is None else frames.find(packet.pts)
        end = self._ends.find(packet)
        if end is None:
            return None
        # libav sees the frame begin in the packet that ended the one before, and gives it that one's time.
        if packet.pts is not None and end.pts is not None:
            packet.pts += end.pts
        return end.arrival_ns

    def _follow(self, part: bytes, arrival_ns: int) -> bytes:
        if part[:1] != b"$" or len(part) < 4 + _HEADER_BYTES:
            return part
        if self._ends is None:
            if part[1] % 2 == 0 and part[5] & 0x80:
                self._whole.setdefault(part[1], _WholeFrames()).add(int.from_bytes(part[8:12]), arrival_ns)
            return part
        if part[1] != self._channel or part[5] & 0x7F < _FIRST_DYNAMIC_TYPE:
            return part
        time = int.from_bytes(part[8:12])
        if self._over:
            self._sure = self._sure and time != self._time
            self._right += 1
        self._over, self._time = part[5] & 0x80 != 0, time
        if not self._over or not self._sure or self._right < _TRIAL_FRAMES:
            if self._over:
                self._said_time = None
            return part
        later = 0 if self._said_time is None else _signed(time - self._said_time)
        self._said_time = time
        units = self._ends.units(FrameEnd(arrival_ns=arrival_ns, pts=later))
        return part + self._packet(part, units)

    def _packet(self, last: bytes, units: tuple[bytes, bytes]) -> bytes:
        """One more with the number of the last, which libav takes; the server's go on behind it."""
        body = _AGGREGATION[self._codec]
        for unit in units:
            unit = unit[_START_CODE_BYTES:]
            body += len(unit).to_bytes(2) + unit
        head = bytes([0x80, last[5] & 0x7F]) + last[6:16]
        return last[:2] + (len(head) + len(body)).to_bytes(2) + head + body


def _signed(ticks: int) -> int:
    """A difference of timestamps, which have 32 bits."""
    return (ticks + (1 << 31)) % (1 << 32) - (1 << 31)


class _WholeFrames:
    """When frames came, until libav gives them, which it does in their order."""

    def __init__(self) -> None:
        self._arrivals = deque[tuple[int, int]](maxlen=_MOST_FRAMES)
        self._shift: int | None = None  # of libav's timestamps against the packets'

    def add(self, time: int, arrival_ns: int) -> None:
        self._arrivals.append((time, arrival_ns))

    def find(self, pts: int | None) -> int | None:
        """Arrival of the frame that libav gives with that timestamp, which AV1's first is without."""
        arrivals = list(self._arrivals)  # the other thread may add
        if not arrivals:
            return None
        near = 0  # the first, and where libav sets its clock
        if self._shift is not None and pts is not None:
            shifts = [abs(_signed(pts - time - self._shift)) for time, _ in arrivals]
            nearest = min(range(len(shifts)), key=shifts.__getitem__)
            near = nearest if shifts[nearest] <= _NEAR_TICKS else 0
        time, arrival_ns = arrivals[near]
        if pts is not None:
            self._shift = _signed(pts - time)
        for _ in range(near + 1):
            self._arrivals.popleft()
        return arrival_ns


class _Splitter:
    """Packets and answers, each whole."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lost = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while self._buffer:
            end = self._end()
            if end == 0 or len(self._buffer) < end:
                return
            part, self._buffer = self._buffer[:end], self._buffer[end:]
            yield part

    def _end(self) -> int:
        """Where the first part ends; 0 where that isn't known yet."""
        buffer = self._buffer
        if self._lost:
            return len(buffer)
        if buffer.startswith(b"$"):
            return 4 + int.from_bytes(buffer[2:4]) if len(buffer) >= 4 else 0
        head, blank, _ = buffer.partition(b"\r\n\r\n")
        if not blank:
            self._lost = len(buffer) > _LONGEST_TEXT
            return len(buffer) if self._lost else 0
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                length = int(value) if len(value) < 10 else _LONGEST_TEXT
        if len(head) + length >= _LONGEST_TEXT:
            self._lost = True
            return len(buffer)
        return len(head) + len(blank) + length
