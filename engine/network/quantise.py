"""INT8 for TensorRT: the body's convolutions multiply 8-bit integers, their ranges taken from real frames.

Symmetric, as TensorRT has it: zero is zero, and an activation's range is ± its bound, chosen where rounding
what lies within and clipping what lies beyond cost least together. Weights have a scale for each output
channel. What carries the picture itself stays in half: head, global skip, the additions, and the tail. At
last the mean error of each output channel, which would be a fixed pattern in the picture, goes out of the
tail's bias.
"""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, library, nn
from torch.nn.functional import conv2d

from engine.network.fold import FoldedAwru, FoldedAwsrn, FoldedLfb

_BINS = 4096
_SHARES = np.linspace(0.1, 1, 37)  # of the largest value, that a range may reach


@library.custom_op("livesr::int8_conv", mutates_args=())
def int8_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    input_scale: float,
    weight_scales: Sequence[float],
    padding: int,
) -> Tensor:
    """(B, i, h, w) of any float type; weight (o, i, k, k) int8, whose channel n stands for weight[n] ·
    weight_scales[n]; bias (o). The input is rounded to int8 times `input_scale`. One operator: of several,
    those that have only constants would be folded before TensorRT sees integers."""
    levels = (x.float() / input_scale).round().clamp(-128, 127)
    scales = input_scale * torch.tensor(weight_scales, device=x.device).view(1, -1, 1, 1)
    sums = conv2d(levels, weight.float(), padding=padding)
    return (sums * scales + bias.float().view(1, -1, 1, 1)).to(x.dtype)


@int8_conv.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    input_scale: float,
    weight_scales: Sequence[float],
    padding: int,
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], x.shape[2], x.shape[3])


class Int8Conv(nn.Module):
    """A convolution of stride 1 that keeps the picture's size. Its scales are numbers, not weights, so that a
    network converted to half keeps them."""

    weight: Tensor

    def __init__(self, conv: nn.Conv2d, bound: float) -> None:
        super().__init__()
        assert conv.bias is not None
        assert isinstance(conv.padding, tuple)
        self.padding = conv.padding[0]
        self.input_scale = bound / 127
        scales = conv.weight.data.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
        self.weight_scales = [float(scale) for scale in scales]
        self.register_buffer("weight", (conv.weight.data / scales.view(-1, 1, 1, 1)).round().to(torch.int8))
        self.bias = nn.Parameter(conv.bias.data.clone())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = int8_conv(x, self.weight, self.bias, self.input_scale, self.weight_scales, self.padding)
        return out


def quantise(net: FoldedAwsrn, inputs: Sequence[NDArray[np.float32]]) -> FoldedAwsrn:
    """The network with its body in INT8; the one given is not changed. `inputs`: real frames as it takes
    them, (1, C, h, w) float32 on 0-255."""
    frames = [torch.from_numpy(x) for x in inputs]
    quantised = copy.deepcopy(net)
    with torch.inference_mode():
        histograms = _histograms(net, frames)
        for index, (owner, name) in enumerate(_places(quantised)):
            bound = best_bound(*histograms[index])
            setattr(owner, name, Int8Conv(getattr(owner, name), bound))
        errors = [_tail(quantised, x) - _tail(net, x) for x in frames]
        means = torch.stack([error.mean(dim=(0, 2, 3)) for error in errors]).mean(dim=0)
    assert quantised.tail.bias is not None
    quantised.tail.bias.data -= means
    return quantised.requires_grad_(False)


def best_bound(counts: Tensor, largest: float) -> float:
    """Of a histogram of absolute values from 0 to `largest`: the range ± that loses least to INT8."""
    centres = (torch.arange(len(counts), dtype=torch.float64) + 0.5) * (largest / len(counts))

    def error(bound: float) -> float:
        step = bound / 127
        return float(counts.double() @ ((centres / step).round().clamp(max=127) * step - centres) ** 2)

    return min((float(share) * largest for share in _SHARES), key=error)


def _places(net: FoldedAwsrn) -> Iterator[tuple[nn.Module, str]]:
    """Where the convolutions of the body are, in the order of their use."""
    for lfb in net.body:
        assert isinstance(lfb, FoldedLfb)
        for awru in lfb.awrus:
            assert isinstance(awru, FoldedAwru)
            yield from ((awru, "conv1"), (awru, "conv2"))
        yield lfb, "lrfu"


def _histograms(net: FoldedAwsrn, frames: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
    """Of what each of these convolutions is given in all frames: counts of absolute values, the largest."""
    convs = [getattr(owner, name) for owner, name in _places(net)]
    largest = [1e-6] * len(convs)
    counts = [torch.zeros(_BINS) for _ in convs]

    def measure(index: int, x: Tensor) -> None:
        largest[index] = max(largest[index], float(x.abs().max()))

    def count(index: int, x: Tensor) -> None:
        counts[index] += torch.histc(x.abs(), bins=_BINS, min=0, max=largest[index])

    for hear in (measure, count):
        hooks = [
            conv.register_forward_pre_hook(lambda _, args, i=index, hear=hear: hear(i, args[0]))
            for index, conv in enumerate(convs)
        ]
        for x in frames:
            _tail(net, x)
        for hook in hooks:
            hook.remove()
    return list(zip(counts, largest, strict=True))


def _tail(net: FoldedAwsrn, x: Tensor) -> Tensor:
    return net.correction(x - net.mean)
