"""The page of figures, for one small model and size."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu


def test_the_report_has_figures_of_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.measure import gpu_bench
    from engine.measure.gpu_report import render

    monkeypatch.setenv("LIVESR_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(gpu_bench, "PAPER_MODELS", ("awsrn-s-x2",))
    report = gpu_bench.bench_gpu([(320, 180)])
    for case in report.cases:
        assert not case.failures
        assert {row.backend for row in case.rows} == {"tensorrt", "cuda"}
        assert all(row.trial.frames_per_s > 30 for row in case.rows)
        for backend in ("tensorrt", "cuda"):
            overlaps = {row.trial.lanes: row.overlap for row in case.rows if row.backend == backend}
            # A single lane copies before and after its network computes; only others can hide that.
            assert overlaps[1] < 0.1 < max(overlaps.values())
        assert isinstance(case.eager_ms, float)
    assert "awsrn-s-x2 (random weights), 320×180 → 640×360" in render(report)
