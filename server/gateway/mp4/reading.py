"""Fragmented MP4 as `boxes` writes it, read again: where its fragments lie and when they are."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from server.gateway.mp4.boxes import VIDEO_TRACK
from server.gateway.mp4.tracks import aac_codec

# Of a `moof`: an hour in one fragment would have less.
_MOST_HEADER_BYTES = 16 << 20
# Of sample entries, before the boxes in them; and of `esds` as `boxes` writes it, before the length of the
# AudioSpecificConfig: version and flags, then descriptors 3, 4 and 5, whose lengths are a byte each.
_VISUAL_BYTES, _SOUND_BYTES = 78, 28
_SPECIFIC_CONFIG = 4 + (2 + 3) + (2 + 13) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A fragment in a file; times tick at the picture's clock."""

    offset: int
    header_bytes: int  # of `moof`; `mdat` follows
    size: int  # of both
    starts: int
    ends: int
    frames: int
    independent: bool  # begins with a key frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What an init segment says of the tracks."""

    codecs: tuple[str, ...]  # RFC 6381, the picture's first
    width: int
    height: int


def read_init(file: BinaryIO) -> bytes:
    """What comes before the first fragment; b"" where that isn't whole, or isn't as `boxes` writes it."""
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
    try:
        form_of(init)
    except ValueError:
        return b""
    return init


def form_of(init: bytes) -> Form:
    """Raises ValueError where it is none that `boxes` wrote."""
    codecs, width, height = [], 0, 0
    try:
        for kind, *trak in boxes(init, *child(init, 0, len(init), b"moov")):
            if kind != b"trak":
                continue
            at = trak[0], trak[1]
            for name in (b"mdia", b"minf", b"stbl", b"stsd"):
                at = child(init, *at, name)
            for entry, start, end in boxes(init, at[0] + 8, at[1]):
                if entry == b"avc1":
                    width, height = struct.unpack_from("!24xHH", init, start)
                    (avcc, _) = child(init, start + _VISUAL_BYTES, end, b"avcC")
                    codecs.append(f"avc1.{init[avcc + 1 : avcc + 4].hex()}")
                elif entry == b"mp4a":
                    (esds, _) = child(init, start + _SOUND_BYTES, end, b"esds")
                    config = init[esds + _SPECIFIC_CONFIG :]
                    codecs.append(aac_codec(config[1 : 1 + config[0]]))
    except (struct.error, IndexError) as exc:
        raise ValueError(f"an init segment of {len(init)} bytes is cut short") from exc
    if not width:
        raise ValueError("an init segment without a picture")
    return Form(codecs=tuple(codecs), width=width, height=height)


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
            starts, ends, frames, independent = _times(moof)
        except (struct.error, ValueError):
            return
        yield Placed(
            offset=offset,
            header_bytes=size,
            size=size + data_bytes,
            starts=starts,
            ends=ends,
            frames=frames,
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


def child(data: bytes, start: int, end: int, wanted: bytes) -> tuple[int, int]:
    """Beginning and end of the content of the first box of that kind. Raises ValueError."""
    for kind, begins, ends in boxes(data, start, end):
        if kind == wanted:
            return begins, ends
    raise ValueError(f"there is no {wanted!r}")


def _times(moof: bytes) -> tuple[int, int, int, bool]:
    """Of the picture's track: start, end and pictures, and whether it begins with a key frame."""
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
        return starts, starts + sum(samples[::3]), count, is_key
    raise ValueError("a fragment without a picture")
