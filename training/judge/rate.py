"""Bjøntegaard deltas: two curves of quality over bitrate, compared where both are.

As in VCEG-M33, with monotone cubics in place of one polynomial, as JVET has it: four points are few.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    bitrate_bps: float
    quality: float


def bd_rate(ours: Sequence[RatePoint], theirs: Sequence[RatePoint]) -> float | None:
    """How much more bitrate ours takes for the same quality, as a fraction: -0.1 is a tenth less. None where
    the curves have no quality in common, or are none."""
    more = _mean_difference(_by_quality(ours), _by_quality(theirs))
    return None if more is None else float(np.exp(more) - 1)


def bd_quality(ours: Sequence[RatePoint], theirs: Sequence[RatePoint]) -> float | None:
    """How much more quality ours has at the same bitrate. None where they have no bitrate in common."""
    return _mean_difference(_by_rate(ours), _by_rate(theirs))


Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def _by_quality(points: Sequence[RatePoint]) -> Curve:
    rates, qualities = _by_rate(points)
    return qualities, rates


def _by_rate(points: Sequence[RatePoint]) -> Curve:
    """Points by rising bitrate, those left out that have no more quality than a cheaper one."""
    kept: list[RatePoint] = []
    for point in sorted(points, key=lambda point: point.bitrate_bps):
        if not kept or (point.quality > kept[-1].quality and point.bitrate_bps > kept[-1].bitrate_bps):
            kept.append(point)
    return np.log([point.bitrate_bps for point in kept]), np.array([point.quality for point in kept])


def _mean_difference(ours: Curve, theirs: Curve) -> float | None:
    if min(len(ours[0]), len(theirs[0])) < 2:
        return None
    low, high = max(ours[0][0], theirs[0][0]), min(ours[0][-1], theirs[0][-1])
    if not low < high:
        return None
    areas = [PchipInterpolator(*curve).integrate(low, high) for curve in (ours, theirs)]
    return float((areas[0] - areas[1]) / (high - low))
