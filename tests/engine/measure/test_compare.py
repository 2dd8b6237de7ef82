"""Two models against each other: each is timed by itself, and the ratio is the first's to the second's."""

from pathlib import Path

import pytest

from engine.measure.compare import compare, describe


def test_a_model_against_one_that_takes_longer(checkpoint: Path, rgb_checkpoint: Path) -> None:
    result = compare(str(checkpoint), str(rgb_checkpoint), width=64, height=48, threads=1, seconds=0.1)
    assert (result.spec.model, result.other.model) == ("luma", "rgb")
    assert result.rounds >= 3
    assert result.frames_per_round >= 1
    assert result.cpu_ms_per_frame < result.other_cpu_ms_per_frame
    assert result.cpu.low <= result.cpu.median <= result.cpu.high
    assert result.cpu.median == pytest.approx(
        result.cpu_ms_per_frame / result.other_cpu_ms_per_frame, rel=0.5
    )
    text = describe(result)
    assert "luma (openvino" in text
    assert "against rgb (openvino" in text
    assert f"{result.cpu.median:.3f} ({result.cpu.low:.3f} to" in text


def test_the_precision_asked_for_is_the_models_alone(checkpoint: Path) -> None:
    result = compare(
        str(checkpoint), "awsrn-live-x2", width=64, height=48, precision="float32", threads=1, seconds=0.1
    )
    assert (result.spec.precision, result.other.precision) == ("float32", "int8")
