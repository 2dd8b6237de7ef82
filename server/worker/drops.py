"""Counts a worker's dropped frames: all of them to the gateway, a line of them in the log now and then."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from server.wire.logs import Log
from server.wire.messages import Dropped, DropReason, Stage

# Under overload frames drop all the time, and a log of it twice a second is a log that nobody reads.
LOG_EVERY_S = 10.0


class Drops:
    """`add` is for any thread, `take` for one."""

    def __init__(self, log: Log, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock_s = clock_s
        self._counts: Counter[tuple[Stage, DropReason]] = Counter()
        self._lock = threading.Lock()
        self._unlogged: Counter[tuple[Stage, DropReason]] = Counter()
        self._logged_s = float("-inf")

    def add(self, stage: Stage, reason: DropReason) -> None:
        with self._lock:
            self._counts[stage, reason] += 1

    def take(self) -> list[Dropped]:
        """What was dropped since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        self._unlogged += counts
        if self._unlogged and self._clock_s() - self._logged_s >= LOG_EVERY_S:
            counts_by = {f"{stage} {reason}": count for (stage, reason), count in self._unlogged.items()}
            self._log.warning("frames dropped", count=self._unlogged.total(), by_stage_and_reason=counts_by)
            self._unlogged.clear()
            self._logged_s = self._clock_s()
        return [Dropped(stage=stage, reason=reason, count=count) for (stage, reason), count in counts.items()]
