"""Engines compiled ahead, by a worker that has no job yet."""

import logging

import numpy as np

from engine.errors import EngineError
from engine.frame import Colour, Engine, YuvFrame
from engine.load import load_engine
from server.wire.messages import Prepare, WorkerJob

log = logging.getLogger(__name__)

# Streams of one model and size share one engine; each takes about as much memory as its stream's worker.
MOST_ENGINES = 4


class PreparedEngines:
    """`prepare` belongs to who waits for a job, `take` to the one that loads engines for it."""

    def __init__(self) -> None:
        self._engines: dict[Prepare, Engine] = {}

    def prepare(self, wanted: Prepare) -> None:
        """Compiles it and has it upscale some pictures; why it can't be, the job's own loading will say."""
        try:
            engine = load_engine(
                wanted.model,
                width=wanted.width,
                height=wanted.height,
                colour=Colour(matrix=wanted.matrix, full_range=wanted.full_range),
                backend=wanted.backend,
                threads=wanted.engine_threads,
                lanes=wanted.lanes,
            )
            _warm_up(engine)
        except (EngineError, ValueError) as exc:
            log.warning("a standby can't prepare %s: %s", wanted.model, exc)
            return
        self._engines[wanted] = engine
        if len(self._engines) > MOST_ENGINES:
            del self._engines[next(iter(self._engines))]  # the oldest

    def take(self, job: WorkerJob, width: int, height: int, colour: Colour) -> Engine | None:
        """The job's engine for these planes, once; whatever else was prepared goes."""
        wanted = job.engine(width=width, height=height, matrix=colour.matrix, full_range=colour.full_range)
        engine = self._engines.get(wanted)
        self._engines.clear()
        return engine


def _warm_up(engine: Engine) -> None:
    """The first picture of each lane takes longer than the others."""
    height, width = engine.spec.height, engine.spec.width
    half = np.zeros((height // 2, width // 2), np.uint8)
    picture = YuvFrame(y=np.zeros((height, width), np.uint8), u=half, v=half)
    lanes = [engine.lane() for _ in range(engine.spec.lanes)]
    for lane in lanes:
        lane.submit(picture)
    for lane in lanes:
        lane.wait()
