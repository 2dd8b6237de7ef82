"""Real workers under a real gateway: killed, hung, orphaned."""

import asyncio
import itertools
import os
import signal

from server.gateway.placement import WorkerHandle
from server.gateway.placement.local import LocalPlacement
from server.gateway.placement.process import LocalWorkerHandle
from server.settings import Settings
from server.wire.messages import PublishedData, RequestKeyframe, WorkerJob
from tests.server.gateway.scripted_gateway import Viewer, gateway, loopback, until  # noqa: F401

SMALL = {"id": "demo", "source": "synthetic:?size=160x120&fps=25"}
FAST = {"preset": "ultrafast", "lanes": 1}


class Recording(LocalPlacement):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.workers: list[LocalWorkerHandle] = []

    async def start(self, job: WorkerJob) -> WorkerHandle:
        worker = await super().start(job)
        assert isinstance(worker, LocalWorkerHandle)
        self.workers.append(worker)
        return worker


def serving_small(placement: LocalPlacement):
    return gateway(placement, streams=(), defaults=FAST, limits={"max_streams": 2})


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_worker_killed_outright_is_replaced_at_once_and_its_viewer_stays(caplog):
    placement = Recording()
    async with serving_small(placement) as served:
        assert (await served.http.post("/api/streams", json=SMALL)).status_code == 201
        await served.in_state("running")
        async with Viewer(served, audio=False) as viewer:
            await viewer.sees(25)
            os.kill(placement.workers[0].pid, signal.SIGKILL)
            await until(lambda: len(placement.workers) == 2, "a second worker")
            seen = len(viewer.frames[0])
            await viewer.sees(seen + 5)
            assert viewer.pc.connectionState == "connected"
            frames = viewer.frames[0]
            assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))
        stream = await served.stream()
        assert (stream["state"], stream["reason"], stream["worker"]["restarts"]) == ("running", "", 1)
    assert "the worker was ended by SIGKILL; a new one starts" in caplog.text
    assert not any(alive(worker.pid) for worker in placement.workers)


async def test_deleting_a_stream_ends_its_worker():
    placement = Recording()
    async with serving_small(placement) as served:
        await served.http.post("/api/streams", json=SMALL)
        await served.in_state("running")
        await served.http.delete("/api/streams/demo")
        assert not alive(placement.workers[0].pid)


async def test_a_worker_ends_with_its_gateway_however_that_ended():
    worker = await LocalPlacement().start(job())
    assert isinstance(worker, LocalWorkerHandle)
    async for _ in worker.messages():
        break  # it runs
    worker._writer.close()  # as the kernel does for a process that is gone
    worker.host._control.close()
    await asyncio.wait_for(worker.host.ended, 10)


async def test_a_worker_that_does_not_stop_is_ended():
    worker = await LocalPlacement().start(job())
    assert isinstance(worker, LocalWorkerHandle)
    async for _ in worker.messages():
        break
    os.kill(worker.pid, signal.SIGSTOP)
    assert await worker.stop() == "the worker was ended by SIGKILL"
    assert await worker.stop(at_once=True) == "the worker was ended by SIGKILL"


async def test_what_is_published_to_a_worker_that_stands_still_is_lost_and_words_are_not():
    worker = await LocalPlacement().start(job())
    assert isinstance(worker, LocalWorkerHandle)
    async for _ in worker.messages():
        break
    os.kill(worker.pid, signal.SIGSTOP)
    data = PublishedData(opening=1, kind="rest", data=bytes(1 << 18), arrival_ns=0)
    taken = sum(worker.send(data) for _ in range(100))
    assert 4 < taken < 20
    assert worker.send(RequestKeyframe())
    await worker.stop(at_once=True)
    assert not worker.send(RequestKeyframe())


async def test_a_worker_is_at_work_while_it_starts_and_not_once_it_is_stopped():
    worker = await LocalPlacement().start(job())
    assert isinstance(worker, LocalWorkerHandle)
    await until(worker.at_work, "it imports")
    os.kill(worker.pid, signal.SIGSTOP)
    await until(worker.host.stopped, "it is stopped")
    assert not worker.at_work()
    await worker.stop(at_once=True)
    assert not worker.at_work()


async def test_a_standby_takes_over_where_viewers_wait_and_nowhere_else():
    placement = Recording(standby=1)
    async with gateway(placement, streams=(), defaults=FAST) as served:
        await served.http.post("/api/streams", json=SMALL)
        await served.in_state("running")
        (standby,) = await until(lambda: placement._standbys._waiting, "a standby waits")
        await served.http.post("/api/streams", json=SMALL | {"id": "second"})
        await served.in_state("running", "second")
        assert standby.worker.pid not in {worker.pid for worker in placement.workers}
        os.kill(placement.workers[0].pid, signal.SIGKILL)
        await until(lambda: len(placement.workers) == 3, "another worker")
        assert placement.workers[-1] is standby.worker
        await served.in_state("running")
        (later,) = await until(lambda: placement._standbys._waiting, "another standby waits")
    await until(lambda: not alive(later.worker.pid), "it ends with the gateway")


def job() -> WorkerJob:
    settings = Settings()
    return settings.stream(**SMALL, **FAST).job(settings.limits)


async def test_what_is_prepared_for_is_whatever_job_comes():
    """As a host of a cluster does: its stream's process starts while the gateway is on its way."""
    placement = LocalPlacement()
    placement.prepare(())
    try:
        await until(lambda: placement._standbys._waiting, "a process waits")
        (waiting,) = placement._standbys._waiting
        settings = Settings()
        job = settings.stream(id="s", source="synthetic:").job(settings.limits)
        worker = await placement.start(job)
        assert worker.pid == waiting.worker.pid
        await worker.stop(at_once=True)
    finally:
        await placement.close()
