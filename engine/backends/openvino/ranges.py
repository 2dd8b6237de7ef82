"""What is fitted once the quantisers stand: each activation's range, then the mean of the output.

A range is where an activation loses least: the mean square error of clipping what lies beyond and of rounding
what lies within.

A feature of these networks has a few values ten times as far from zero as nearly all others. A range that
holds them wastes the eight bits on them; which share of them to clip differs from one activation to the next.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as opset

from engine.net import Batch

_BINS = 8192
_SHARES = np.linspace(0.25, 1, 31)  # of the extremes on either side, that a range may reach


def fit_ranges(model: ov.Model, inputs: Sequence[Batch]) -> None:
    """Changes the ranges of a quantised model in place. `inputs` have the shape that the model is set to."""
    quantisers = _activations(model)
    probe = model.clone()
    outputs = [opset.result(node.input_value(0)) for node in _activations(probe)]
    frames = _run(ov.Model(outputs, probe.get_parameters(), "probe"), inputs)
    for node, values in zip(quantisers, zip(*frames, strict=True), strict=True):
        bounds = best_range(np.concatenate([v.ravel() for v in values]), node.get_attributes()["levels"])
        for port, bound in zip((1, 2, 3, 4), bounds * 2, strict=True):
            shape = node.input_value(port).get_node().get_data().shape
            node.input(port).replace_source_output(
                opset.constant(np.full(shape, bound, np.float32)).output(0)
            )


def fit_mean(model: ov.Model, exact: ov.Model, inputs: Sequence[Batch]) -> None:
    """Takes the mean error of each output channel, which would be a fixed pattern in the picture, out of the
    tail's bias; in place."""
    pairs = zip(_run(model, inputs), _run(exact, inputs), strict=True)
    errors = [(ours[0] - theirs[0]).mean(axis=(0, 2, 3)) for ours, theirs in pairs]
    (tail,) = (node for node in model.get_ops() if node.get_friendly_name() == "tail")
    bias = tail.input_value(1).get_node().get_data()
    corrected = bias - np.mean(errors, axis=0).reshape(bias.shape)
    tail.input(1).replace_source_output(opset.constant(corrected.astype(np.float32)).output(0))


def best_range(values: NDArray[np.float32], levels: int) -> tuple[float, float]:
    """(low, high) of least error, zero among the levels: it is what borders are padded with."""
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    lows = edges[0] * _SHARES if edges[0] < 0 else [0.0]
    return min(
        (_aligned(low, high, levels) for low, high in product(lows, max(edges[-1], 1e-6) * _SHARES)),
        key=lambda bounds: _error(counts, centres, bounds, levels),
    )


def _run(model: ov.Model, inputs: Sequence[Batch]) -> list[list[Batch]]:
    """All outputs for each input, computed in float32 where nothing is quantised."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [list(compiled(x).to_tuple()) for x in inputs]


def _aligned(low: float, high: float, levels: int) -> tuple[float, float]:
    step = (high - low) / (levels - 1)
    below = round(-low / step)
    return -below * step, (levels - 1 - below) * step


def _error(counts: Any, centres: NDArray[np.float64], bounds: tuple[float, float], levels: int) -> float:
    low, high = bounds
    step = (high - low) / (levels - 1)
    quantised = low + np.rint((centres.clip(low, high) - low) / step) * step
    return float(counts @ (quantised - centres) ** 2)


def _activations(model: ov.Model) -> list[Any]:
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "FakeQuantize"
        and node.input_value(0).get_node().get_type_name() != "Constant"
    ]
