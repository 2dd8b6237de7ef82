"""Publishers of a whole gateway, its workers scripted: ports come and go with streams."""

import asyncio

from server.wire.messages import AwaitPublisher, JobImpossible, Published, PublishedData
from tests.ports import free_port
from tests.server.gateway.publish.handmade import FRAME, KEY_FRAME, chunks, publishing, read_all, read_until
from tests.server.gateway.scripted_gateway import Gateway, gateway, until
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement

START = b"NetStream.Publish.Start"


def waiting(port: int, key: str = "s3cret") -> tuple[str, dict]:
    source = f"rtmp://127.0.0.1:{port}/live/{key}?listen=1"
    return source, {"streams": (), "sources": {"listen_ports": [port]}}


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def create(served: Gateway, source: str, **more: object) -> None:
    answer = await served.http.post("/api/streams", json={"id": "demo", "source": source, **more})
    assert answer.status_code == 201, answer.text


async def test_the_port_is_open_while_a_stream_names_it():
    port = free_port()
    source, tables = waiting(port)
    async with gateway(ScriptedPlacement(Script(live=False)), **tables) as served:
        assert not await accepts(port)
        await create(served, source)
        await until(lambda: accepts(port), "the port is open")
        await served.http.delete("/api/streams/demo")
        assert not await accepts(port)
        await create(served, source)
        await until(lambda: accepts(port), "the port is open again")
        served.worker.say(JobImpossible(reason="its picture is above the limit"))
        await served.in_state("failed")
        assert not await accepts(port)
    assert not await accepts(port)


async def test_a_stream_that_fails_hangs_up_on_its_publisher():
    port = free_port()
    source, tables = waiting(port)
    async with gateway(ScriptedPlacement(Script(live=False)), **tables) as served:
        await create(served, source)
        await until(lambda: accepts(port), "the port is open")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(publishing("live", "s3cret"))
        await read_until(reader, START)
        served.worker.say(JobImpossible(reason="its picture is above the limit"))
        await read_all(reader)
        writer.close()


async def test_the_next_worker_gets_what_the_last_one_left(caplog):
    caplog.set_level("INFO")
    port = free_port()
    source, tables = waiting(port)
    async with gateway(ScriptedPlacement(Script(live=False)), **tables) as served:
        await create(served, source)
        await until(lambda: accepts(port), "the port is open")
        served.worker.say(AwaitPublisher(opening=1))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(publishing("live", "s3cret") + chunks(9, KEY_FRAME))
        first = served.worker
        await until(lambda: any(isinstance(m, PublishedData) for m in first.received), "it is served")
        first.die()
        await until(lambda: len(served.placement.workers) == 2, "a second worker")
        served.worker.say(AwaitPublisher(opening=1))
        second = served.worker
        await until(
            lambda: any(isinstance(m, Published) for m in second.received), "it hears of the publisher"
        )
        writer.write(chunks(9, FRAME, time_ms=40) + chunks(9, KEY_FRAME, time_ms=80))
        await until(lambda: any(m.data for m in data_of(second)), "it is served")
        assert [m.kind for m in data_of(second) if m.data] == ["start"]
        shown = (await served.http.get("/api/streams")).text + (await served.http.get("/metrics")).text
        writer.close()
    assert "s3cret" not in shown + caplog.text
    del reader


def data_of(worker) -> list[PublishedData]:
    return [m for m in worker.received if isinstance(m, PublishedData)]
