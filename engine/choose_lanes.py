"""How many frames in flight suit an engine on a GPU: measured, within a budget for a frame's latency."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.frame import Engine, Lane, YuvFrame

log = logging.getLogger(__name__)

MOST = 4
# A frame of a 30 fps stream: one that takes longer makes the next ones wait.
BUDGET_S = 1 / 30
# Fewer lanes win where more of them are no faster than this.
_NEARLY = 0.97
_TRIAL_S = 0.3
_LEAST_FRAMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An engine driven as fast as it goes. Latency: from `submit` to the end of `wait`."""

    lanes: int
    frames_per_s: float
    p50_s: float
    p99_s: float


def choose_lanes(
    engine: Engine, budget_s: float = BUDGET_S, *, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Tries 1 to 4 lanes, about a third of a second each. Raises what the lanes raise."""
    lanes, frame = [engine.lane() for _ in range(MOST)], noise_frame(engine)
    trials = [run_trial(lanes[:count], frame, clock=clock) for count in range(1, MOST + 1)]
    chosen = best(trials, budget_s)
    log.info(
        "%d of %d lanes: %.1f frames/s, p99 %.1f ms with a budget of %.1f ms",
        *(chosen.lanes, MOST, chosen.frames_per_s, 1e3 * chosen.p99_s, 1e3 * budget_s),
    )
    return chosen.lanes


def best(trials: Sequence[Trial], budget_s: float) -> Trial:
    """The fewest lanes within 3 % of the highest rate among those that keep the budget; where none does, the
    ones with the lowest latency."""
    fit = [trial for trial in trials if trial.p99_s <= budget_s]
    if not fit:
        return min(trials, key=lambda trial: trial.p99_s)
    highest = max(trial.frames_per_s for trial in fit)
    fast = [trial for trial in fit if trial.frames_per_s >= _NEARLY * highest]
    return min(fast, key=lambda trial: trial.lanes)


def run_trial(
    lanes: Sequence[Lane],
    frame: YuvFrame,
    *,
    seconds: float = _TRIAL_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """The lanes in turns, all in flight. The first round, which starts all at once, does not count."""
    flying: deque[tuple[Lane, float]] = deque()

    def submit(lane: Lane) -> None:
        flying.append((lane, clock()))
        lane.submit(frame)

    def turn() -> float:
        lane, submitted = flying.popleft()
        lane.wait()
        latency = clock() - submitted
        submit(lane)
        return latency

    for lane in lanes:
        submit(lane)
    for _ in lanes:
        turn()
    latencies: list[float] = []
    start = clock()
    while clock() < start + seconds or len(latencies) < _LEAST_FRAMES:
        latencies.append(turn())
    elapsed = clock() - start
    for lane, _ in flying:
        lane.wait()
    return Trial(
        lanes=len(lanes),
        frames_per_s=len(latencies) / elapsed,
        p50_s=percentile(latencies, 50),
        p99_s=percentile(latencies, 99),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of them that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def noise_frame(engine: Engine) -> YuvFrame:
    rng = np.random.default_rng(0)
    height, width = engine.spec.height, engine.spec.width
    shapes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    y, u, v = (rng.integers(16, 236, shape, np.uint8) for shape in shapes)
    return YuvFrame(y=y, u=u, v=v)
