"""What the gateway says and does about a stream's steps between networks."""

import pytest

from server.gateway.placement import cpu
from server.wire.messages import Heartbeat, Stepped, StepUp
from tests.server.gateway.scripted_gateway import gateway, until

STEADY = Heartbeat(queues={}, rss_bytes=1, cpu_s=1.0, steady=True, frame_cpu_s=(1e-6, 1e-6))


async def test_steps_are_told_and_answered_when_there_is_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu.IdleCores, "__call__", lambda self: 2.0)
    async with gateway() as served:
        await served.in_state("running")
        served.worker.say(Stepped(level=1, reason="frames took 300 ms"))

        async def stepped():
            stream = await served.stream()
            return stream if stream["level"] == 1 else None

        stream = await until(stepped, "the step is shown")
        assert stream["stepped"]["reason"] == "frames took 300 ms"
        metrics = await served.metrics()
        assert metrics['livesr_ladder_level{stream="demo"}'] == 1
        assert metrics['livesr_ladder_steps_total{direction="down",stream="demo"}'] == 1

        def granted() -> bool:
            served.worker.say(STEADY)
            return StepUp(level=0) in served.worker.received

        await until(granted, "there is room")
        served.worker.say(Stepped(level=0, reason="there is room again"))

        async def back():
            return (await served.stream())["level"] == 0

        await until(back, "it is back")


async def test_the_next_worker_starts_where_the_last_stood():
    async with gateway() as served:
        await served.in_state("running")
        served.worker.say(Stepped(level=2, reason="frames were dropped"))
        served.worker.die()
        await until(lambda: len(served.placement.workers) == 2, "a second worker")
        assert served.worker.job.level == 2
