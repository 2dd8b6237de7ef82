"""Streams spread over GPUs by free slots; real worker processes on GPUs that are only named."""

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from engine.machine import Gpu
from engine.measure.gpu_costs import GpuCosts
from server.gateway.placement.local import LocalPlacement
from server.gateway.placement.process import LocalWorkerHandle
from server.gateway.placement.slots import GpuSlots, NoFreeSlot, usual_slots
from server.settings import Settings
from server.wire.messages import EngineLoad, GpuUse, Opened
from tests.server.gateway.scripted_gateway import gateway, until
from tests.server.gateway.scripted_media import opened as scripted_opened
from tests.server.gateway.test_local import FAST, SMALL, Recording


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVESR_ARTIFACTS", str(tmp_path))
    return tmp_path


def opened(fps: float) -> Opened:
    told = scripted_opened(640, 360)
    return structs.replace(told, source=structs.replace(told.source, width=640, height=360, fps=fps))


def gpu(index: int) -> Gpu:
    return Gpu(
        index=index,
        uuid=f"GPU-{index}0000000",
        name="NVIDIA L4",
        memory_bytes=24 << 30,
        compute_capability="8.9",
        driver="580.1",
    )


def job(name: str = "a", **options):
    settings = Settings()
    return settings.stream(**SMALL | FAST | {"id": name} | options).job(settings.limits)


def used(placement: LocalPlacement) -> list[int]:
    return [use.used for use in placement.gpu_slots()]


def visible(worker: LocalWorkerHandle) -> str | None:
    environment = _of(worker, "environ").split(b"\0")
    found = [entry for entry in environment if entry.startswith(b"CUDA_VISIBLE_DEVICES=")]
    return found[0].partition(b"=")[2].decode() if found else None


def _of(worker: LocalWorkerHandle, name: str) -> bytes:
    return Path(f"/proc/{worker.pid}/{name}").read_bytes()


async def start(placement: LocalPlacement, name: str = "a", **options) -> LocalWorkerHandle:
    worker = await placement.start(job(name, **options))
    assert isinstance(worker, LocalWorkerHandle)
    # Until then it has the environment of the process that it is a copy of.
    await until(lambda: b"server.worker.main" in _of(worker, "cmdline"), "the worker's own program")
    return worker


def slots(gpus: Sequence[Gpu], count: int, costs: GpuCosts | None = None) -> GpuSlots:
    settings = Settings.model_validate({"gpu": {"slots": count}})
    return usual_slots(gpus, settings, costs or GpuCosts())


def test_the_gpu_with_most_free_slots_is_next():
    both = slots([gpu(0), gpu(1)], 2)
    seats = [both.take(job()) for _ in range(4)]
    assert [seat.gpu.index for seat in seats] == [0, 1, 0, 1]
    with pytest.raises(NoFreeSlot, match=r"every GPU is full: 2 × gpu.slots=2, 4 streams run on them"):
        both.take(job())
    seats[1].leave()
    seats[1].leave()
    assert both.take(job()).gpu == gpu(1)


def ready(width: int = 640, height: int = 360, **use: float) -> EngineLoad:
    measured = GpuUse(**{"frame_s": 0.004, "engine_bytes": 200 << 20, "lane_bytes": 100 << 20} | use)
    return EngineLoad(
        state="ready", model="m", width=width, height=height, elapsed_s=1.0, detail="", gpu=measured
    )


async def test_a_gpu_takes_as_many_streams_as_were_measured_to_fit_its_time(artifacts):
    placed = slots([gpu(0)], 0)
    assert placed.usage()[0].slots == 4, "nothing is known: each counts as a quarter"
    first = placed.take(job())
    first.hear(ready())
    assert placed.usage()[0].slots == 9, "4 ms of 25 frames a second is a tenth of it, and 0.9 may be used"
    seats = [first, *(placed.take(job(str(n))) for n in range(8))]
    full = r"on GPU 0 9 streams take 0\.90 of 0\.90 of its time, and this one 0\.10, "
    with pytest.raises(NoFreeSlot, match=full):
        placed.take(job("late"))
    seats[0].hear(opened(fps=50.0))
    assert placed.usage()[0].used == placed.usage()[0].slots == 9, "who takes more than it seemed stays"
    seats[1].leave()
    with pytest.raises(NoFreeSlot):
        placed.take(job("late"))
    await until(lambda: (artifacts / "gpu-costs.json").exists(), "it is kept")
    await until(lambda: slots([gpu(0)], 0).usage()[0].slots == 9, "for the next start")


async def test_a_gpu_takes_no_more_streams_than_its_memory_does(artifacts):
    small = replace(gpu(0), memory_bytes=4 << 30)
    placed = slots([small, gpu(1)], 0)
    placed.take(job("a")).hear(ready(frame_s=0.0004, engine_bytes=700 << 20, lane_bytes=500 << 20))
    # 0.8 of 4 GiB without CUDA's half: 2,764 MiB, for one engine of 700 and 4 times 500.
    assert [use.slots for use in placed.usage()] == [4, 36]
    other = job("b", model="awsrn-live-large-x2")
    seats = [placed.take(other) for _ in range(4)]
    assert {seat.gpu.index for seat in seats} == {0, 1}, "of a network that nobody has measured, by quarters"


async def test_a_stream_goes_where_least_of_the_gpu_is_taken(artifacts):
    placed = slots([gpu(0), gpu(1)], 0)
    placed.take(job("a", model="awsrn-live-large-x2")).hear(ready(frame_s=0.02))
    assert [placed.take(job(name)).gpu.index for name in "bcde"] == [1, 1, 1, 0]


async def test_what_a_worker_says_of_its_engine_reaches_the_slots(artifacts):
    placement = LocalPlacement(slots([gpu(0)], 0))
    worker = await start(placement)
    worker.on_facts(ready())
    assert placement.gpu_slots()[0].slots == 9
    await worker.stop(at_once=True)
    assert used(placement) == [0]


async def test_each_worker_sees_its_gpu_and_gives_the_slot_back_however_it_ends(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    placement = LocalPlacement(slots([gpu(0), gpu(1)], 2))
    workers = [await start(placement, name) for name in "abc"]
    assert [visible(worker) for worker in workers] == [gpu(0).uuid, gpu(1).uuid, gpu(0).uuid]
    assert used(placement) == [2, 1]
    await workers[0].stop()
    assert used(placement) == [1, 1], "asked to stop"
    await workers[0].stop(at_once=True)
    assert used(placement) == [1, 1], "stopped twice, given back once"
    os.kill(workers[1].pid, signal.SIGKILL)
    await until(
        lambda: used(placement) == [1, 0], "the slot of a worker that was killed, which nobody stopped"
    )
    workers[2].host.let_go()
    await until(lambda: used(placement) == [0, 0], "the slot of a worker that ended by itself")
    for worker in workers:
        await worker.stop()
    assert used(placement) == [0, 0]


async def test_streams_for_the_cpu_need_no_slot(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    placement = LocalPlacement(slots([gpu(0)], 1))
    workers = [await start(placement, "a")]
    for options in ({"backend": "openvino"}, {"backend": "reference"}, {"model": str(tmp_path)}):
        workers.append(await start(placement, "b", **options))
        assert visible(workers[-1]) is None
    assert used(placement) == [1]
    with pytest.raises(NoFreeSlot):
        await placement.start(job("c", backend="tensorrt"))
    await asyncio.gather(*(worker.stop(at_once=True) for worker in workers))


async def test_without_gpus_nothing_is_counted(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    placement = LocalPlacement()
    assert not placement.gpu_slots()
    worker = await start(placement)
    assert visible(worker) is None
    await worker.stop(at_once=True)


async def test_a_worker_that_cannot_be_started_takes_no_slot(monkeypatch):
    placement = LocalPlacement(slots([gpu(0)], 1))
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        await placement.start(job())
    assert used(placement) == [0]


async def test_a_stream_without_a_slot_waits_says_why_and_gets_the_next_one_that_is_free():
    placement = Recording(slots([gpu(0)], 1))
    async with gateway(placement, streams=(), defaults=FAST) as served:
        await served.http.post("/api/streams", json=SMALL | {"id": "first"})
        await until(lambda: len(placement.workers) == 1, "the first stream's worker")
        await served.http.post("/api/streams", json=SMALL | {"id": "second"})

        async def refused() -> str:
            return (await served.stream("second"))["reason"]

        assert (await until(refused, "the second stream has a reason")).startswith(
            "no worker could be started: every GPU is full: 1 × gpu.slots=1, 1 streams run on them; trying"
        )
        metrics = await served.metrics()
        assert metrics['livesr_gpu_slots{gpu="0"}'] == 1
        assert metrics['livesr_gpu_slots_used{gpu="0"}'] == 1
        assert metrics["livesr_free_streams"] == 0
        assert metrics['livesr_worker_restarts_total{stream="second"}'] == 0, "none died"
        await served.http.delete("/api/streams/first")
        await served.in_state("running", "second")
    assert used(placement) == [0]


async def test_a_worker_that_is_killed_comes_back_to_its_own_slot():
    placement = Recording(slots([gpu(0)], 1))
    async with gateway(placement, streams=(), defaults=FAST) as served:
        await served.http.post("/api/streams", json=SMALL)
        await served.in_state("running")
        os.kill(placement.workers[0].pid, signal.SIGKILL)
        await until(lambda: len(placement.workers) == 2, "another worker, at once")
        assert used(placement) == [1]
        await served.in_state("running")
