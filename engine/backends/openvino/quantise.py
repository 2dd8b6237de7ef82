"""Post-training INT8 by NNCF, with the ranges and the float layers that keep the picture.

Ranges are nearly each activation's minimum and maximum: NNCF's default clips more, which costs up to a
decibel; clipping nothing costs a quarter more than this.
What carries the picture itself, not a correction of it, stays in float: head, global skip and the residual
stream's additions. So does the tail, whose quantised input costs more than all else together, and an LRFU
that is cheap: one range for the outputs of all its units costs as much as the rest.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nncf
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
from nncf.quantization.range_estimator import (
    AggregatorType,
    RangeEstimatorParameters,
    StatisticsCollectorParameters,
    StatisticsType,
)

from engine.config import AwsrnConfig
from engine.net import Batch

MOST_FOR_LRFU = 1 / 8  # of all multiply-adds, each of which takes twice as long in BF16
CLIPPED = 1e-5  # of a frame's activations, on either side


def quantise(source: Path, destination: Path, config: AwsrnConfig, inputs: Sequence[Batch]) -> None:
    """Writes the INT8 form of the network `source`. `inputs`: (1, C, h, w) float32 on 0-255, of one shape."""
    # Not nncf.set_log_level: it also turns down handlers that the application shares with it.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = ov.Core().read_model(source)
    channels = inputs[0].shape[1]
    model.reshape({"lr": list(inputs[0].shape)})
    with redirect_stdout(sys.stderr):  # where progress bars belong
        quantised = _quantise(model, inputs, _float_nodes(model, config))
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
            activations_range_estimator_params=RangeEstimatorParameters(
                min=_collector(AggregatorType.MIN), max=_collector(AggregatorType.MAX)
            )
        ),
    )


def _collector(of_all_frames: AggregatorType) -> StatisticsCollectorParameters:
    return StatisticsCollectorParameters(
        StatisticsType.QUANTILE, of_all_frames, quantile_outlier_prob=CLIPPED
    )


def _float_nodes(model: ov.Model, config: AwsrnConfig) -> list[str]:
    lrfus = config.lfbs * config.awrus * config.features**2 * 9  # multiply-adds for each LR pixel
    cheap_lrfu = lrfus < MOST_FOR_LRFU * config.folded_macs_per_lr_pixel

    def is_float(node: Any) -> bool:
        name = node.get_friendly_name()
        fixed = name in ("sub", "head/conv", "skip/conv", "tail/conv") or name.startswith("add")
        return fixed or (cheap_lrfu and name.endswith("lrfu/conv"))

    return [node.get_friendly_name() for node in model.get_ops() if is_float(node)]
