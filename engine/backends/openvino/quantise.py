"""Post-training INT8 by NNCF, with the ranges and the float layers that keep the picture.

NNCF places the quantisers, corrects biases, and begins with nearly each activation's minimum and maximum;
`ranges.py` then fits ranges and the output's mean. Weights take all eight bits: NNCF would keep one back in
most layers (their inputs are the first to be quantised) for fear of 16-bit sums overflowing on CPUs without
VNNI. That costs 0.8 dB of parity where there is VNNI; without it 53.4 dB are left instead of 55.1.
What carries the picture itself, not a correction of it, stays in float: head, global skip and the residual
stream's additions; and so does the context, which takes next to nothing. The tail's quantised input costs
more than all else together, 1.5 to 2 dB of parity ×2; a packed tail is worth it, as is one at half the
resolution; an unpacked one ×4, where it would be 3.5 dB, stays in float.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import nncf
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
from nncf.quantization.range_estimator import (
    AggregatorType,
    RangeEstimatorParameters,
    StatisticsCollectorParameters,
    StatisticsType,
)

from engine.backends.openvino.ranges import fit_mean, fit_ranges
from engine.net import Batch

CLIPPED = 1e-5  # of a frame's activations, on either side


def quantise(source: Path, destination: Path, inputs: Sequence[Batch], *, float_tail: bool) -> None:
    """Writes the INT8 form of the network `source`. `inputs`: (1, C, h, w) float32 on 0-255, of one shape."""
    # Not nncf.set_log_level: it also turns down handlers that the application shares with it.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = ov.Core().read_model(source)
    channels = inputs[0].shape[1]
    model.reshape({"lr": list(inputs[0].shape)})
    with redirect_stdout(sys.stderr):  # where progress bars belong
        quantised = _quantise(model, inputs, _float_nodes(model, float_tail))
    fit_ranges(quantised, inputs)
    fit_mean(quantised, model, inputs)
    quantised.reshape({"lr": [-1, channels, -1, -1]})
    ov.save_model(quantised, destination, compress_to_fp16=False)


def _quantise(model: ov.Model, inputs: Sequence[Batch], float_nodes: list[str]) -> ov.Model:
    return nncf.quantize(
        model,
        nncf.Dataset(list(inputs), lambda x: {"lr": x}),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=float_nodes),
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,
            activations_range_estimator_params=RangeEstimatorParameters(
                min=_collector(AggregatorType.MIN), max=_collector(AggregatorType.MAX)
            ),
        ),
    )


def _collector(of_all_frames: AggregatorType) -> StatisticsCollectorParameters:
    return StatisticsCollectorParameters(
        StatisticsType.QUANTILE, of_all_frames, quantile_outlier_prob=CLIPPED
    )


def _float_nodes(model: ov.Model, float_tail: bool) -> list[str]:
    fixed = {"sub", "head/conv", "skip/conv"} | ({"tail/conv"} if float_tail else set())
    names = (node.get_friendly_name() for node in model.get_ops())
    kept = ("add", "context", "abs", "log", "mean")  # the last three are the context's
    return [name for name in names if name in fixed or name.startswith(kept)]
