"""RTMP's messages as FLV: what a decoder can begin with, and what it has to know before."""

import struct

import pytest

from server.gateway.publish import Malformed
from server.gateway.publish.rtmp import amf
from server.gateway.publish.rtmp.flv import FlvPublication, script_data, tag
from tests.server.gateway.publish.handmade import (
    FRAME,
    KEY_FRAME,
    METADATA,
    SEQUENCE_HEADER,
    command,
    members,
    number,
    text,
)

AAC_HEADER, AAC = b"\xaf\0\x11\x90", b"\xaf\1abc"
HEVC = b"hvc1"


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (SEQUENCE_HEADER, "header"),
        (KEY_FRAME, "start"),
        (FRAME, "rest"),
        (b"\x57\0", "header"),
        (b"\x17\2\0\0\0", "start"),  # the end of a sequence: harmless
        (b"\x12\0abc", "start"),  # H.263 has no header
        (b"\x90" + HEVC + b"config", "header"),
        (b"\x91" + HEVC + b"\0\0\0key", "start"),
        (b"\x93" + HEVC + b"key", "start"),
        (b"\xa1" + HEVC + b"\0\0\0frame", "rest"),
        (b"\x94" + HEVC + b"metadata", "rest"),
        (b"\x96\x00" + HEVC + b"\1config", "header"),  # track 1
        (b"\x96\x01" + HEVC + b"\1\0\0\0key", "start"),
        (b"\x97\x02\0\0\0\x01" + HEVC + b"\0\0\0key", "start"),  # behind a modifier of three bytes
        (b"\x97\xff\xff\xff", "rest"),
        (b"\x96", "rest"),
        (b"\x80", "header"),
        (b"", "rest"),
    ],
)
def test_video(payload, kind):
    publication = FlvPublication()
    assert publication.add(9, 0, payload) == kind


def test_audio_is_no_place_to_begin_where_there_is_a_picture():
    publication = FlvPublication()
    assert publication.add(8, 0, AAC_HEADER) == "header"
    assert publication.add(8, 0, AAC) == "start"
    publication.add(9, 0, SEQUENCE_HEADER)
    assert publication.add(8, 0, AAC) == "rest"
    assert publication.add(8, 0, b"\x90mp4a\x11\x90") == "header"


def test_who_begins_in_the_middle_gets_the_last_headers_at_the_time_of_the_key_frame():
    publication = FlvPublication()
    publication.add(18, 0, script_data(METADATA))
    publication.add(8, 0, AAC_HEADER)
    publication.add(9, 0, SEQUENCE_HEADER)
    publication.add(9, 40, KEY_FRAME)
    newer = SEQUENCE_HEADER + b"another size"
    publication.add(9, 80, newer)
    publication.add(9, 0x0123_4567, KEY_FRAME)
    headers = publication.headers()
    assert headers == b"".join(
        tag(kind, 0x0123_4567, payload)
        for kind, payload in ((18, script_data(METADATA)), (8, AAC_HEADER), (9, newer))
    )


def test_a_tag_is_as_the_specification_says():
    assert tag(9, 0x0123_4567, b"ab") == b"\x09\0\0\2\x23\x45\x67\x01\0\0\0ab\0\0\0\x0d"


def test_the_file_promises_the_tracks_that_the_metadata_name():
    publication = FlvPublication()
    assert publication.prelude()[4] == 5  # nobody knows
    publication.add(
        18, 0, script_data(text("@setDataFrame") + text("onMetaData") + members(videocodecid="7"))
    )
    assert publication.prelude()[4] == 1


def test_what_is_kept_is_bounded():
    publication = FlvPublication()
    with pytest.raises(Malformed, match="too long"):
        publication.add(9, 0, b"\x17\0\0\0\0" + bytes(100_000))
    for track in range(8):
        publication.add(9, 0, b"\x96\x00" + HEVC + bytes([track]))
    with pytest.raises(Malformed, match="too many"):
        publication.add(9, 0, b"\x96\x00" + HEVC + bytes([9]))


def test_commands_are_read():
    payload = command("publish", 5, b"\5", text("key"), text("live"))[12:]
    assert amf.decode(payload) == ["publish", 5.0, None, "key", "live"]
    values = (
        members(app="live")
        + b"\x08\0\0\0\1"  # an array with names
        + members(a="b")[1:]
        + b"\x0a\0\0\0\2"  # one without
        + number(1)
        + b"\1\1"
        + b"\x0b"
        + bytes(10)
        + b"\x0c\0\0\0\2hi"
        + b"\6"
    )
    assert amf.decode(values) == [{"app": "live"}, {"a": "b"}, [1.0, True], 0.0, "hi", None]


def test_what_we_say_is_read_as_it_was():
    values: list[amf.Value] = ["onStatus", 0.0, None, True, {"level": "error", "n": {"x": 1.0}}, [False, "é"]]
    assert amf.decode(amf.encode(*values)) == values


@pytest.mark.parametrize(
    "data",
    [
        b"\2\0\x09cut",
        b"\0\1",
        b"\3\0\1",
        b"\x0a\xff\xff\xff\xff",
        struct.pack("!BI", 10, 1) * 40,
        b"\x0c\xff\xff\xff\xffx",
        b"\x63",
        b"\x03\0\1a\x03\0\1a" * 40,
    ],
)
def test_values_that_are_none_are_refused(data):
    with pytest.raises(Malformed):
        amf.decode(data)
