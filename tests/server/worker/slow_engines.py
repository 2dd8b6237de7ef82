"""A pipeline fed one picture at a time, and engines that load when they are let."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from engine.frame import Colour
from server.wire.logs import get_logger
from server.worker.ingest.synthetic import read_frame_number
from server.worker.process.bicubic import bicubic_engine
from server.worker.process.picture import plane_view
from server.worker.process.pipeline import Pipeline
from server.worker.process.supply import StandIn
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.test_pipeline import picture

LOG = get_logger("test")
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
        self.engines = 0  # that pictures have got, one after another
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
            on_other_engine=self._on_other,
        )
        self.pipeline.start()
        assert self._fed.wait(TIMEOUT_S)

    def _produce(self, put) -> None:
        self._feed = put
        self._fed.set()
        self._end.wait(TIMEOUT_S)

    def _on_other(self) -> None:
        self.engines += 1

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
