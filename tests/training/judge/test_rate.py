"""Bjøntegaard deltas of curves whose difference is known."""

import pytest

from training.judge.rate import RatePoint, bd_quality, bd_rate


def curve(factor: float = 1.0, more: float = 0.0, steps: int = 4) -> list[RatePoint]:
    """Three points of quality for each doubling of the bitrate."""
    rates = [250_000 * 2.0**step for step in range(steps)]
    return [RatePoint(bitrate_bps=factor * r, quality=70 + 3 * step + more) for step, r in enumerate(rates)]


def test_a_curve_of_half_the_bitrate_saves_half() -> None:
    assert bd_rate(curve(0.5), curve()) == pytest.approx(-0.5)
    assert bd_quality(curve(0.5), curve()) == pytest.approx(3)
    assert bd_rate(curve(), curve(0.5)) == pytest.approx(1.0)
    assert bd_rate(curve(more=3), curve()) == pytest.approx(-0.5)


def test_the_order_of_points_and_a_worse_dearer_one_do_not_matter() -> None:
    dearer = RatePoint(bitrate_bps=3e6, quality=70)
    assert bd_rate([*reversed(curve(0.5)), dearer], curve()) == pytest.approx(-0.5)


def test_curves_without_anything_in_common_have_no_delta() -> None:
    assert bd_rate(curve(more=30), curve()) is None
    assert bd_quality(curve(100), curve()) is None
    assert bd_rate(curve(steps=1), curve()) is None
    assert bd_rate([], curve()) is None
