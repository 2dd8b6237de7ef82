"""A worker whose engine loads as a test says: line by line over the FIFO that LIVESR_TEST_GATE names."""

import os

from engine.errors import BuildFailed, DeviceFailed
from engine.frame import Colour, Engine
from server import worker

GATE = "LIVESR_TEST_GATE"


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
        raise AssertionError("the test let go of the gate")

    return told


if __name__ == "__main__":
    worker.main(gated)
