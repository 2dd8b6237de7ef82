"""A worker whose engine loads as a test says: line by line over the FIFO that LIVESR_TEST_GATE names."""

import os

from engine.errors import BuildFailed, DeviceFailed
from engine.frame import Colour, Engine, Lane, YuvFrame
from server.worker import main as worker

GATE = "LIVESR_TEST_GATE"
FRAMES_BEFORE_FAILURE = 10


class FailingEngine:
    """A real engine whose device is lost after some frames."""

    def __init__(self, engine: Engine, sentence: str) -> None:
        self.spec = engine.spec
        self.sentence = sentence
        self.frames = 0
        self._engine = engine

    def lane(self) -> "FailingLane":
        return FailingLane(self, self._engine.lane())


class FailingLane:
    def __init__(self, engine: FailingEngine, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane

    def submit(self, frame: YuvFrame) -> None:
        self._lane.submit(frame)

    def wait(self) -> YuvFrame:
        self._engine.frames += 1
        if self._engine.frames > FRAMES_BEFORE_FAILURE:
            raise DeviceFailed(self._engine.sentence)
        return self._lane.wait()


def gated(job, on_progress):
    load = worker.engine_loader(job, on_progress)

    def told(width: int, height: int, colour: Colour) -> Engine:
        with open(os.environ[GATE]) as gate:
            for line in gate:
                word, _, text = line.strip().partition(" ")
                match word:
                    case "progress":
                        on_progress(text)
                    case "load":
                        return load(width, height, colour)
                    case "build-failed":
                        raise BuildFailed(text)
                    case "device-failed":
                        raise DeviceFailed(text)
                    case "load-and-fail":
                        return FailingEngine(load(width, height, colour), text)
        raise AssertionError("the test let go of the gate")

    return told


if __name__ == "__main__":
    worker.main(gated)
