"""How far the clock of another machine is from ours, as NTP estimates it (RFC 5905, section 8 and 10)."""

from collections import deque
from dataclasses import dataclass

# Of these the sample with the shortest round trip counts: queues make others longer, and never shorter.
SAMPLES = 8
# Clocks drift apart by less than this (RFC 5905: PHI is 15 ppm), so that a sample's bound grows with its age.
DRIFT = 50e-6
# A sample that contradicts the others by more than their bounds and this: the clock has jumped.
JUMP_NS = 50_000_000


class ClockJumped(Exception):
    """The other clock isn't where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    offset_ns: int
    error_ns: int
    at_ns: int

    def bound_ns(self, now_ns: int) -> float:
        return self.error_ns + DRIFT * (now_ns - self.at_ns)


class ClockOffset:
    """Fed with each round trip; `offset_ns` is the other clock less ours, to within `error_ns`."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self._best: _Sample | None = None  # chosen here: every packet asks for it
        self._now_ns = 0

    def add(self, *, asked_ns: int, heard_ns: int, told_ns: int, answered_ns: int) -> None:
        """Asked and answered are by our clock, heard and told by the other. Raises ClockJumped; ValueError
        for times that can't be."""
        held_ns = told_ns - heard_ns
        delay_ns = answered_ns - asked_ns - held_ns
        if held_ns < 0 or delay_ns < 0:
            raise ValueError(f"held_ns={held_ns}, delay_ns={delay_ns}: none may be negative")
        offset_ns = (heard_ns - asked_ns + told_ns - answered_ns) // 2
        sample = _Sample(offset_ns=offset_ns, error_ns=delay_ns // 2 + 1, at_ns=answered_ns)
        self._now_ns = answered_ns
        if self.known:
            apart_ns = offset_ns - self.offset_ns
            if abs(apart_ns) > self.error_ns + sample.error_ns + JUMP_NS:
                raise ClockJumped(f"the clock of its host jumped by {apart_ns / 1e9:.3f} s")
        self._samples.append(sample)
        self._best = min(self._samples, key=lambda sample: sample.bound_ns(answered_ns))

    @property
    def known(self) -> bool:
        return self._best is not None

    @property
    def offset_ns(self) -> int:
        assert self._best is not None
        return self._best.offset_ns

    @property
    def error_ns(self) -> int:
        """At the last round trip."""
        assert self._best is not None
        return round(self._best.bound_ns(self._now_ns))
