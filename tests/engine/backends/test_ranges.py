"""Ranges of least error: exact where nothing is lost, tighter than the extremes where the tails are long."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from engine.backends.openvino.engine import compile_model
from engine.backends.openvino.ranges import best_range
from engine.compile import compile_checkpoint
from engine.frame import Precision
from engine.network.checkpoint import load_checkpoint
from engine.sample_frames import DEFAULT, sample_frames


def steps_to_zero(bounds: tuple[float, float]) -> float:
    low, high = bounds
    return -low / ((high - low) / 255)


def test_what_fills_its_range_keeps_it() -> None:
    values = np.random.default_rng(0).uniform(-1.0, 3.0, 100_000).astype(np.float32)
    assert best_range(values, 256) == pytest.approx((-1.0, 3.0), abs=0.03)


def test_long_tails_are_clipped() -> None:
    values = np.random.default_rng(0).laplace(0, 0.1, 200_000).astype(np.float32)
    low, high = best_range(values, 256)
    assert values.min() < low < -0.3
    assert 0.3 < high < values.max()


@pytest.mark.parametrize("least", [-1.7, -0.01, 0.0, 0.4])
def test_zero_is_a_level(least: float) -> None:
    values = np.random.default_rng(0).uniform(least, 2.0, 10_000).astype(np.float32)
    bounds = best_range(values, 256)
    assert bounds[0] <= 0
    assert steps_to_zero(bounds) == pytest.approx(round(steps_to_zero(bounds)), abs=1e-3)


def test_an_activation_that_is_always_zero_has_a_range() -> None:
    low, high = best_range(np.zeros(100, np.float32), 256)
    assert low <= 0 < high


def test_no_pattern_is_left_in_the_picture(checkpoint: Path, tmp_path: Path) -> None:
    """Each channel of a packed output is one position of every block of pixels."""
    calibration = [frame.net_input("y") for frame in sample_frames(DEFAULT)[:3]]
    precisions: tuple[Precision, ...] = ("float32", "int8")
    outputs = []
    for precision in precisions:
        (tmp_path / precision).mkdir()
        artifact = compile_checkpoint(
            load_checkpoint(checkpoint), precision, tmp_path / precision, calibration
        )
        core = ov.Core()
        net = compile_model(core, core.read_model(artifact.net), "float32", 0)
        outputs.append(np.stack([net(x)["sr"] for x in calibration]))
    errors = outputs[1] - outputs[0]
    assert 0 < np.abs(errors.mean(axis=(0, 1, 3, 4))).max() < errors.std() / 50
