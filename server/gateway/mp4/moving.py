"""Fragments moved in time, so that those of several files make one."""

import struct

from server.gateway.mp4.boxes import VIDEO_TRACK
from server.gateway.mp4.reading import boxes, child
from server.wire.messages import VIDEO_CLOCK_HZ


class Mover:
    """Of one init segment's fragments."""

    def __init__(self, init: bytes) -> None:
        """Raises ValueError where it is none that `boxes` wrote."""
        self._init = init
        self._clock_hz = {VIDEO_TRACK: VIDEO_CLOCK_HZ}
        moov = child(init, 0, len(init), b"moov")
        for kind, start, end in boxes(init, *moov):
            if kind == b"trak":
                (track,) = struct.unpack_from("!12xI", init, child(init, start, end, b"tkhd")[0])
                mdia = child(init, start, end, b"mdia")
                (clock_hz,) = struct.unpack_from("!12xI", init, child(init, *mdia, b"mdhd")[0])
                self._clock_hz[track] = clock_hz
        self._mvex = child(init, *moov, b"mvex")[0]
        self._moov = moov[0]

    def init(self, duration_s: float) -> bytes:
        """The init segment that says how long its fragments last together."""
        mehd = struct.pack("!I4sIQ", 20, b"mehd", 1 << 24, round(duration_s * 1000))
        init = bytearray(self._init)
        for start in (self._moov, self._mvex):
            (size,) = struct.unpack_from("!I", init, start - 8)
            struct.pack_into("!I", init, start - 8, size + len(mehd))
        return bytes(init[: self._mvex] + mehd + init[self._mvex :])

    def move(self, moof: bytes, ticks: int, number: int) -> tuple[bytes, int]:
        """The fragment's header, its times later by so many ticks of the picture's clock; and when the last
        of its tracks then ends."""
        moved, end_ticks = bytearray(moof), 0
        for kind, start, end in boxes(moof, 8, len(moof)):
            if kind == b"mfhd":
                struct.pack_into("!I", moved, start + 4, number)
            if kind != b"traf":
                continue
            parts = {kind: at for kind, at, _ in boxes(moof, start, end)}
            (track,) = struct.unpack_from("!4xI", moof, parts[b"tfhd"])
            clock_hz = self._clock_hz.get(track, VIDEO_CLOCK_HZ)
            (time,) = struct.unpack_from("!4xQ", moof, parts[b"tfdt"])
            # Sound that came late may belong before the first picture there is.
            time = max(0, time + ticks * clock_hz // VIDEO_CLOCK_HZ)
            struct.pack_into("!Q", moved, parts[b"tfdt"] + 4, time)
            (count,) = struct.unpack_from("!4xI", moof, parts[b"trun"])
            lasts = sum(struct.unpack_from(f"!{3 * count}I", moof, parts[b"trun"] + 12)[::3])
            end_ticks = max(end_ticks, (time + lasts) * VIDEO_CLOCK_HZ // clock_hz)
        return bytes(moved), end_ticks
