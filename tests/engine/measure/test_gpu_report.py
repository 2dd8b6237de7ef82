"""The page of a GPU's figures, from given ones; and what happens where there is no GPU to measure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.machine import nvidia_gpus
from engine.measure import gpu_bench
from engine.measure.gpu_report import Case, FramesOn, GpuReport, Row, Span, overlap, render
from engine.trials import Trial
from server.__main__ import main
from tests.conftest import ROOT

no_gpu = pytest.mark.skipif(bool(nvidia_gpus()), reason="this machine has an NVIDIA GPU")


def span(stage: str, start_ms: float, end_ms: float) -> Span:
    return Span(stage=stage, start_ms=start_ms, end_ms=end_ms)


def test_each_network_is_measured_once() -> None:
    names = gpu_bench.models()
    assert len(names) == len(set(names))
    assert {"awsrn-live-x2", "awsrn-sd-x2", "awsrn-x2"} <= set(names)
    assert "awsrn-live-x2-bicubic" not in names, "the same shape as awsrn-live-x2"


def test_overlap_is_the_share_of_copying_beside_computing() -> None:
    alone = [span("copy in", 0, 1), span("compute", 1, 5), span("copy out", 5, 6)]
    assert overlap(alone) == 0
    # Three lanes: the first copy in and the last copy out find nobody computing.
    beside = [*alone, span("copy in", 1, 2), span("compute", 5, 9), span("copy out", 9, 10)]
    assert overlap(beside) == pytest.approx(2 / 4)
    # Networks that compute at the same time hide a copy once.
    assert overlap([span("compute", 0, 3), span("compute", 2, 4), span("copy in", 1, 5)]) == pytest.approx(
        3 / 4
    )
    assert overlap([span("compute", 0, 3)]) == 0


def row(
    backend: str, lanes: int, frames_per_s: float, streams: int | None, frames: FramesOn = "surface"
) -> Row:
    trial = Trial(lanes=lanes, frames_per_s=frames_per_s, p50_s=0.01, p99_s=0.0125)
    return Row(backend=backend, frames=frames, trial=trial, streams=streams, overlap=0.873)


def case(*rows: Row, **fields: object) -> Case:
    defaults = {
        "model": "awsrn-live-x2",
        "random_weights": False,
        "width": 640,
        "height": 360,
        "scale": 2,
        "eager_ms": 8.0,
        "compiled_ms": 2.5,
        "parity_db": {row.backend: 61.26 for row in rows},
        "rows": rows,
        "failures": {},
    }
    return Case(**defaults | fields)


def test_the_page() -> None:
    report = GpuReport(
        gpu="NVIDIA L4, 22 GiB, compute capability 8.9, driver 580",
        versions={"PyTorch": "2.13.0+cu130", "TensorRT": "11.0.0"},
        date="2026-11-23",
        cases=(
            case(
                row("tensorrt", 2, 950, 31, "host"),
                row("tensorrt", 2, 800, 26),
                row("tensorrt", 3, 810, None),
                row("cuda", 2, 400, 13),
            ),
            case(
                model="awsrn-x2",
                random_weights=True,
                eager_ms="the GPU is out of memory in a baseline: CUDA out of memory",
                failures={"tensorrt": "building it failed"},
            ),
        ),
    )
    page = render(report)
    assert page.startswith("# livesr on NVIDIA L4, 22 GiB, compute capability 8.9, driver 580\n")
    assert "with PyTorch 2.13.0+cu130, TensorRT 11.0.0." in page
    rows = [line for line in page.splitlines() if line.startswith(("| awsrn", "| tensorrt"))]
    best, none, first, *_ = rows
    assert best == "| awsrn-live-x2 | 640×360 → 1280×720 | tensorrt | 2 | 800.0 | 12.50 | 26 | 6.4 | 2.0 |"
    assert none == "| awsrn-x2 (random weights) | 640×360 → 1280×720 | none runs | – | – | – | – | – | – |"
    assert first == "| tensorrt | host | 2 | 10.00 | 12.50 | 950.0 | 31 | 87% |"
    assert "| tensorrt | surface | 3 | 10.00 | 12.50 | 810.0 | – | 87% |" in page
    assert "- tensorrt: 61.3 dB from the float32 reference" in page
    assert "- Eager: the GPU is out of memory in a baseline: CUDA out of memory" in page
    assert "- tensorrt does not run: building it failed" in page


def test_more_streams_beat_more_frames() -> None:
    """A rate that only late frames reach is no use to a live stream."""
    assert case(row("tensorrt", 1, 700, 20), row("cuda", 4, 900, 10)).best.backend == "tensorrt"


def test_what_a_service_does_not_run_is_not_its_best() -> None:
    """It has surfaces on both sides of its engine, not the host's planes."""
    host = row("tensorrt", 1, 900, 30, "host")
    assert case(host, row("cuda", 2, 700, 20)).best.backend == "cuda"
    assert case(host).best is None


@no_gpu
def test_without_a_gpu_the_report_fails_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", "--gpu-report", str(tmp_path / "page.md")]) == 2
    said = capsys.readouterr().err
    assert said == "livesr bench: backend='cuda' needs an NVIDIA GPU, and nvidia-smi shows none here\n"
    assert not list(tmp_path.iterdir())


@no_gpu
def test_without_a_gpu_make_gpu_check_fails_in_one_sentence(tmp_path: Path) -> None:
    """Before it installs anything."""
    done = subprocess.run(
        ["make", "-s", "gpu-check", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "no NVIDIA GPU here: nvidia-smi shows none"
    assert not list(tmp_path.iterdir())


@no_gpu
@pytest.mark.parametrize("promised", [False, True])
def test_gpu_tests_are_skipped_unless_a_gpu_is_promised(promised: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"],
        cwd=ROOT,
        env=os.environ | {"FAIL_WITHOUT_CUDA": "1" if promised else ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if promised else 0), done.stdout
    *_, summary = done.stdout.splitlines()
    assert ("error" in summary) == promised
    assert ("skipped" in summary) != promised
    assert "no NVIDIA GPU here: nvidia-smi shows none" in done.stdout
    assert "passed" not in summary
