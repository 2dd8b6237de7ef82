"""Engines of one output size, the best first, loaded ahead: whoever steps between them waits for none."""

from collections.abc import Callable, Sequence

from server.wire.logs import Log
from server.worker.process.picture import Picture
from server.worker.process.supply import (
    EngineSupply,
    LoadedEngine,
    LoadEngine,
    LoadStatus,
    StandIn,
    logged,
)


class Ladder:
    """`engine_for` belongs to one thread."""

    def __init__(
        self,
        load: LoadEngine,
        lower: Sequence[LoadEngine],
        *,
        level: Callable[[], int],
        lanes: int,
        stand_in: StandIn | None,
        log: Log,
        on_other: Callable[[], None] = lambda: None,
    ) -> None:
        """`level` says at which one the next picture is upscaled, 0 being `load`'s own. `on_other` is called
        as pictures get another engine of that one: some have waited for it."""
        self._best = EngineSupply(load, lanes=lanes, stand_in=stand_in, log=log, on_other=on_other)
        self._lower = [
            EngineSupply(
                logged(smaller, log, "the ladder has a rung less"), lanes=lanes, stand_in=None, log=log
            )
            for smaller in lower
        ]
        self._level = level

    @property
    def waiting(self) -> bool:
        """Nothing can be upscaled now, for want of an engine."""
        return self._best.waiting

    @property
    def status(self) -> LoadStatus | None:
        """How far the best engine is; None before the first picture."""
        return self._best.status

    def engine_for(self, picture: Picture, alive: Callable[[], None]) -> tuple[LoadedEngine, int]:
        """The engine of the present level, or of the nearest below that is there, or else the best; and the
        level that it is of. Otherwise as `EngineSupply.engine_for`."""
        best = self._best.engine_for(picture, alive)
        wanted = self._level()
        for level, engine in enumerate(self._prepared(picture), 1):
            if engine is not None and 0 < wanted <= level:
                return engine, level
        return best, 0

    def forget(self) -> None:
        """Keeps no engine, nor those that are being loaded."""
        for supply in (self._best, *self._lower):
            supply.forget()

    def _prepared(self, picture: Picture) -> list[LoadedEngine | None]:
        """The lower engines as far as they are there. One is loaded after another, behind the best."""
        status = self._best.status
        engines: list[LoadedEngine | None] = [None] * len(self._lower)
        if status is None or status.state == "loading":
            return engines
        for index, supply in enumerate(self._lower):
            engines[index] = supply.prepare(picture)
            loading = supply.status
            if loading is not None and loading.state == "loading":
                break
        return engines
