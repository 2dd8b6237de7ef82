"""Engines loaded ahead, for a connection that has no job yet, or no picture."""

import threading
from collections.abc import Callable

import numpy as np

from engine.errors import EngineError
from engine.frame import Colour, Engine, YuvFrame
from engine.load import load_engine
from engine.share import SharedEngine
from server.wire.logs import get_logger
from server.wire.messages import Prepare
from server.worker.engines import engine_key
from server.worker.shared import OnProgress, SharedEngines

log = get_logger(__name__)

# Streams of one model and size share one engine; each takes about as much memory as its stream's worker.
MOST_ENGINES = 4


class PreparedEngines:
    """Keeps shared engines that no stream uses yet, until its own has taken what it needs."""

    def __init__(self, shared: SharedEngines) -> None:
        self._shared = shared
        self._engines: dict[Prepare, Engine] = {}
        self._ahead: SharedEngine | None = None
        self._let_go = False

    def prepare(self, wanted: Prepare) -> None:
        """Compiles it and has it upscale some pictures; why it can't be, the job's own loading will say."""
        try:
            engine = self._shared.get(engine_key(wanted), lambda say: _load(wanted, say), lambda _: None)
            _warm_up(engine)
        except (EngineError, ValueError) as exc:
            log.warning("standby not prepared", model=wanted.model, reason=str(exc))
            return
        self._engines[wanted] = engine
        if len(self._engines) > MOST_ENGINES:
            del self._engines[next(iter(self._engines))]  # the oldest

    def begin(self, wanted: Prepare, load: Callable[[OnProgress], Engine]) -> None:
        """Loads it while the source is opened; the job's own loading waits for that, or says why it can't
        be."""
        if wanted not in self._engines:
            threading.Thread(target=self._begin, args=(wanted, load), name="ahead", daemon=True).start()

    def _begin(self, wanted: Prepare, load: Callable[[OnProgress], Engine]) -> None:
        try:
            ahead = self._shared.ahead(engine_key(wanted), load, lambda _: None)
        except Exception:  # the thread's boundary: the job's own loading meets it, too
            return
        if not self._let_go:
            self._ahead = ahead

    def let_go(self) -> None:
        """Leaves each engine to the streams that use it."""
        self._let_go, self._ahead = True, None
        self._engines.clear()


def _load(wanted: Prepare, on_progress: Callable[[str], None]) -> Engine:
    return load_engine(
        wanted.model,
        width=wanted.width,
        height=wanted.height,
        colour=Colour(matrix=wanted.matrix, full_range=wanted.full_range),
        backend=wanted.backend,
        threads=wanted.engine_threads,
        lanes=wanted.lanes,
        on_progress=on_progress,
    )


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
