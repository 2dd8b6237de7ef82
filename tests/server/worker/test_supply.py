"""Engines that take long to load: the stream goes on, and switches to its engine without losing a picture."""

import contextlib
import gc
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from engine.errors import (
    BackendUnavailable,
    BuildFailed,
    BuildTimeout,
    DeviceFailed,
    EngineError,
    ModelNotFound,
    ParityError,
)
from engine.frame import Colour, YuvFrame
from engine.load import load_engine
from server.settings import DEFAULT_MODEL
from server.worker import engines
from server.worker.ingest.synthetic import SyntheticFormat, read_frame_number, synthetic_frame
from server.worker.process.bicubic import bicubic_engine
from server.worker.process.mailbox import Closed
from server.worker.process.picture import plane_view
from server.worker.process.pipeline import Pipeline
from server.worker.process.supply import StandIn
from tests.server.worker.small_engine import DoublingEngine, load_doubling
from tests.server.worker.test_pipeline import picture
from tests.server.worker.worker_process import JOB

LOG = logging.LoggerAdapter(logging.getLogger("test"), {})
TIMEOUT_S = 60.0


def double_bicubic(width: int, height: int, colour: Colour):
    return bicubic_engine(width, height, 2)


AT_ONCE = StandIn(load=double_bicubic, patience_s=0.0)
NEVER = StandIn(load=double_bicubic, patience_s=TIMEOUT_S)


class Loader:
    """Loads when it is let, each size by itself; `refuse` makes it fail in the end."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.refuse: dict[tuple[int, int], BaseException] = {}
        self._gates: dict[tuple[int, int], threading.Event] = {}
        self._begun = threading.Condition()

    def __call__(self, width: int, height: int, colour: Colour) -> DoublingEngine:
        with self._begun:
            self.asked.append((width, height))
            self._begun.notify_all()
        assert self.gate((width, height)).wait(TIMEOUT_S)
        if (width, height) in self.refuse:
            raise self.refuse[width, height]
        return DoublingEngine(width, height)

    def gate(self, size: tuple[int, int]) -> threading.Event:
        with self._begun:
            return self._gates.setdefault(size, threading.Event())

    def begun(self, count: int) -> None:
        with self._begun:
            assert self._begun.wait_for(lambda: len(self.asked) >= count, TIMEOUT_S), self.asked


class Stream:
    """A pipeline that is fed one picture at a time, as a test wants it."""

    def __init__(self, load, stand_in: StandIn | None, *, lanes: int = 3) -> None:
        self.out: list[tuple[int, str, tuple[int, int]]] = []
        self.drops: Counter[tuple[str, str]] = Counter()
        self._sent = 0
        self._came = threading.Condition()
        self._feed: Callable | None = None
        self._fed, self._end = threading.Event(), threading.Event()
        self.pipeline = Pipeline(
            produce=self._produce,
            load=load,
            lanes=lanes,
            consume=self._consume,
            on_drop=lambda stage, reason: self.drops.update([(stage, reason)]),
            log=LOG,
            stand_in=stand_in,
        )
        self.pipeline.start()
        assert self._fed.wait(TIMEOUT_S)

    def _produce(self, put) -> None:
        self._feed = put
        self._fed.set()
        self._end.wait(TIMEOUT_S)

    def _consume(self, upscaled) -> None:
        number = read_frame_number(plane_view(upscaled.frame, 0), 2)
        with self._came:
            size = (upscaled.frame.width, upscaled.frame.height)
            self.out.append((number, upscaled.spec.backend, size))
            self._came.notify_all()

    def send(self, count: int = 1, size: tuple[int, int] = (160, 96)) -> None:
        """Puts pictures in without waiting for any."""
        for _ in range(count):
            self._feed(picture(self._sent, *size))
            self._sent += 1

    def show(self, count: int, size: tuple[int, int] = (160, 96)) -> None:
        """Each picture follows when the one before is out."""
        for _ in range(count):
            self.send(1, size)
            self.arrived(len(self.out) + 1)

    def arrived(self, count: int) -> None:
        """Or the pipeline has ended, which tells nobody."""
        deadline = time.monotonic() + TIMEOUT_S
        with self._came:
            while not self._came.wait_for(lambda: len(self.out) >= count, 0.05) and self.pipeline.running:
                assert time.monotonic() < deadline, self.out

    def until(self, condition: Callable[[], bool], size: tuple[int, int] = (160, 96)) -> None:
        """Shows pictures until it is so."""
        for _ in range(10_000):
            if condition():
                return
            self.show(1, size)
        raise AssertionError(self.out[-3:])

    def finish(self) -> None:
        self._end.set()
        self.pipeline.join(TIMEOUT_S)
        assert not self.pipeline.running

    @property
    def backend(self) -> str:
        """What the last picture was upscaled by."""
        return self.out[-1][1]


class TorchEngine(DoublingEngine):
    """What PyTorch makes of the network while TensorRT builds."""

    alive: ClassVar[weakref.WeakSet["TorchEngine"]] = weakref.WeakSet()

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.spec = replace(self.spec, backend="cuda")
        self.alive.add(self)


class TorchLoader(Loader):
    def __call__(self, width: int, height: int, colour: Colour) -> DoublingEngine:
        super().__call__(width, height, colour)
        return TorchEngine(width, height)


def test_while_tensorrt_builds_the_network_runs_on_pytorch():
    """Bicubic for the seconds that PyTorch takes; then TensorRT, and PyTorch's memory is free again."""
    build, torch = Loader(), TorchLoader()
    stream = Stream(build, replace(AT_ONCE, better=torch))
    stream.show(3)
    assert {backend for _, backend, _ in stream.out} == {"bicubic"}
    torch.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "cuda")
    stream.show(5)
    assert stream.pipeline.load_status.state == "loading"
    build.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "test")
    stream.show(5)
    backends = [backend for _, backend, _ in stream.out]
    assert backends == sorted(backends, key=["bicubic", "cuda", "test"].index)
    gc.collect()
    assert not TorchEngine.alive
    stream.finish()
    assert len(torch.asked) == 1


@pytest.mark.parametrize("error", [BuildFailed("no kernel"), ParityError("31.0 dB")])
def test_what_tensorrt_cannot_build_runs_on_pytorch(error: Exception):
    build, torch = Loader(), TorchLoader()
    build.refuse[160, 96] = error
    build.gate((160, 96)).set()
    torch.gate((160, 96)).set()
    stream = Stream(build, replace(AT_ONCE, better=torch))
    stream.show(1)
    stream.until(lambda: stream.backend == "cuda")
    stream.show(5)
    assert stream.pipeline.load_status.state == "failed"
    assert {backend for _, backend, _ in stream.out[-5:]} == {"cuda"}
    stream.finish()


@pytest.mark.parametrize("error", [BackendUnavailable("no torch"), DeviceFailed("out of memory")])
def test_where_pytorch_cannot_stand_in_bicubic_goes_on(error: Exception, caplog: pytest.LogCaptureFixture):
    build, torch = Loader(), TorchLoader()
    torch.refuse[160, 96] = error
    torch.gate((160, 96)).set()
    stream = Stream(build, replace(AT_ONCE, better=torch))
    stream.show(1)
    stream.until(lambda: "nothing better stands in" in caplog.text)
    stream.show(5)
    assert {backend for _, backend, _ in stream.out} == {"bicubic"}
    build.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "test")
    stream.finish()
    assert len(torch.asked) == 1


def test_pytorch_stands_in_for_tensorrt_alone(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(engines, "load_engine", lambda model, **options: asked.append(options["backend"]))
    for backend, stands_in in {"tensorrt": True, "cuda": False, "openvino": False}.items():
        monkeypatch.setattr(engines, "choose", lambda *_, backend=backend: SimpleNamespace(backend=backend))
        load = engines.torch_loader(JOB, engines.engine_loader)
        assert (load is not None) == stands_in
        if load is not None:
            load(64, 48, Colour())
    assert asked == ["cuda"]


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


def test_bicubic_gives_what_the_network_gives_but_for_its_detail():
    width, height = 320, 180
    frame = synthetic_frame(7, SyntheticFormat(width=width, height=height))
    outputs = []
    engine = load_engine(DEFAULT_MODEL, width=width, height=height)
    for one in (bicubic_engine(width, height, engine.spec.scale), engine):
        lane = one.lane()
        lane.submit(frame)
        outputs.append(lane.wait())
    ours, network = outputs
    for plane, other in ((ours.y, network.y), (ours.u, network.u), (ours.v, network.v)):
        assert plane.shape == other.shape
        error = plane.astype(float) - other
        assert 10 * np.log10(255**2 / (error**2).mean()) > 25
    assert read_frame_number(ours.y, 2) == 7


@pytest.mark.parametrize("value", [0, 16, 128, 235, 255])
def test_bicubic_keeps_the_code_values_whatever_the_range(value):
    planes = [np.full(shape, value, np.uint8) for shape in ((18, 34), (9, 17), (9, 17))]
    lane = bicubic_engine(34, 18, 3).lane()
    lane.submit(YuvFrame(y=planes[0], u=planes[1], v=planes[2]))
    out = lane.wait()
    assert out.y.shape == (54, 102)
    for plane in (out.y, out.u, out.v):
        assert np.all(plane == value)


def test_bicubic_refuses_another_size():
    with pytest.raises(ValueError, match=r"must be \(96, 160\)"):
        bicubic_engine(160, 96, 2).lane().submit(synthetic_frame(0, SyntheticFormat(width=320, height=180)))
