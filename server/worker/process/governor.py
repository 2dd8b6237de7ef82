"""Which network of a ladder upscales the next picture: a smaller one where the larger comes too late."""

import threading
import time
from collections import deque
from collections.abc import Callable

from server.wire.budget import usual_budget_s

_WINDOW_S = 1.0
_LATE_SHARE = 0.05
# What was on its way at a step is as late as what came before it.
_SETTLE_S = 0.5
# An opened source sends what it has kept, at once; who begins to watch meets an engine that has slept; and
# pictures that have waited for an engine are late.
_REST_S = 2.0
# As long as every frame is in time there may be room for more.
_STEADY_S = 3.0
MOST_STEPS, STEPS_WITHIN_S = 2, 10.0


class Governor:
    """Steps down by itself when too many frames of the last second were late or dropped: to the next level,
    and if that doesn't help to the last. Up it steps when it is told to: only the gateway sees what else the
    machine has to do. At most two steps in ten seconds. For any thread."""

    def __init__(
        self,
        *,
        levels: int,
        level: int = 0,
        budget_s: float = 0.0,
        on_step: Callable[[int, str], None] = lambda level, reason: None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Levels count from 0, the best; `level` is where it starts. `budget_s`: 0 is the usual one."""
        if not 0 <= level < levels:
            raise ValueError(f"{level = } must be below {levels = }")
        self.level = level
        self._last = levels - 1
        self._budget_s = budget_s
        self._on_step = on_step
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, bool]] = deque()  # when, and whether late
        self._steps: deque[float] = deque(maxlen=MOST_STEPS)
        self._deaf_until_s = clock_s() + _REST_S
        self._steady_since_s = self._deaf_until_s

    def frame(self, level: int, latency_s: float, interval_s: float) -> None:
        """A frame that this level has upscaled is done, so long after it arrived."""
        budget_s = self._budget_s or usual_budget_s(interval_s)
        if level == self.level:
            self._add(
                latency_s > budget_s,
                _WINDOW_S / interval_s,
                f"frames took {latency_s * 1e3:.0f} ms, above the budget of {budget_s * 1e3:.0f} ms",
            )

    def dropped(self) -> None:
        """A picture was dropped because upscaling or encoding it would have come too late."""
        self._add(True, 1.0, "frames were dropped")

    def rest(self) -> None:
        """What comes now says nothing about the machine."""
        with self._lock:
            self._rest(_REST_S)

    def step_up(self, to: int) -> None:
        """There is room for that level, somebody says."""
        with self._lock:
            if not to < self.level or not self._may_step_up():
                return
            self._step(to)
        self._on_step(to, "there is room again")

    @property
    def steady(self) -> bool:
        """Below the best level, in time for long enough, and free to step."""
        with self._lock:
            return (
                self.level > 0 and self._clock_s() - self._steady_since_s >= _STEADY_S and self._may_step_up()
            )

    def _add(self, late: bool, usual_frames: float, reason: str) -> None:
        with self._lock:
            now_s = self._clock_s()
            if now_s < self._deaf_until_s:
                return
            self._frames.append((now_s, late))
            while self._frames[0][0] <= now_s - _WINDOW_S:
                self._frames.popleft()
            if not late:
                return
            self._steady_since_s = now_s
            count = sum(was_late for _, was_late in self._frames)
            # Of a whole second's frames, however few have come yet.
            if count <= _LATE_SHARE * max(usual_frames, len(self._frames)):
                return
            if self.level == self._last or not self._may_step():
                return
            again = self._steps and now_s - self._steps[-1] < STEPS_WITHIN_S
            self._step(self._last if again else self.level + 1)
            level = self.level
        self._on_step(level, reason)

    def _may_step(self) -> bool:
        return len(self._steps) < MOST_STEPS or self._clock_s() - self._steps[0] >= STEPS_WITHIN_S

    def _may_step_up(self) -> bool:
        """So that a step down, if it was the wrong time, is allowed at once."""
        return not self._steps or self._clock_s() - self._steps[-1] >= STEPS_WITHIN_S

    def _step(self, to: int) -> None:
        self.level = to
        self._steps.append(self._clock_s())
        self._rest(_SETTLE_S)

    def _rest(self, rest_s: float) -> None:
        self._frames.clear()
        self._deaf_until_s = self._steady_since_s = self._clock_s() + rest_s
