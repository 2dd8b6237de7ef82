"""A worker is watched and replaced: at once when it dies, not when it keeps dying or has failed."""

import asyncio
import contextlib
import time

from server.gateway.streams.supervisor import Patience, Supervisor
from server.settings import Settings
from server.wire.messages import (
    Alive,
    Heartbeat,
    JobImpossible,
    Message,
    RequestKeyframe,
    Stop,
    Watch,
    WorkerBroken,
    WorkerJob,
)
from tests.server.gateway.scripted_gateway import until
from tests.server.gateway.scripted_worker import Script, ScriptedPlacement, ScriptedWorker

BEAT = Heartbeat(queues={}, rss_bytes=1, cpu_s=0.1)
SIGN = Alive()


class Witness:
    def __init__(self) -> None:
        self.starts = 0
        self.messages: list[Message] = []
        self.deaths: list[str] = []
        self.quarantines: list[str] = []
        self.refusals: list[tuple[str, float]] = []

    def on_start(self, worker: ScriptedWorker) -> None:
        self.starts += 1

    def on_message(self, message: Message) -> None:
        self.messages.append(message)

    def on_death(self, reason: str) -> None:
        self.deaths.append(reason)

    def on_quarantine(self, reason: str) -> None:
        self.quarantines.append(reason)

    def on_no_worker(self, reason: str, retry_in_s: float) -> None:
        self.refusals.append((reason, retry_in_s))


@contextlib.asynccontextmanager
async def supervised(placement: ScriptedPlacement, **patience: float):
    witness = Witness()
    job = Settings().stream(id="s", source="demo:").job(Settings().limits)
    supervisor = Supervisor(placement, lambda: job, witness, Patience(**patience))
    witness.send, witness.release, witness.renew = supervisor.send, supervisor.release, supervisor.renew
    task = asyncio.create_task(supervisor.run())
    try:
        yield witness, task
    finally:
        task.cancel()
        await asyncio.wait([task])


def quiet(*first: Message) -> ScriptedPlacement:
    return ScriptedPlacement(Script(live=False, first=first))


async def test_deaths_are_answered_at_once_until_they_are_a_pattern():
    placement = quiet(SIGN)
    async with supervised(placement) as (witness, task):
        for number in range(1, 4):
            await until(lambda n=number: len(placement.workers) == n, f"worker {number}")
            placement.workers[-1].die()
        await until(lambda: witness.quarantines, "the third death")
        assert len(witness.deaths) == 2
        assert "SIGKILL" in witness.deaths[0]
        assert witness.quarantines == [
            "it ended 3 workers within 60 s, the last so: the worker was ended by SIGKILL"
        ]
        assert len(placement.workers) == 3
        assert not task.done()


async def test_a_stream_is_not_blamed_for_the_loss_of_machines():
    placement = quiet()
    async with supervised(placement) as (witness, _):
        for count in range(1, 6):
            await until(lambda n=count: len(placement.workers) == n, "a worker")
            placement.workers[-1].lost = True
            placement.workers[-1].die()
        await until(lambda: len(placement.workers) == 6, "another one")
        assert len(witness.deaths) == 5


async def test_a_release_starts_a_worker_and_forgets_the_deaths():
    placement = quiet(SIGN)
    async with supervised(placement) as (witness, _):
        for number in range(1, 4):
            await until(lambda n=number: len(placement.workers) == n, f"worker {number}")
            placement.workers[-1].die()
        await until(lambda: witness.quarantines, "the third death")
        witness.release()
        for number in range(4, 6):
            await until(lambda n=number: len(placement.workers) == n, f"worker {number}")
            placement.workers[-1].die()
        await until(lambda: len(placement.workers) == 6, "the fifth death is answered, too")
        assert len(witness.quarantines) == 1


async def test_deaths_that_lie_far_apart_are_no_pattern():
    placement = quiet(SIGN)
    async with supervised(placement, deaths_within_s=0.0) as (witness, _):
        for number in range(1, 6):
            await until(lambda n=number: len(placement.workers) == n, f"worker {number}")
            placement.workers[-1].die()
        await until(lambda: len(placement.workers) == 6, "worker 6")
        assert witness.quarantines == []


async def test_a_worker_that_is_silent_and_not_at_work_is_ended_and_replaced():
    placement = quiet(SIGN)
    async with supervised(placement, silent_s=0.1) as (witness, _):
        await until(lambda: len(placement.workers) == 2, "a second worker")
        assert Stop() in placement.workers[0].received
        assert placement.workers[0].ended_at_once, "who hangs would not finish by itself"
        assert "no sign of life for 0.1 s" in witness.deaths[0]


async def test_a_silent_worker_that_is_at_work_gets_longer():
    """It may be starved on a busy machine."""
    placement = quiet(SIGN, BEAT)
    async with supervised(placement, silent_s=0.1, busy_s=1.0) as (witness, _):
        await until(lambda: witness.messages, "the worker runs")
        placement.workers[0].working = True
        await asyncio.sleep(0.5)
        assert witness.deaths == []
        await until(lambda: len(placement.workers) == 2, "a second worker in the end")
        assert "no sign of life for 1 s" in witness.deaths[0]


async def test_other_messages_are_no_sign_of_life():
    """They may come from threads beside the one that hangs."""
    placement = quiet(SIGN)
    async with supervised(placement, silent_s=0.1) as (witness, _):
        await until(lambda: placement.workers, "a worker")

        def replaced() -> bool:
            placement.workers[0].say(BEAT)
            return len(placement.workers) > 1

        await until(replaced, "a second worker")
        assert "no sign of life" in witness.deaths[0]


async def test_a_gateway_that_was_held_up_does_not_blame_its_workers():
    placement = quiet(SIGN, BEAT)
    async with supervised(placement, silent_s=0.3) as (witness, _):
        await until(lambda: witness.messages, "the worker runs")
        time.sleep(0.6)  # noqa: ASYNC251  as a debugger, a paused machine or a long garbage collection would
        await asyncio.sleep(0.01)  # what was on its way has yet to be read
        placement.workers[0].say(SIGN)
        placement.workers[0].say(BEAT)
        await until(lambda: len(witness.messages) == 2, "the late sign of life is heard")
        assert witness.deaths == []


async def test_a_start_may_take_longer_than_a_silence():
    placement = quiet()
    started_s = time.monotonic()
    async with supervised(placement, silent_s=0.05, start_s=0.4) as (witness, _):
        await until(lambda: witness.deaths, "the start times out in the end")
        assert time.monotonic() - started_s >= 0.4
        assert "0.4 s" in witness.deaths[0]


async def test_failed_is_for_good():
    placement = quiet(JobImpossible(reason="no video"))
    async with supervised(placement) as (witness, task):
        await asyncio.wait_for(task, 5)
        assert witness.starts == 1
        assert witness.messages == [JobImpossible(reason="no video")]
        assert witness.deaths == []
        assert not placement.workers[0].ended_at_once, "it may finish"


async def test_a_worker_that_speaks_nonsense_is_replaced():
    placement = quiet(BEAT)
    async with supervised(placement) as (witness, _):
        await until(lambda: placement.workers, "a worker")
        placement.workers[0].speak_nonsense()
        await until(lambda: len(placement.workers) == 2, "a second worker")
        assert "spoke nonsense: message of" in witness.deaths[0]


async def test_a_worker_that_breaks_has_the_last_word():
    placement = quiet(BEAT)
    async with supervised(placement) as (witness, _):
        await until(lambda: placement.workers, "a worker")
        broken = WorkerBroken(reason="the GPU is out of memory while it computed a frame")
        placement.workers[0].say(broken)
        await until(lambda: len(placement.workers) == 2, "a second worker")
        assert witness.deaths[0] == "the GPU is out of memory while it computed a frame"
        assert not any(isinstance(message, WorkerBroken) for message in witness.messages)


async def test_where_no_worker_starts_it_is_tried_again():
    placement = ScriptedPlacement(Script(live=False, refuse="no memory"))
    async with supervised(placement, first_backoff_s=0.01) as (witness, _):
        await until(lambda: len(witness.refusals) >= 3, "several tries")
        assert "no memory" in witness.refusals[0][0]
        assert not witness.deaths, "nobody died"
        placement.script.refuse = ""
        await until(lambda: placement.workers, "a worker in the end")


async def test_another_job_is_tried_as_if_it_were_the_first():
    placement = ScriptedPlacement(Script(live=False, refuse="its home is away"))
    async with supervised(placement, first_backoff_s=0.1) as (witness, _):
        await until(lambda: len(witness.refusals) == 4, "patience grows")
        witness.renew()
        await until(lambda: len(witness.refusals) >= 6, "it is another's now")
        assert [retry_in_s for _, retry_in_s in witness.refusals[3:6]] == [0.8, 0.1, 0.2]


async def test_it_is_tried_for_years():
    placement = ScriptedPlacement(Script(live=False, refuse="no memory"))
    async with supervised(placement, longest_backoff_s=0.0) as (witness, _):
        await until(lambda: len(witness.refusals) > 1100, "more tries than a float has powers of two")


async def test_a_message_goes_to_the_worker_that_runs_and_to_none_between_two():
    placement = quiet(BEAT)
    async with supervised(placement, deaths=2) as (witness, _):
        witness.send(RequestKeyframe())
        await until(lambda: witness.messages, "the first worker runs")
        assert RequestKeyframe() not in placement.workers[0].received
        placement.workers[0].die()
        await until(lambda: len(witness.messages) == 2, "the second worker runs")
        witness.send(RequestKeyframe())
        placement.workers[1].die()
        await until(lambda: witness.quarantines, "no third one starts")
        witness.send(Watch(renditions=("upscaled",)))
    kinds = [[type(message) for message in worker.received] for worker in placement.workers]
    assert kinds == [[WorkerJob, Stop], [WorkerJob, RequestKeyframe, Stop]]


async def test_cancelling_stops_the_worker():
    placement = quiet(BEAT)
    async with supervised(placement, silent_s=1000.0) as (witness, _):
        await until(lambda: witness.messages, "the worker runs")
    assert Stop() in placement.workers[0].received
    await until(lambda: len(asyncio.all_tasks()) == 1, "nobody watches over it any longer")
