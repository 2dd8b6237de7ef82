"""Who may step up to a larger network: one stream at a time, where the machine has room for it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

# What is to be left after a step: measured shares are never exact.
_SPARE_CORES = 0.2
# Of a level that was left before it could be measured, so it takes more than there was.
_UNKNOWN_CORES = 1.0
# As long as it takes until a step shows in what is measured.
_SETTLE_S = 2.0
# A step that was taken back is tried again after so long, each time twice as long.
_FIRST_PATIENCE_S, _LONGEST_PATIENCE_S = 10.0, 160.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A stream that is in time at a level below its best. `frame_cpu_s`: seconds by level, 0 unknown."""

    stream: str
    priority: int
    created: datetime
    level: int
    fps: float
    frame_cpu_s: tuple[float, ...]

    def further_cores(self, level: int) -> float:
        """What that level would take beside what the present one does."""
        if level >= len(self.frame_cpu_s) or not self.frame_cpu_s[level]:
            return _UNKNOWN_CORES
        return (self.frame_cpu_s[level] - self.frame_cpu_s[self.level]) * self.fps


@dataclass(frozen=True, slots=True)
class _Trial:
    """The last step up of a stream."""

    at_s: float
    patience_s: float


class Room:
    """Grants wishes, that of the highest priority first, then of the oldest stream."""

    def __init__(self, idle_cores: Callable[[], float]) -> None:
        """`idle_cores` since it was last called."""
        self._idle_cores = idle_cores
        self._trials: dict[str, _Trial] = {}
        self._settled_s = 0.0

    def grant(self, wishes: Iterable[Wish], now_s: float) -> tuple[str, int] | None:
        """A stream and the level that it may step up to; None where none may now. Called once a second."""
        left = self._idle_cores() - _SPARE_CORES
        self._trials = {
            stream: trial
            for stream, trial in self._trials.items()
            if now_s - trial.at_s < 2 * _LONGEST_PATIENCE_S
        }
        if now_s < self._settled_s:
            return None
        for wish in sorted(wishes, key=lambda wish: (-wish.priority, wish.created)):
            trial = self._trials.get(wish.stream)
            if trial is not None and now_s - trial.at_s < trial.patience_s:
                continue
            fitting = (level for level in range(wish.level) if wish.further_cores(level) <= left)
            level = next(fitting, None)
            if level is None:
                continue
            patience_s = _FIRST_PATIENCE_S
            if trial is not None and now_s - trial.at_s < 2 * trial.patience_s:
                patience_s = min(2 * trial.patience_s, _LONGEST_PATIENCE_S)
            self._trials[wish.stream] = _Trial(now_s, patience_s)
            self._settled_s = now_s + _SETTLE_S
            return wish.stream, level
        return None
