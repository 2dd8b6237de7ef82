"""How many frames in flight suit an engine on a GPU: measured, within a budget for a frame's latency.

For more than a second the GPU has nothing else to do then: it is done once, when an engine is built.
"""

import logging
import time
from collections.abc import Callable, Sequence

from engine.errors import DeviceFailed
from engine.frame import DeviceFrame, YuvFrame
from engine.trials import BUDGET_S, DrivenLane, Trial, run_trial

MOST = 4
# Fewer lanes win where more of them are no faster than this.
_NEARLY = 0.97
log = logging.getLogger(__name__)


def try_lanes(
    make: Callable[[], DrivenLane],
    frame: YuvFrame | DeviceFrame,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Trial]:
    """1 to 4 lanes of those that `make` makes and a service will run, about a third of a second each; no more
    than there is memory for. Raises what a single lane raises."""
    lanes: list[DrivenLane] = []
    trials: list[Trial] = []
    while len(lanes) < MOST:
        try:
            lanes.append(make())
        except DeviceFailed as exc:
            if not trials:
                raise
            log.warning("%d lanes are not tried: %s", len(lanes) + 1, exc)
            break
        trials.append(run_trial(lanes, frame, clock=clock))
    return trials


def best(trials: Sequence[Trial], budget_s: float = BUDGET_S) -> Trial:
    """The fewest lanes within 3 % of the highest rate among those that keep the budget; where none does, the
    ones with the lowest latency."""
    fit = [trial for trial in trials if trial.p99_s <= budget_s]
    if not fit:
        return min(trials, key=lambda trial: trial.p99_s)
    highest = max(trial.frames_per_s for trial in fit)
    fast = [trial for trial in fit if trial.frames_per_s >= _NEARLY * highest]
    return min(fast, key=lambda trial: trial.lanes)
