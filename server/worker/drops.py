"""Counts what a worker drops: all of it to the gateway, a line of it in the log now and then."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from server.wire.logs import Log
from server.wire.messages import Dropped, DropReason, Stage

# Under overload frames drop all the time, and a log of it twice a second is a log that nobody reads.
LOG_EVERY_S = 10.0


# Where, why, and whether it was sound.
_What = tuple[Stage, DropReason, bool]


class Drops:
    """`add` is for any thread, `take` for one."""

    def __init__(self, log: Log, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock_s = clock_s
        self._counts: Counter[_What] = Counter()
        self._lock = threading.Lock()
        self._unlogged: Counter[_What] = Counter()
        self._logged_s = float("-inf")

    def add(self, stage: Stage, reason: DropReason, *, sound: bool = False) -> None:
        """A frame; with `sound` a packet of it."""
        with self._lock:
            self._counts[stage, reason, sound] += 1

    def take(self) -> list[Dropped]:
        """What was dropped since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        self._unlogged += counts
        if self._unlogged and self._clock_s() - self._logged_s >= LOG_EVERY_S:
            self._say("frames dropped", sound=False)
            self._say("sound dropped", sound=True)
            self._unlogged.clear()
            self._logged_s = self._clock_s()
        return [
            Dropped(stage=stage, reason=reason, count=count, sound=sound)
            for (stage, reason, sound), count in counts.items()
        ]

    def _say(self, event: str, *, sound: bool) -> None:
        counts_by = {
            f"{stage} {reason}": count
            for (stage, reason, was_sound), count in self._unlogged.items()
            if was_sound == sound
        }
        if counts_by:
            self._log.warning(event, count=sum(counts_by.values()), by_stage_and_reason=counts_by)
