"""The door for RTMP, by bytes that are written by hand: who is let in, and what a worker gets."""

import asyncio

from server.gateway.publish.rtmp.flv import script_data, tag
from tests.server.gateway.publish.handmade import (
    FRAME,
    HANDSHAKE,
    KEY_FRAME,
    METADATA,
    SEQUENCE_HEADER,
    chunks,
    command,
    door,
    members,
    publishing,
    read_all,
    read_until,
    text,
)
from tests.server.gateway.scripted_gateway import until

START, DENIED, BAD_NAME = (b"NetStream.Publish." + word for word in (b"Start", b"Denied", b"BadName"))
MEDIA = (
    chunks(18, METADATA) + chunks(9, SEQUENCE_HEADER) + chunks(9, KEY_FRAME) + chunks(9, FRAME, time_ms=40)
)
FLV = b"FLV\1\5\0\0\0\x09\0\0\0\0" + b"".join(
    (
        tag(18, 0, script_data(METADATA)),
        tag(9, 0, SEQUENCE_HEADER),
        tag(9, 0, KEY_FRAME),
        tag(9, 40, FRAME),
    )
)


async def test_the_right_key_is_let_in_and_what_it_sends_is_flv():
    async with door() as at:
        worker = at.add("live/key")
        reader, writer = await at.say(publishing("live", "key"))
        await read_until(reader, START)
        writer.write(MEDIA)
        await until(lambda: worker.data == FLV, "all of it has come")
        assert [m.format for m in worker.published] == ["flv"]
        writer.write(command("deleteStream", 6, b"\5", b"\0" + bytes(8)))
        await until(lambda: worker.gone == ["the publisher has ended"], "the worker hears of the end")
        writer.close()
        assert not at.refused


async def test_whoever_pipelines_everything_is_let_in_too():
    async with door() as at:
        worker = at.add("live/key")
        _, writer = await at.say(publishing("/live/", "key?listen=1"), MEDIA)
        await until(lambda: worker.data == FLV, "all of it has come")
        writer.close()
        await until(lambda: worker.gone == ["the publisher has gone"], "the worker hears of the end")


async def test_a_wrong_key_and_an_unknown_path_get_the_same_answer():
    answers = set()
    async with door() as at:
        worker = at.add("live/key")
        for app, name in (("live", "KEY"), ("live", "key2"), ("live", ""), ("other", "key"), ("", "key")):
            reader, writer = await at.say(publishing(app, name))
            answers.add((await read_all(reader))[3073:])  # behind the handshake, which is random
            writer.close()
        assert len(answers) == 1
        assert DENIED in answers.pop()
        assert not worker.published
        assert at.refused == {"failed_keys": 5}


async def test_a_query_belongs_to_the_key():
    async with door() as at:
        worker = at.add("live/cam?token=a%20b")
        reader, writer = await at.say(publishing("live", "cam"))
        assert DENIED in await read_all(reader)
        writer.close()
        reader, writer = await at.say(publishing("live", "cam?token=a%20b"))
        await read_until(reader, START)
        assert worker.published
        writer.close()


async def test_an_address_that_guesses_is_not_heard_any_more():
    async with door(failed_logins_per_min=3) as at:
        worker = at.add("live/key")
        for name in ("a", "b", "c", "key"):
            reader, writer = await at.say(publishing("live", name))
            assert DENIED in await read_all(reader), name
            writer.close()
        assert not worker.published
        assert at.refused == {"failed_keys": 4}


async def test_a_second_publisher_is_refused_until_the_first_falls_silent():
    async with door() as at:
        worker = at.add("live/key", timeout_s=0.5)
        reader, first = await at.say(publishing("live", "key"))
        await read_until(reader, START)
        first.write(MEDIA)
        await until(lambda: worker.data == FLV, "the first is heard")
        again, second = await at.say(publishing("live", "key"))
        assert BAD_NAME in await read_all(again)
        second.close()

        async def let_in() -> bool:
            answer, writer = await at.say(publishing("live", "key"))
            said = b""
            while START not in said and BAD_NAME not in said:
                said += await answer.read(4096)
            writer.close()
            return START in said

        await until(let_in, "the first has been silent for long enough")
        assert worker.gone == ["the publisher was silent, and another has come"]
        worker.desk.await_publisher(2)
        assert worker.published[-1].opening == 2
        await read_all(reader)  # the first is hung up on
        first.close()


async def test_two_streams_share_a_port_and_one_goes():
    async with door() as at:
        one, two = at.add("live/one"), at.add("live/two")
        reader, writer = await at.say(publishing("live", "one"))
        await read_until(reader, START)
        other_reader, other = await at.say(publishing("live", "two"), MEDIA)
        await until(lambda: two.data == FLV, "the second is heard")
        at.remove("live/one")
        await read_all(reader)
        other.write(chunks(9, FRAME, time_ms=80))
        await until(lambda: two.data.endswith(tag(9, 80, FRAME)), "the second goes on")
        assert not one.data
        reader, late = await at.say(publishing("live", "one"))
        assert DENIED in await read_all(reader)
        for stream in (writer, other, late):
            stream.close()
        del other_reader


async def test_a_port_that_is_taken_is_named_and_tried_again():
    async with door() as at:
        holder = await asyncio.start_server(lambda r, w: None, "127.0.0.1", at.port)
        worker = at.add("live/key")
        await until(lambda: worker.gone, "the worker hears why")
        assert str(at.port) in worker.gone[0]
        assert "in use" in worker.gone[0]
        worker.desk.await_publisher(2)
        assert len(worker.gone) == 2
        holder.close()

        async def let_in() -> bool:
            worker.desk.await_publisher(3)
            reader, writer = await at.say(publishing("live", "key"))
            await read_until(reader, START)
            writer.close()
            return True

        await until(let_in, "the port is had once it is free")


async def test_of_two_streams_at_one_path_the_first_has_it():
    async with door() as at:
        first = at.add("live/key")
        other = at.add("live/%6bey")
        assert other.gone == ["another stream has the same address"]
        at.remove("live/key")
        other.desk.await_publisher(2)
        reader, writer = await at.say(publishing("live", "key"))
        await read_until(reader, START)
        assert other.published
        assert not first.published
        writer.close()


async def test_a_client_that_never_publishes_is_cut_off():
    async with door(client_timeout_s=0.3) as at:
        at.add("live/key")
        for said in (b"", b"\3", HANDSHAKE, HANDSHAKE + command("connect", 1, members(app="live"))):
            reader, writer = await at.say(said)
            await read_all(reader)
            writer.close()
        assert at.refused == {"slow_client": 4}


async def test_a_publisher_has_all_the_time_it_wants():
    async with door(client_timeout_s=0.2) as at:
        worker = at.add("live/key")
        reader, writer = await at.say(publishing("live", "key"))
        await read_until(reader, START)
        await asyncio.sleep(0.4)
        writer.write(MEDIA)
        await until(lambda: worker.data == FLV, "it is still there")
        writer.close()


async def test_connections_of_an_address_are_bounded():
    async with door(max_connections_per_address=2) as at:
        at.add("live/key")
        open_ones = [await at.connect() for _ in range(2)]
        reader, writer = await at.connect()
        assert await read_all(reader) == b""
        assert at.refused == {"connections": 1}
        for _, held in (*open_ones, (reader, writer)):
            held.close()


async def test_garbage_ends_its_connection_and_no_other():
    async with door() as at:
        worker = at.add("live/key")
        reader, good = await at.say(publishing("live", "key"))
        await read_until(reader, START)
        bad = [
            b"GET / HTTP/1.1\r\n\r\n",
            HANDSHAKE + b"\xc4" * 500,
            HANDSHAKE + chunks(9, bytes(1 << 20)),
            HANDSHAKE + chunks(9, KEY_FRAME),
            HANDSHAKE + chunks(20, b"\x0a\xff\xff\xff\xff"),
            HANDSHAKE + command("noise", 1, b"\5") * 20_000,
        ]
        for data in bad:
            answer, writer = await at.say(data)
            await read_all(answer)
            writer.close()
        assert at.refused["bad_publisher"] == len(bad)
        good.write(MEDIA)
        await until(lambda: worker.data == FLV, "the publisher goes on")
        good.write(b"\xff" * 5000)
        await until(lambda: worker.gone, "a publisher's own garbage ends it")
        assert "RTMP" not in worker.data.decode(errors="replace")
        assert "cut off" in worker.gone[0]
        good.close()


async def test_a_client_that_reads_no_answer_is_cut_off():
    ping = chunks(4, b"\0\6\0\0\0\1", at=2, stream=0)
    async with door() as at:
        worker = at.add("live/key")
        reader, writer = await at.say(publishing("live", "key"))
        await read_until(reader, START)
        writer.transport.pause_reading()

        async def flooded() -> bool:
            if not writer.transport.is_closing():
                writer.write(ping * 5000)
            return bool(worker.gone)

        await until(flooded, "the connection is cut")
        assert "read" in worker.gone[0]
        writer.transport.abort()


async def test_what_is_played_is_nothing():
    async with door() as at:
        at.add("live/key")
        play = HANDSHAKE + command("connect", 1, members(app="live")) + command("play", 2, b"\5", text("key"))
        reader, writer = await at.say(play)
        assert b"NetStream.Play.Failed" in await read_all(reader)
        writer.close()
