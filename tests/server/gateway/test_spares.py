"""Hosts that wait ahead: on which nodes, and which of them takes over."""

import asyncio

from server.gateway.placement.spares import Spares
from server.settings import Limits, StreamSettings
from server.wire.messages import EngineLoad
from tests.server.gateway.scripted_gateway import until

READY = EngineLoad(state="ready", model="m", width=64, height=48, elapsed_s=0.1, detail="")
JOB = StreamSettings(id="demo", source="synthetic:").job(Limits())


class Host:
    def __init__(self, node: str, *, fails: bool = False) -> None:
        self.node = node
        self.fails = fails
        self.engines: set = set()
        self.ended = False
        self.begun = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        if self.fails:
            raise OSError("no such node")

    def prepare(self, engines) -> None:
        self.engines = set(engines)

    def end(self) -> None:
        self.ended = True


async def test_they_wait_on_different_nodes_and_the_least_taken_one_takes_over():
    asked: list[tuple[str, ...]] = []
    hosts: list[Host] = []
    kept_off: set[str] = set()
    streams = {"a": 2, "b": 0, "c": 1}

    def ask_for(job, but_on) -> Host:
        asked.append(tuple(but_on))
        hosts.append(Host("abc"[len(hosts) % 3]))
        return hosts[-1]

    spares = Spares(3, ask_for, kept_off=lambda: kept_off, streams_on=lambda node: streams[node])
    spares.hear(JOB, READY)
    await until(lambda: len(hosts) == 3 and all(host.begun.done() for host in hosts), "three wait")
    await asyncio.sleep(0.01)
    assert asked == [(), ("a",), ("a", "b")]
    (engine,) = hosts[0].engines
    assert (engine.model, engine.width) == (JOB.model, 64)

    kept_off.add("b")
    assert spares.take() is hosts[2], "b is kept off"
    assert hosts[1].ended
    assert not hosts[2].ended
    assert spares.take() is hosts[0]
    assert spares.take() is None

    kept_off.clear()
    spares.hear(JOB, READY)
    await until(lambda: len(hosts) == 6, "they are replaced")
    spares.close()
    assert all(host.ended for host in hosts[3:])


async def test_one_that_could_not_be_had_is_asked_for_again():
    hosts: list[Host] = []

    def ask_for(job, but_on) -> Host:
        hosts.append(Host("a", fails=not hosts))
        return hosts[-1]

    spares = Spares(1, ask_for, kept_off=set, streams_on=lambda node: 0)
    spares.hear(JOB, READY)
    await until(lambda: hosts[0].begun.done(), "it has failed")
    assert spares.take() is None
    spares.hear(JOB, READY)
    await until(lambda: len(hosts) == 2 and hosts[1].begun.done(), "another is there")
    assert spares.take() is hosts[1]
