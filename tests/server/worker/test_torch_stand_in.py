"""While TensorRT builds, or where it can't, the same network runs on PyTorch."""

import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest

from engine.errors import (
    BackendUnavailable,
    BuildFailed,
    DeviceFailed,
    ParityError,
)
from engine.frame import Colour
from server.worker import engines
from tests.server.worker.slow_engines import AT_ONCE, Loader, Stream
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.worker_process import JOB


class TorchEngine(DoublingEngine):
    """What PyTorch makes of the network while TensorRT builds."""

    alive: ClassVar[weakref.WeakSet["TorchEngine"]] = weakref.WeakSet()

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.spec = replace(self.spec, backend="cuda")
        self.alive.add(self)


class TorchLoader(Loader):
    def __call__(self, width: int, height: int, colour: Colour) -> DoublingEngine:
        super().__call__(width, height, colour)
        return TorchEngine(width, height)


def test_while_tensorrt_builds_the_network_runs_on_pytorch():
    """Bicubic for the seconds that PyTorch takes; then TensorRT, and PyTorch's memory is free again."""
    build, torch = Loader(), TorchLoader()
    stream = Stream(build, replace(AT_ONCE, better=torch))
    stream.show(3)
    assert {backend for _, backend, _ in stream.out} == {"bicubic"}
    torch.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "cuda")
    stream.show(5)
    assert stream.pipeline.load_status.state == "loading"
    build.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "test")
    stream.show(5)
    backends = [backend for _, backend, _ in stream.out]
    assert backends == sorted(backends, key=["bicubic", "cuda", "test"].index)
    gc.collect()
    assert not TorchEngine.alive
    stream.finish()
    assert len(torch.asked) == 1


@pytest.mark.parametrize("error", [BuildFailed("no kernel"), ParityError("31.0 dB")])
def test_what_tensorrt_cannot_build_runs_on_pytorch(error: Exception):
    build, torch = Loader(), TorchLoader()
    build.refuse[160, 96] = error
    build.gate((160, 96)).set()
    torch.gate((160, 96)).set()
    stream = Stream(build, replace(AT_ONCE, better=torch))
    stream.show(1)
    stream.until(lambda: stream.backend == "cuda")
    stream.show(5)
    assert stream.pipeline.load_status.state == "failed"
    assert {backend for _, backend, _ in stream.out[-5:]} == {"cuda"}
    stream.finish()


@pytest.mark.parametrize("error", [BackendUnavailable("no torch"), DeviceFailed("out of memory")])
def test_where_pytorch_cannot_stand_in_bicubic_goes_on(error: Exception, caplog: pytest.LogCaptureFixture):
    build, torch = Loader(), TorchLoader()
    torch.refuse[160, 96] = error
    torch.gate((160, 96)).set()
    stream = Stream(build, replace(AT_ONCE, better=torch))
    stream.show(1)
    stream.until(lambda: "nothing better stands in" in caplog.text)
    stream.show(5)
    assert {backend for _, backend, _ in stream.out} == {"bicubic"}
    build.gate((160, 96)).set()
    stream.until(lambda: stream.backend == "test")
    stream.finish()
    assert len(torch.asked) == 1


def test_pytorch_stands_in_for_tensorrt_alone(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(engines, "load_engine", lambda model, **options: asked.append(options["backend"]))
    for backend, stands_in in {"tensorrt": True, "cuda": False, "openvino": False}.items():
        monkeypatch.setattr(engines, "choose", lambda *_, backend=backend: SimpleNamespace(backend=backend))
        load = engines.torch_loader(JOB, engines.engine_loader)
        assert (load is not None) == stands_in
        if load is not None:
            load(64, 48, Colour())
    assert asked == ["cuda"]
