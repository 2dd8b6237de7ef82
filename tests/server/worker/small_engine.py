"""A small engine for tests of the pipeline: samples doubled, each lane a thread, as slow as it is told."""

import threading
import time

import numpy as np

from engine.frame import Colour, EngineSpec, YuvFrame


class DoublingEngine:
    """Nearest neighbour ×2, so that tests can tell each frame by its number."""

    def __init__(self, width: int, height: int, seconds_per_frame: float = 0.0) -> None:
        self.spec = EngineSpec(
            model="doubling",
            backend="test",
            precision="float32",
            colour="y",
            scale=2,
            width=width,
            height=height,
            macs_per_frame=width * height,
            parity_db=None,
            checkpoint_sha256="0" * 64,
        )
        self.seconds_per_frame = seconds_per_frame
        self.busy = threading.Lock()

    def lane(self) -> "DoublingLane":
        return DoublingLane(self)


class DoublingLane:
    def __init__(self, engine: DoublingEngine) -> None:
        self._engine = engine
        self._thread: threading.Thread | None = None

    def submit(self, frame: YuvFrame) -> None:
        assert frame.y.shape == (self._engine.spec.height, self._engine.spec.width)
        frame = YuvFrame(y=frame.y.copy(), u=frame.u.copy(), v=frame.v.copy())
        self._thread = threading.Thread(target=self._run, args=(frame,))
        self._thread.start()

    def _run(self, frame: YuvFrame) -> None:
        with self._engine.busy:
            time.sleep(self._engine.seconds_per_frame)
        y, u, v = (np.ascontiguousarray(p.repeat(2, 0).repeat(2, 1)) for p in (frame.y, frame.u, frame.v))
        self._output = YuvFrame(y=y, u=u, v=v)

    def wait(self) -> YuvFrame:
        assert self._thread is not None
        self._thread.join()
        return self._output


def load_doubling(width: int, height: int, colour: Colour) -> DoublingEngine:
    return DoublingEngine(width, height)
