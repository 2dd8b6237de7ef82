"""Standard input: transport packets are found in whatever pieces they come, and it is one stream's."""

import asyncio
import os
import random

from server.gateway.publish.desk import Desk
from server.gateway.publish.stdin import Packets, StandardInput
from tests.server.gateway.publish.handmade import Worker
from tests.server.gateway.scripted_gateway import until


def packet(number: int) -> bytes:
    return b"\x47" + bytes([number]) * 187


def test_packets_come_out_whole_whatever_the_pieces():
    stream = b"".join(map(packet, range(100)))
    rng, packets, out, at = random.Random(1), Packets(), b"", 0
    while at < len(stream):
        size = rng.randrange(1, 700)
        given = packets.feed(stream[at : at + size])
        assert len(given) % 188 == 0
        out, at = out + given, at + size
    assert out == stream


def test_what_lies_before_and_between_packets_is_left_out():
    packets = Packets()
    ten = b"".join(map(packet, range(10)))
    out = packets.feed(b"junk\x47" * 50 + ten) + packets.feed(b"more junk" + ten) + packets.feed(ten)
    assert out == 3 * ten
    for _ in range(1000):
        packets.feed(bytes(1000))
    assert len(packets._rest) < 1000


def waiting() -> Worker:
    worker = Worker(None)  # type: ignore[arg-type]
    worker.desk = Desk("s", timeout_s=10.0, override=False, send=worker.send, on_drop=worker.count)
    worker.desk.await_publisher(1)
    return worker


async def test_one_stream_has_it_until_it_ends(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stdin", os.fdopen(reading, "rb"))
    stdin, first, second = StandardInput(), waiting(), waiting()
    stdin.enter(first.desk)
    stdin.enter(second.desk)
    assert second.gone == ["another stream has standard input"]
    await asyncio.to_thread(os.write, writing, packet(1) + packet(2))
    await until(lambda: first.data == packet(1) + packet(2), "it comes")
    os.close(writing)
    await until(lambda: "standard input has ended" in first.gone, "the end is told")


async def test_a_file_is_no_pipe(monkeypatch, tmp_path):
    (tmp_path / "clip.ts").write_bytes(packet(1))
    with (tmp_path / "clip.ts").open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        worker = waiting()
        StandardInput().enter(worker.desk)
        await until(lambda: worker.gone, "it is told")
        assert "standard input must be a pipe" in worker.gone[0]
