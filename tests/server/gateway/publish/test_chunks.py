"""RTMP's chunk stream, by bytes that are written by hand (Adobe's specification, section 5.3)."""

import struct

import pytest

from server.gateway.publish import Malformed
from server.gateway.publish.rtmp.chunks import ChunkReader, RtmpMessage, write_message
from tests.server.gateway.publish.handmade import chunks

LARGEST = 100_000


def read(data: bytes, piece: int = 0) -> list[tuple[int, int, bytes]]:
    """Type, time and payload of each message."""
    reader, found = ChunkReader(LARGEST), list[RtmpMessage]()
    piece = piece or len(data)
    for start in range(0, len(data), piece):
        found += reader.feed(data[start : start + piece])
    return [(m.type, m.time_ms, m.payload) for m in found]


PICTURE, SOUND = bytes(range(256)) * 2, b"s" * 130


@pytest.mark.parametrize("piece", [0, 1, 7, 129, 1000])
def test_a_message_is_put_together_whatever_pieces_it_comes_in(piece):
    wire = chunks(9, PICTURE, time_ms=40) + chunks(8, SOUND, at=5, time_ms=41) + chunks(9, b"", time_ms=80)
    assert read(wire, piece) == [(9, 40, PICTURE), (8, 41, SOUND), (9, 80, b"")]


@pytest.mark.parametrize("piece", [0, 3])
def test_messages_of_two_chunk_streams_may_be_interleaved(piece):
    picture, sound = chunks(9, PICTURE, at=6, time_ms=5), chunks(8, SOUND, at=4, time_ms=6)
    first, rest = picture[: 12 + 128], picture[12 + 128 :]
    assert read(first + sound + rest, piece) == [(8, 6, SOUND), (9, 5, PICTURE)]


def test_later_headers_say_only_what_is_new():
    first = chunks(8, b"abcd", at=4, time_ms=1000)
    same_stream = bytes([0x44]) + b"\0\0\x0a" + b"\0\0\2" + b"\x08" + b"ef"  # 10 ms later, another length
    same_length = bytes([0x84]) + b"\0\0\x14" + b"gh"  # 20 ms later
    as_before = bytes([0xC4]) + b"ij"  # again
    assert read(first + same_stream + same_length + as_before) == [
        (8, 1000, b"abcd"),
        (8, 1010, b"ef"),
        (8, 1030, b"gh"),
        (8, 1050, b"ij"),
    ]


@pytest.mark.parametrize("piece", [0, 1])
def test_long_times_are_in_each_chunk_and_wrap(piece):
    late = 0xFFFF_FFF0
    wire = chunks(9, PICTURE, time_ms=late) + bytes([0x84]) + b"\0\0\x20" + PICTURE[:128]
    wire += b"".join(bytes([0xC4]) + PICTURE[start : start + 128] for start in (128, 256, 384))
    assert read(wire, piece) == [(9, late, PICTURE), (9, 0x10, PICTURE)]


@pytest.mark.parametrize("head", [b"\x02", b"\x3f", b"\0\0", b"\0\xff", b"\1\0\1"])
def test_chunk_streams_have_numbers_of_one_to_three_bytes(head):
    body = b"\0\0\1" + b"\0\0\3" + b"\x09" + b"\1\0\0\0" + b"abc"
    again = bytes([head[0] | 0xC0]) + head[1:] + b"def"
    assert read(head + body + again, 1) == [(9, 1, b"abc"), (9, 2, b"def")]


def test_the_size_of_chunks_changes_at_once():
    wire = chunks(1, struct.pack("!I", 4096), at=2, stream=0) + chunks(9, PICTURE, size=4096)
    assert read(wire) == [(9, 0, PICTURE)]


def test_an_aborted_message_is_forgotten():
    half = chunks(9, PICTURE, at=6)[: 12 + 128]
    wire = half + chunks(2, struct.pack("!I", 6), at=2, stream=0) + chunks(9, b"whole", at=6)
    assert read(wire) == [(9, 0, b"whole")]


@pytest.mark.parametrize(
    "wire",
    [
        b"\xc4abc",
        chunks(9, b"x" * 200)[:140] + chunks(9, b"y"),
        chunks(9, bytes(LARGEST + 1)),
        chunks(20, bytes(70_000)),
        chunks(1, struct.pack("!I", 0), at=2),
        chunks(1, b"\0", at=2),
        b"".join(bytes([0, n]) + bytes(11) for n in range(70)),
    ],
    ids=["no beginning", "within another", "too long", "command too long", "no size", "cut", "many streams"],
)
def test_what_is_no_chunk_stream_is_refused(wire):
    with pytest.raises(Malformed):
        read(wire)


def test_messages_that_never_end_take_bounded_memory():
    """Each is left when half of it has come."""
    half = LARGEST // 2
    reader = ChunkReader(LARGEST)
    list(reader.feed(chunks(1, struct.pack("!I", half), at=2, stream=0)))
    sent = 0

    def flood() -> None:
        nonlocal sent
        for at in range(3, 60):
            header = bytes([at]) + bytes(3) + LARGEST.to_bytes(3, "big") + b"\x09" + bytes(4)
            list(reader.feed(header + bytes(half)))
            sent += half

    with pytest.raises(Malformed):
        flood()
    assert sent <= 3 * LARGEST


def test_what_we_write_is_read_as_it_was():
    reader = ChunkReader(LARGEST)
    (message,) = reader.feed(write_message(3, 20, 1, SOUND * 3))
    assert message == RtmpMessage(20, 1, 0, SOUND * 3)
