"""Engines that take long to load: the stream goes on, and switches to its engine without losing a picture."""

import contextlib
import threading
from dataclasses import replace
from itertools import groupby

import pytest

from engine.errors import (
    BuildFailed,
    BuildTimeout,
    EngineError,
    ModelNotFound,
    ParityError,
)
from server.worker.process.mailbox import Closed
from server.worker.process.pipeline import Pipeline
from server.worker.process.supply import StandIn
from tests.server.worker.slow_engines import AT_ONCE, LOG, NEVER, TIMEOUT_S, Loader, Stream
from tests.server.worker.small_engine import DoublingEngine, load_doubling
from tests.server.worker.test_pipeline import picture


def test_a_slow_engine_is_stood_in_for_and_takes_over_in_order():
    load = Loader()
    stream = Stream(load, AT_ONCE)
    stream.show(5)
    assert {backend for _, backend, _ in stream.out} == {"bicubic"}
    assert stream.pipeline.load_status.state == "loading"
    load.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "test")
    stream.show(3)
    assert stream.pipeline.load_status.state == "ready"
    stream.finish()
    backends = [backend for _, backend, _ in stream.out]
    assert backends == sorted(backends), "bicubic, then the engine, and never back"
    assert [number for number, _, _ in stream.out] == list(range(len(stream.out)))
    assert {size for _, _, size in stream.out} == {(320, 192)}, "one size: the encoder goes on"
    assert not stream.drops


def test_frames_in_flight_in_the_stand_in_come_out_before_the_engines():
    """The stand-in holds its frames back until pictures are in the engine's lanes already."""
    let_go, holds, load = threading.Event(), threading.Event(), Loader()

    class Held(DoublingEngine):
        def __init__(self, width: int, height: int) -> None:
            super().__init__(width, height)
            self.spec = replace(self.spec, backend="held")

        def lane(self):
            lane = super().lane()
            submit, wait = lane.submit, lane.wait
            lane.submit = lambda frame: (submit(frame), holds.set())[0]
            lane.wait = lambda: (let_go.wait(TIMEOUT_S), wait())[1]
            return lane

    class Seen(DoublingEngine):
        def lane(self):
            lane = super().lane()
            submit = lane.submit
            lane.submit = lambda frame: (submit(frame), submitted.set())[0]
            return lane

    submitted = threading.Event()
    stream = Stream(
        lambda *wanted: (load(*wanted), Seen(*wanted[:2]))[1],
        StandIn(load=lambda width, height, _: Held(width, height), patience_s=0.0),
    )
    stream.send(1)
    assert holds.wait(TIMEOUT_S)
    load.gate((160, 96)).set()
    while not submitted.is_set():
        stream.send(1)
        submitted.wait(0.01)
    let_go.set()
    stream.finish()
    numbers = [number for number, _, _ in stream.out]
    assert numbers == sorted(numbers)
    assert len(numbers) + sum(stream.drops.values()) == stream._sent
    assert stream.out[0][:2] == (0, "held")
    assert stream.backend == "test"


def test_an_engine_that_comes_in_time_is_the_only_one_seen():
    stream = Stream(load_doubling, NEVER)
    stream.show(3)
    stream.finish()
    assert {backend for _, backend, _ in stream.out} == {"test"}


def test_without_a_stand_in_every_picture_waits_for_the_engine():
    load, out = Loader(), []

    def produce(put):
        for number in range(10):
            put(picture(number))

    pipeline = Pipeline(produce=produce, load=load, lanes=2, consume=out.append, on_drop=None, log=LOG)
    pipeline.start()
    load.begun(1)
    assert pipeline.running
    load.gate((160, 96)).set()
    pipeline.join(TIMEOUT_S)
    assert [upscaled.spec.backend for upscaled in out] == ["test"] * 10


def test_another_size_goes_the_same_way():
    load = Loader()
    load.gate((160, 96)).set()
    stream = Stream(load, AT_ONCE)
    stream.until(lambda: bool(stream.out) and stream.backend == "test")
    stream.show(3, (200, 120))
    assert stream.out[-1][1:] == ("bicubic", (400, 240))
    status = stream.pipeline.load_status
    assert (status.state, status.width, status.height) == ("loading", 200, 120)
    load.gate((200, 120)).set()
    stream.until(lambda: stream.backend == "test", (200, 120))
    stream.finish()
    assert stream.engines == len(list(groupby(stream.out, key=lambda shown: shown[1:]))) >= 3
    assert [number for number, _, _ in stream.out] == list(range(len(stream.out)))


def test_one_build_at_a_time_and_the_newest_size_goes_first():
    """A source that flaps between sizes must not start a build for each flap."""
    load = Loader()
    stream = Stream(load, AT_ONCE)
    stream.show(1, (160, 96))
    load.begun(1)
    for size in ((200, 120), (240, 120), (320, 180)):
        stream.show(1, size)
    assert load.asked == [(160, 96)]
    for size in ((160, 96), (320, 180)):
        load.gate(size).set()
    stream.until(lambda: stream.backend == "test", (320, 180))
    stream.finish()
    assert load.asked == [(160, 96), (320, 180)]


def test_back_to_a_size_whose_build_still_runs_takes_that_build():
    load = Loader()
    stream = Stream(load, AT_ONCE)
    stream.show(1, (160, 96))
    load.begun(1)
    stream.show(1, (200, 120))
    stream.show(1, (160, 96))
    load.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "test")
    stream.finish()
    assert load.asked == [(160, 96)]


@pytest.mark.parametrize(
    "error",
    [
        BuildFailed("TensorRT: no kernel"),
        BuildTimeout("took over 900 s"),
        ParityError("37 dB from the reference, must be at least 50 dB"),
    ],
)
@pytest.mark.parametrize("stand_in", [AT_ONCE, NEVER], ids=["late", "early"])
def test_a_build_that_fails_leaves_the_stream_on_bicubic_with_the_reason(error, stand_in, caplog):
    load = Loader()
    load.refuse[160, 96] = error
    stream = Stream(load, stand_in)
    if stand_in is AT_ONCE:
        stream.show(3)
    load.gate((160, 96)).set()
    stream.show(1)
    stream.until(lambda: stream.pipeline.load_status.state == "failed")
    assert stream.pipeline.load_status.reason == str(error)
    stream.show(5)
    assert {backend for _, backend, _ in stream.out} == {"bicubic"}
    stream.finish()
    assert [number for number, _, _ in stream.out] == list(range(len(stream.out)))
    assert [r.levelname for r in caplog.records if str(error) in r.getMessage()] == ["ERROR"]
    assert load.asked == [(160, 96)], "a build that failed isn't tried again and again"


@pytest.mark.parametrize("error", [ModelNotFound("no such model"), EngineError("bad"), RuntimeError("a bug")])
@pytest.mark.parametrize("stand_in", [AT_ONCE, NEVER, None], ids=["late", "early", "none"])
def test_any_other_failure_ends_the_stream(error, stand_in):
    load = Loader()
    load.refuse[160, 96] = error
    stream = Stream(load, stand_in)
    if stand_in is AT_ONCE:
        stream.show(2)
    load.gate((160, 96)).set()
    with contextlib.suppress(Closed):
        while True:  # the next picture meets it
            stream.show(1)
    with pytest.raises(type(error), match=str(error)):
        stream.finish()


def test_without_a_stand_in_a_failed_build_ends_it():
    load = Loader()
    load.refuse[160, 96] = BuildFailed("TensorRT: no kernel")
    load.gate((160, 96)).set()
    stream = Stream(load, None)
    stream.show(1)
    with pytest.raises(BuildFailed, match="no kernel"):
        stream.finish()


@pytest.mark.parametrize("stand_in", [AT_ONCE, NEVER, None], ids=["late", "early", "none"])
def test_the_end_does_not_wait_for_a_build(stand_in):
    load = Loader()
    stream = Stream(load, stand_in)
    stream.send(1)
    load.begun(1)
    stream.pipeline.abort()
    stream.finish()  # though the build goes on
    load.gate((160, 96)).set()
