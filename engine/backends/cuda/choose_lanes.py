"""How many frames in flight suit an engine on a GPU: measured, within a budget for a frame's latency."""

import logging
import time
from collections.abc import Callable, Sequence

from engine.frame import Engine
from engine.trials import BUDGET_S, Trial, noise_frame, run_trial

MOST = 4
# Fewer lanes win where more of them are no faster than this.
_NEARLY = 0.97
log = logging.getLogger(__name__)


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
