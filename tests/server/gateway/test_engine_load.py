"""Engines that take long, never come, or lose their GPU: real workers, seen from a real gateway's API."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.settings import DEFAULT_MODEL
from tests.server.gateway.scripted_gateway import Gateway, Viewer, gateway, loopback, until  # noqa: F401
from tests.server.gateway.test_local import FAST, SMALL, Recording, alive
from tests.server.worker.gated_worker import GATE


class Gate:
    """The test's end of the FIFO: `open` returns once a worker wants to load its engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)

    async def open(self) -> None:
        self._file = await asyncio.to_thread(self._path.open, "w")

    def say(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def gate(tmp_path, monkeypatch) -> Gate:
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))
    return Gate(tmp_path / "gate")


@asynccontextmanager
async def streaming(patience_s: float) -> AsyncIterator[tuple[Gateway, Recording]]:
    """One stream whose engine loads through the gate."""
    placement = Recording(module="tests.server.worker.gated_worker")
    defaults = FAST | {"engine_patience_s": patience_s}
    async with gateway(placement, streams=(), defaults=defaults) as served:
        assert (await served.http.post("/api/streams", json=SMALL)).status_code == 201
        yield served, placement


async def upscaled_by(served: Gateway, backend: str) -> dict:
    async def there() -> dict | None:
        stream = await served.stream()
        return stream if stream["engine"] and stream["engine"]["backend"] == backend else None

    return await until(there, f"the stream is upscaled by {backend}")


async def load_in_state(served: Gateway, state: str, detail: str) -> dict:
    async def there() -> dict | None:
        stream = await served.stream()
        load = stream["engine_load"]
        return stream if load and (load["state"], load["detail"]) == (state, detail) else None

    return await until(there, f"its engine is {state}: {detail}")


SUPER_RESOLUTION = 'livesr_super_resolution{stream="demo"}'
FALLBACKS = 'livesr_engine_fallbacks_total{stream="demo"}'


async def test_a_stream_goes_on_by_bicubic_while_its_engine_is_built_and_then_switches(gate):
    async with streaming(patience_s=0.2) as (served, placement):
        await gate.open()
        gate.say("progress tuning kernels, 12 of 80")
        stream = await load_in_state(served, "loading", "tuning kernels, 12 of 80")
        stream = await upscaled_by(served, "bicubic")
        await served.in_state("running")
        assert stream["engine"]["super_resolution"] is False
        assert (stream["output"]["width"], stream["output"]["height"]) == (320, 240)
        load = stream["engine_load"]
        assert (load["model"], load["width"], load["height"]) == (DEFAULT_MODEL, 160, 120)
        metrics = await served.metrics()
        assert (metrics[SUPER_RESOLUTION], metrics[FALLBACKS]) == (0, 1)

        async def later() -> bool:
            return (await served.stream())["engine_load"]["elapsed_s"] > load["elapsed_s"]

        await until(later, "the build's time goes on, and with it the worker's heartbeats")
        async with Viewer(served, audio=False) as viewer:
            await viewer.sees(5)
            gate.say("load")
            stream = await upscaled_by(served, "openvino")
            await viewer.sees(len(viewer.frames[0]) + 5)
            pts = [frame.pts for frame in viewer.frames[0]]
            assert pts == sorted(set(pts))
            assert viewer.pc.connectionState == "connected"
        assert stream["engine"]["super_resolution"] is True
        await load_in_state(served, "ready", "")
        metrics = await served.metrics()
        assert (metrics[SUPER_RESOLUTION], metrics[FALLBACKS]) == (1, 1)
        assert metrics['livesr_worker_restarts_total{stream="demo"}'] == 0
        assert len(placement.workers) == 1
        gate.close()


async def test_a_build_that_fails_leaves_the_stream_on_bicubic_and_says_why(gate):
    async with streaming(patience_s=60.0) as (served, placement):
        await gate.open()
        gate.say("build-failed TensorRT found no kernel for node 7")
        stream = await upscaled_by(served, "bicubic")
        stream = await load_in_state(served, "failed", "TensorRT found no kernel for node 7")
        await served.in_state("running")
        assert stream["engine"]["super_resolution"] is False
        assert (await served.metrics())[SUPER_RESOLUTION] == 0
        assert len(placement.workers) == 1
        gate.close()


async def test_a_device_lost_in_the_middle_costs_a_worker_and_the_viewer_stays(gate):
    sentence = "the GPU failed while it computed a frame: unspecified launch failure"
    async with streaming(patience_s=60.0) as (served, placement):
        await gate.open()
        gate.say(f"load-and-fail {sentence}")
        await served.in_state("running")
        async with Viewer(served, audio=False) as viewer:
            await until(lambda: len(placement.workers) == 2, "another worker")
            gate.close()
            await gate.open()
            assert (await served.stream())["reason"] == f"{sentence}; a new one starts"
            seen = len(viewer.frames[0])
            gate.say("load")
            await viewer.sees(seen + 5)
            assert viewer.pc.connectionState == "connected"
        gate.close()


async def test_a_device_that_fails_costs_the_worker_and_its_sentence_reaches_the_api(gate):
    sentence = "the GPU is out of memory while a lane was made"
    async with streaming(patience_s=60.0) as (served, placement):
        await gate.open()
        gate.say(f"device-failed {sentence}")
        await until(lambda: len(placement.workers) == 2, "another worker")
        gate.close()
        await gate.open()
        stream = await served.stream()
        assert (stream["state"], stream["reason"]) == ("starting", f"{sentence}; a new one starts")
        assert stream["worker"]["restarts"] == 1
        ended = ("the worker was ended by SIGKILL", "the worker ended with status 0")  # whichever is first
        assert await placement.workers[0].stop() in ended
        gate.say("load")
        assert (await served.in_state("running"))["reason"] == ""
        gate.close()


async def test_deleting_a_stream_does_not_wait_for_its_build(gate):
    async with streaming(patience_s=0.2) as (served, placement):
        await gate.open()
        await upscaled_by(served, "bicubic")
        assert (await served.http.delete("/api/streams/demo")).status_code == 204
        assert not alive(placement.workers[0].pid)
        assert await placement.workers[0].stop() == "the worker ended with status 0", "it was not killed"
        gate.close()


async def test_a_worker_killed_in_the_middle_of_a_build_is_replaced(gate):
    async with streaming(patience_s=0.2) as (served, placement):
        await gate.open()
        await upscaled_by(served, "bicubic")
        os.kill(placement.workers[0].pid, signal.SIGKILL)
        await until(lambda: len(placement.workers) == 2, "another worker")
        gate.close()
        await gate.open()
        gate.say("load")
        await upscaled_by(served, "openvino")
        gate.close()
