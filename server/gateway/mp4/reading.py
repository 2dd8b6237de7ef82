"""Fragmented MP4 as `boxes` writes it, read again: where its fragments lie and when they are."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from server.gateway.mp4.boxes import VIDEO_TRACK

# Of a `moof`: an hour in one fragment would have less.
_MOST_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A fragment in a file; times tick at the picture's clock."""

    offset: int
    header_bytes: int  # of `moof`; `mdat` follows
    size: int  # of both
    starts: int
    ends: int
    independent: bool  # begins with a key frame


def read_init(file: BinaryIO) -> bytes:
    """What comes before the first fragment; b"" where that isn't whole."""
    file.seek(0)
    init = b""
    for kind in (b"ftyp", b"moov"):
        header = file.read(8)
        if len(header) < 8 or header[4:] != kind:
            return b""
        size = int.from_bytes(header[:4], "big") - 8
        body = file.read(size) if 0 <= size <= _MOST_HEADER_BYTES else b""
        if len(body) != size:
            return b""
        init += header + body
    return init


def fragments(file: BinaryIO, offset: int) -> Iterator[Placed]:
    """Those from `offset` on that are whole, as after a crash the last one may not be."""
    end = file.seek(0, 2)
    while offset + 16 <= end:
        file.seek(offset)
        size, kind = struct.unpack("!I4s", file.read(8))
        if kind != b"moof" or not 8 < size <= _MOST_HEADER_BYTES or offset + size + 8 > end:
            return
        moof = file.read(size - 8)
        data_bytes, kind = struct.unpack("!I4s", file.read(8))
        if kind != b"mdat" or data_bytes < 8 or offset + size + data_bytes > end:
            return
        try:
            starts, ends, independent = _times(moof)
        except (struct.error, ValueError):
            return
        yield Placed(
            offset=offset,
            header_bytes=size,
            size=size + data_bytes,
            starts=starts,
            ends=ends,
            independent=independent,
        )
        offset += size + data_bytes


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of the content of each box. Raises ValueError where they don't fit."""
    while start < end:
        size, kind = struct.unpack_from("!I4s", data, start)
        if size < 8 or start + size > end:
            raise ValueError(f"a box {kind!r} of {size} bytes in {end - start}")
        yield kind, start + 8, start + size
        start += size


def _times(moof: bytes) -> tuple[int, int, bool]:
    """Of the picture's track: when it starts and ends, and whether it begins with a key frame."""
    for kind, start, end in boxes(moof, 0, len(moof)):
        if kind != b"traf":
            continue
        parts = {kind: at for kind, at, _ in boxes(moof, start, end)}
        if struct.unpack_from("!4xI", moof, parts.get(b"tfhd", end))[0] != VIDEO_TRACK:
            continue
        (starts,) = struct.unpack_from("!4xQ", moof, parts.get(b"tfdt", end))
        (count,) = struct.unpack_from("!4xI", moof, parts.get(b"trun", end))
        samples = struct.unpack_from(f"!{3 * count}I", moof, parts[b"trun"] + 12)
        if not samples:
            break
        is_key = not samples[2] & 0x00010000  # sample_is_non_sync_sample
        return starts, starts + sum(samples[::3]), is_key
    raise ValueError("a fragment without a picture")
