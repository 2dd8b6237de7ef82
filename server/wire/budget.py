"""How late a frame may be."""

# Where nobody says: so many of its intervals, but never more than this.
_INTERVALS, _MOST_S = 3, 0.15


def usual_budget_s(interval_s: float) -> float:
    """Latency that is allowed where nobody chose one: three frame intervals, at most 150 ms."""
    return min(_INTERVALS * interval_s, _MOST_S)
