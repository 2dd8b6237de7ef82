"""Engines on a real GPU. Everything that needs CUDA is imported inside, so that collecting needs none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.backends.require_gpu import require_gpu
from engine.errors import BackendUnavailable
from engine.frame import GpuEngine
from engine.load import load_engine
from tests.conftest import not_done

Load = Callable[..., GpuEngine]


def gpu_problem(backend: str) -> str:
    """Why it can't be used here; "" where it can."""
    try:
        require_gpu(backend)
    except BackendUnavailable as exc:
        return str(exc)
    return ""


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build of each engine for all tests."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(params=["cuda", "tensorrt"])
def load(request: pytest.FixtureRequest, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """load(width, height, **options): the model that ships, on each GPU backend."""
    monkeypatch.setenv("LIVESR_ARTIFACTS", str(artifacts))
    if problem := gpu_problem(request.param):
        not_done(problem)

    def load(width: int, height: int, model: str = "awsrn-live-x2", **options: object) -> GpuEngine:
        engine = load_engine(model, width=width, height=height, backend=request.param, **options)
        assert isinstance(engine, GpuEngine)
        return engine

    return load
