"""Workers that wait for a job, and signs of life."""

import pytest
from msgspec.structs import replace

from server.settings import DEFAULT_MODEL
from server.wire.messages import (
    Alive,
    EngineLoad,
    Heartbeat,
    JobImpossible,
    Opened,
    Prepare,
)

PREPARED = Prepare(
    model=DEFAULT_MODEL,
    backend=None,
    lanes=2,
    engine_threads=1,
    width=160,
    height=96,
    matrix="bt601",
    full_range=False,
)


ENGINELESS = "tests.server.worker.engineless_worker"


def test_a_standby_upscales_by_the_engine_that_it_has_prepared(start):
    others = replace(PREPARED, width=320), replace(PREPARED, model="no-such-model")
    worker = start(module=ENGINELESS, before=(*others, PREPARED)).until(lambda w: w.of(EngineLoad))
    worker.until(lambda w: len(w.video()) >= 5)
    assert worker.of(Opened)[-1].engine.model == DEFAULT_MODEL
    assert worker.of(EngineLoad)[-1].state == "ready"


@pytest.mark.parametrize("change", [{"width": 162}, {"engine_threads": 2}, {"matrix": "bt709"}])
def test_a_prepared_engine_of_another_kind_is_not_used(start, change):
    worker = start(module=ENGINELESS, before=(replace(PREPARED, **change),))
    worker.until(lambda w: w.of(JobImpossible))


def test_a_standby_learns_its_gpu_with_its_job(start):
    worker = start(module=ENGINELESS, gpu="GPU-7").until(lambda w: w.of(JobImpossible))
    assert "the GPU is GPU-7" in worker.of(JobImpossible)[0].reason


def test_a_running_worker_says_ten_times_a_second_that_it_lives(start):
    worker = start().until(lambda w: w.video())
    signs, beats = len(worker.of(Alive)), len(worker.of(Heartbeat))
    worker.until(lambda w: len(w.of(Heartbeat)) >= beats + 4)
    assert len(worker.of(Alive)) > signs + 2 * 4
    assert worker.of(Heartbeat)[-1].pid == worker.process.pid
