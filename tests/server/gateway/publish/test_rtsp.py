"""The door for RTSP, by requests that are written by hand: who is let in, and what a worker gets."""

import asyncio

import pytest

from server.gateway.publish import Malformed
from server.gateway.publish.rtsp.requests import Frames, RtspReader
from server.gateway.publish.rtsp.sdp import parse_sdp
from tests.server.gateway.publish.handmade import (
    SDP,
    DoorUnderTest,
    door,
    frame,
    read_all,
    read_until,
    request,
)
from tests.server.gateway.scripted_gateway import until

TCP = "RTP/AVP/TCP;unicast;interleaved={};mode=record"
END = b"\r\n\r\n"


async def announced(at: DoorUnderTest, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A client that has announced, and what it was answered."""
    reader, writer = await at.say(
        request("OPTIONS", "*"), request("ANNOUNCE", f"rtsp://127.0.0.1:{at.port}/{path}", 2, SDP)
    )
    await read_until(reader, END)
    return reader, writer, await read_until(reader, END)


async def recording(at: DoorUnderTest, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A client that has asked to record, its second track on the first channels; and its answer."""
    reader, writer, _ = await announced(at, path)
    url = f"rtsp://127.0.0.1:{at.port}/{path}"
    for track, channels in ((1, "0-1"), (0, "2-3")):
        writer.write(request("SETUP", f"{url}/streamid={track}", 3, transport=TCP.format(channels)))
        assert b"200 OK" in await read_until(reader, END)
    writer.write(request("RECORD", url, 5))
    return reader, writer, await read_until(reader, END)


async def test_the_right_key_is_let_in_and_its_tracks_have_our_channels():
    async with door("rtsp") as at:
        worker = at.add("live/key")
        reader, writer, answer = await recording(at, "live/key")
        assert answer.startswith(b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nSession: ")
        (published,) = worker.published
        assert published.format == "rtsp"
        assert b"a=rtpmap:96 H264/90000\r\n" in published.description
        assert b"key" not in published.description
        writer.write(frame(0, b"sound") + frame(9, b"nothing of ours") + frame(2, b"picture"))
        writer.write(request("GET_PARAMETER", "*", 6) + frame(3, b"report"))
        expected = frame(2, b"sound") + frame(0, b"picture") + frame(1, b"report")
        await until(lambda: worker.data == expected, "the packets have come")
        assert b"CSeq: 6" in await read_until(reader, END)
        writer.write(request("TEARDOWN", "*", 7))
        assert b"CSeq: 7" in await read_all(reader)
        assert worker.gone == ["the publisher has ended"]
        writer.close()


async def test_a_wrong_key_and_an_unknown_path_get_the_same_answer():
    async with door("rtsp") as at:
        worker = at.add("live/key")
        for path in ("live/KEY", "live", "other/key", ""):
            reader, writer, answer = await announced(at, path)
            assert answer.startswith(b"RTSP/1.0 404 Not Found\r\nCSeq: 2\r\n")
            assert await read_all(reader) == b""
            writer.close()
        assert not worker.published
        assert at.refused == {"failed_keys": 4}


async def test_a_second_publisher_is_refused():
    async with door("rtsp") as at:
        at.add("live/key")
        _, first, answer = await recording(at, "live/key")
        assert b"200 OK" in answer
        _, second, answer = await recording(at, "live/key")
        assert answer.startswith(b"RTSP/1.0 453")
        first.close()
        second.close()


async def test_udp_is_refused_and_tcp_may_follow():
    async with door("rtsp") as at:
        at.add("live/key")
        reader, writer, _ = await announced(at, "live/key")
        url = f"rtsp://127.0.0.1:{at.port}/live/key/streamid=0"
        for transport in ("RTP/AVP/UDP;unicast;client_port=5000-5001", TCP.format("0-300"), "RTP/AVP/TCP"):
            writer.write(request("SETUP", url, 3, transport=transport))
            assert (await read_until(reader, END)).startswith(b"RTSP/1.0 461")
        writer.write(request("SETUP", url, 4, transport=TCP.format("0-1")))
        assert b"200 OK" in await read_until(reader, END)
        writer.close()


async def test_what_is_out_of_turn_is_refused():
    async with door("rtsp") as at:
        at.add("live/key")
        reader, writer = await at.say(
            request("SETUP", "rtsp://h/live/key"),
            request("RECORD", "rtsp://h/live/key"),
            request("PLAY", "*"),
        )
        for status in (b"455", b"455", b"501"):
            assert status in (await read_until(reader, END)).split(b"\r\n")[0]
        writer.write(
            request("ANNOUNCE", "rtsp://h/live/key", 2, SDP) + request("RECORD", "rtsp://h/live/key", 3)
        )
        for status in (b"200", b"455"):
            assert status in (await read_until(reader, END)).split(b"\r\n")[0]
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        frame(0, b"media before anything"),
        b"\x16\x03\x01\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\nno colon\r\n\r\n",
        b"A" * 40_000,
        b"OPTIONS * RTSP/1.0\r\n" + b"a: b\r\n" * 100 + b"\r\n",
        b"ANNOUNCE rtsp://h/live/key RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n",
        b"ANNOUNCE rtsp://h/live/key RTSP/1.0\r\nContent-Length: -1\r\n\r\n",
        b"ANNOUNCE rtsp://[h/live/key RTSP/1.0\r\nContent-Length: 7\r\n\r\nm=video",
        request("ANNOUNCE", "rtsp://h/live/key", 1, b"v=0\r\n"),
        request("ANNOUNCE", "rtsp://h/live/key", 1, b"m=video\r\n" * 9),
        request("ANNOUNCE", "rtsp://h/live/key", 1, SDP) * 2,
    ],
)
async def test_garbage_ends_its_connection_and_no_other(data):
    async with door("rtsp") as at:
        worker = at.add("live/key")
        _, good, _ = await recording(at, "live/key")
        reader, writer = await at.say(data)
        await read_all(reader)
        writer.close()
        assert at.refused == {"bad_publisher": 1}
        good.write(frame(0, b"sound"))
        await until(lambda: worker.data == frame(2, b"sound"), "the publisher goes on")
        good.close()


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_requests_and_packets_are_told_apart_in_any_pieces(piece):
    wire = request("ANNOUNCE", "rtsp://h/a", 1, b"$body") + frame(0, b"\r\n\r\n") + frame(1, b"")
    wire += b"\r\n" + request("OPTIONS", "*", 2)
    reader, parts = RtspReader(), []
    for start in range(0, len(wire), piece):
        parts += reader.feed(wire[start : start + piece])
    frames = b"".join(part.data for part in parts if isinstance(part, Frames))
    asked = [part for part in parts if not isinstance(part, Frames)]
    assert frames == frame(0, b"\r\n\r\n") + frame(1, b"")
    assert [(r.method, r.url, r.body) for r in asked] == [
        ("ANNOUNCE", "rtsp://h/a", b"$body"),
        ("OPTIONS", "*", b""),
    ]


def test_a_description_keeps_no_address_of_its_own():
    announced = parse_sdp(SDP)
    assert announced.controls == ("streamid=0", "streamid=1")
    assert b"a=control:track=0\r\n" in announced.sdp
    assert b"rtsp://" not in announced.sdp
    with pytest.raises(Malformed):
        parse_sdp(b"no description")
