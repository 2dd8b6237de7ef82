"""How many multiply-adds a second OpenVINO reaches on this machine at best: large dense convolutions."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from engine.backends.openvino.engine import compile_model
from engine.frame import Precision

_CHANNELS, _SIDE, _LAYERS = 256, 28, 3
MACS = _LAYERS * _CHANNELS**2 * 9 * _SIDE**2


def peak_runner(precision: Precision, *, threads: int) -> Callable[[], None]:
    """A call does `MACS` multiply-adds."""
    request = compile_model(ov.Core(), _model(precision), precision, threads).create_infer_request()

    def run() -> None:
        request.infer()

    return run


def measure_peak(precision: Precision, *, threads: int, seconds: float = 1.0) -> float:
    """Multiply-adds a millisecond, at best."""
    run = peak_runner(precision, threads=threads)
    best_s, end_s = float("inf"), time.perf_counter() + seconds
    while best_s == float("inf") or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        run()
        best_s = min(best_s, time.perf_counter() - start_s)
    return MACS / best_s / 1e3


def _model(precision: Precision) -> ov.Model:
    """3×3 convolutions with ReLU; for INT8 with the ranges that a quantiser would have put there."""
    rng = np.random.default_rng(0)
    source = x = opset.parameter([1, _CHANNELS, _SIDE, _SIDE], ov.Type.f32)
    for _ in range(_LAYERS):
        weight = opset.constant(rng.normal(0, 0.02, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32))
        if precision == "int8":
            x, weight = _quantised(x, 0.0, 8.0, 256), _quantised(weight, -0.1, 0.1, 255)
        x = opset.relu(opset.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([opset.result(x)], [source], "peak")


def _quantised(x: Any, low: float, high: float, levels: int) -> Any:
    bounds = [opset.constant(np.float32(bound)) for bound in (low, high)]
    return opset.fake_quantize(x, *bounds, *bounds, levels)
