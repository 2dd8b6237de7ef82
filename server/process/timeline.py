"""From a source's timestamps to CLOCK_MONOTONIC: one anchor for picture and sound."""

import time

# A source that sends further ahead of or behind its own clock than this has jumped, or its clock drifts from
# ours: players would buffer or starve without end, so the anchor moves instead.
TOLERANCE_S = 1.0


class Timeline:
    """Keeps the source's own spacing and holds its timestamps to within a second of when they arrive."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self.anchors = 0  # how often the anchor was set

    def reset(self) -> None:
        """The source was opened anew: its timestamps have no relation to those before."""
        self._offset_s = None

    def at(self, timestamp_s: float | None, arrival_ns: int) -> float:
        """Monotonic seconds of presentation; a packet without a timestamp is presented as it arrives."""
        arrival_s = arrival_ns / 1e9
        if timestamp_s is None:
            return arrival_s
        if self._offset_s is None or abs(timestamp_s + self._offset_s - arrival_s) > TOLERANCE_S:
            self._offset_s = arrival_s - timestamp_s
            self.anchors += 1
        return timestamp_s + self._offset_s


def now_ns() -> int:
    """CLOCK_MONOTONIC, the clock of every timestamp and duration in a worker."""
    return time.monotonic_ns()
