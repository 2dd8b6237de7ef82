"""The page of figures, for one small model and size."""

from pathlib import Path

import pytest

from engine.backends.require_gpu import GPU_BACKENDS
from engine.measure.gpu_report import render
from tests.gpu.conftest import gpu_problem

pytestmark = pytest.mark.gpu


def test_the_report_has_figures_of_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.measure import gpu_bench

    monkeypatch.setenv("LIVESR_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(gpu_bench, "PAPER_MODELS", ("awsrn-s-x2",))
    report = gpu_bench.bench_gpu([(320, 180)])
    there = {backend for backend in GPU_BACKENDS if gpu_problem(backend) == ""}
    for case in report.cases:
        assert case.failures.keys() == set(GPU_BACKENDS) - there
        assert {row.backend for row in case.rows} == there
        assert all(row.trial.frames_per_s > 30 for row in case.rows)
        assert {row.frames for row in case.rows} == {"host", "surface"}
        assert case.best is not None
        for backend in there:
            rows = [row for row in case.rows if (row.backend, row.frames) == (backend, "host")]
            overlaps = {row.trial.lanes: row.overlap for row in rows}
            # A single lane copies before and after its network computes; only others can hide that.
            assert overlaps[1] < 0.1 < max(overlaps.values())
        assert isinstance(case.eager_ms, float)
    assert "awsrn-s-x2 (random weights), 320×180 → 640×360" in render(report)
