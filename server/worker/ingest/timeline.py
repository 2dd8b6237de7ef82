"""From a source's timestamps to CLOCK_MONOTONIC: one anchor for picture and sound."""

# A source that sends further ahead of or behind its own clock than this has jumped, or its clock drifts from
# ours: players would buffer or starve without end, so the anchor moves instead.
TOLERANCE_S = 1.0
# What libav read to find the tracks, and what a server keeps for joiners, comes in one burst at the start. It
# is older than it looks; once it is over, the anchor is where the source is live.
_BURST_S, _BURST_TOLERANCE_S = 1.0, 0.2


class Timeline:
    """Keeps the source's own spacing and holds its timestamps to within a second of when they arrive."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._start_s = 0.0  # arrival of the first packet

    def reset(self) -> None:
        """The source was opened anew: its timestamps have no relation to those before."""
        self._offset_s = None

    def at(self, timestamp_s: float | None, arrival_ns: int) -> float:
        """Monotonic seconds of presentation; a packet without a timestamp is presented as it arrives."""
        arrival_s = arrival_ns / 1e9
        if timestamp_s is None:
            return arrival_s
        if self._offset_s is None:
            self._start_s = arrival_s
            self._offset_s = arrival_s - timestamp_s
        ahead_s = timestamp_s + self._offset_s - arrival_s
        bursting = arrival_s - self._start_s < _BURST_S
        if ahead_s > (_BURST_TOLERANCE_S if bursting else TOLERANCE_S) or ahead_s < -TOLERANCE_S:
            self._offset_s = arrival_s - timestamp_s
        return timestamp_s + self._offset_s
