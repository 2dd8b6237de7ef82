"""From a source's timestamps to CLOCK_MONOTONIC: one anchor for picture and sound, a lead for each."""

from dataclasses import dataclass
from typing import Literal

Track = Literal["picture", "sound"]

# A track that arrives so much earlier or later than it used to has jumped: players would buffer or starve
# without end, so the anchor moves.
TOLERANCE_S = 1.0
# Picture and sound of one moment may be sent apart: broadcasts send the picture one or two seconds before its
# sound. Further apart, they are on clocks that have nothing to do with each other.
LARGEST_LEAD_S = 5.0
# What libav read to find the tracks, and what a server keeps for joiners, comes in one burst at the start. It
# is older than it looks; once it is over, the anchor is where the source is live.
_BURST_S, _BURST_TOLERANCE_S = 1.0, 0.2
# A clock that drifts from ours is followed by stretching time, too little to be seen or heard. What wanders
# less is the network's jitter.
_JITTER_S, _SMOOTHING_S, _GAIN_PER_S, _MOST_STRETCH = 0.05, 10.0, 0.01, 0.005


@dataclass(slots=True)
class _Anchor:
    """Where on our clock the source's zero lies."""

    offset_s: float
    seen_s: float  # arrival of the last packet
    error_s: float = 0.0  # how much earlier packets arrive than they used to, smoothed

    def follow(self, early_s: float, arrival_s: float) -> None:
        passed_s = min(max(arrival_s - self.seen_s, 0.0), 1.0)
        self.seen_s = arrival_s
        self.error_s += (early_s - self.error_s) * passed_s / _SMOOTHING_S
        beyond_s = max(abs(self.error_s) - _JITTER_S, 0.0)
        stretch = min(beyond_s * _GAIN_PER_S, _MOST_STRETCH)
        self.offset_s -= stretch * passed_s if self.error_s > 0 else -stretch * passed_s


@dataclass(slots=True)
class _Place:
    """A track's place: its anchor, and how far ahead of its arrival it is presented."""

    anchor: _Anchor
    lead_s: float


class Timeline:
    """Keeps the source's own spacing, and picture and sound together; holds each track's timestamps to within
    a second of where they were when they arrived at first.

    After a jump of the source's clock its tracks pass one by one to the new anchor, each as it jumps.
    """

    def __init__(self) -> None:
        self._start_s = 0.0  # arrival of the first packet
        self._newest: _Anchor | None = None
        self._places: dict[Track, _Place] = {}

    def reset(self) -> None:
        """The source was opened anew: its timestamps have no relation to those before."""
        self._newest = None
        self._places.clear()

    def at(self, track: Track, timestamp_s: float | None, arrival_ns: int) -> float:
        """Monotonic seconds of presentation; a packet without a timestamp is presented as it arrives."""
        arrival_s = arrival_ns / 1e9
        if timestamp_s is None:
            return arrival_s
        if self._newest is None:
            self._start_s = arrival_s
            self._newest = _Anchor(arrival_s - timestamp_s, arrival_s)
        place = self._place(track, timestamp_s, arrival_s)
        return timestamp_s + place.anchor.offset_s

    def _place(self, track: Track, timestamp_s: float, arrival_s: float) -> _Place:
        assert self._newest is not None
        bursting = arrival_s - self._start_s < _BURST_S
        place = self._places.get(track)
        if place is None or bursting:
            anchor = place.anchor if place else self._newest
            ahead_s = timestamp_s + anchor.offset_s - arrival_s
            if bursting and _BURST_TOLERANCE_S < ahead_s <= LARGEST_LEAD_S:
                anchor.offset_s -= ahead_s  # for all tracks: the one that is ahead of the others is live
                ahead_s = 0.0
            if abs(ahead_s) <= LARGEST_LEAD_S:
                place = self._places[track] = _Place(anchor, ahead_s)
            else:
                place = self._places[track] = self._anew(0.0, timestamp_s, arrival_s)
            return place
        early_s = self._early_s(place, place.anchor, timestamp_s, arrival_s)
        if abs(early_s) > TOLERANCE_S:
            if abs(self._early_s(place, self._newest, timestamp_s, arrival_s)) <= TOLERANCE_S:
                place.anchor = self._newest  # the other track has jumped before
            else:
                place = self._places[track] = self._anew(place.lead_s, timestamp_s, arrival_s)
        else:
            place.anchor.follow(early_s, arrival_s)
        return place

    def _early_s(self, place: _Place, anchor: _Anchor, timestamp_s: float, arrival_s: float) -> float:
        """How much earlier than it used to the track arrives, by this anchor."""
        return timestamp_s + anchor.offset_s - arrival_s - place.lead_s

    def _anew(self, lead_s: float, timestamp_s: float, arrival_s: float) -> _Place:
        self._newest = _Anchor(arrival_s + lead_s - timestamp_s, arrival_s)
        return _Place(self._newest, lead_s)
