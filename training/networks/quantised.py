"""Quantisation-aware training (arXiv 1712.05877, section 3): a network computes as its INT8 artifact will.

Fake quantisers round weights and activations to eight bits where `engine.backends.openvino.quantise` does,
and let gradients through as if they didn't. Ranges of activations are fitted once, on the frames that a build
takes; those of weights follow the weights.

The network stays an unfolded AWSRN, so that what is trained is an ordinary checkpoint. It rounds as the
folded one does: folding multiplies a kernel or the stream by one number, which scales a range and moves no
rounding. Two things are more than that: of the LRFU each unit's share is a convolution of its own, and the
branches of the AWMS are one.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    HistogramObserver,
    MovingAveragePerChannelMinMaxObserver,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
)
from torch.nn.functional import conv2d, pixel_shuffle
from torch.nn.utils.parametrize import register_parametrization

from engine.network.awsrn import AWMS, AWRU, LFB, Awsrn
from engine.network.fold import awms_kernel, merge_awms
from engine.network.packed_conv import best_positions


def quantise_aware(network: nn.Module, frames: Sequence[Tensor]) -> nn.Module:
    """Puts fake quantisers into an AWSRN, in place. `frames`: real LR, (1, C, h, w) on the 0-255 scale, of
    which the ranges of activations are taken. Raises ValueError where it is no AWSRN."""
    if not isinstance(network, Awsrn):
        raise ValueError(f"qat is for networks that have an INT8 artifact, {type(network).__name__} has none")
    for lfb in network.body:
        assert isinstance(lfb, LFB)
        for awru in lfb.awrus:
            assert isinstance(awru, AWRU)
            _quantise(awru.conv1, _weight(), _activation())
            _quantise(awru.conv2, _weight(), _activation())
        units = range(len(lfb.awrus))
        _quantise(lfb.lrfu, _Slices(_weight() for _ in units), _Slices(_activation() for _ in units))
    tail = network.tail
    block = tail.scale * best_positions(merge_awms(tail), tail.scale)
    if block > network.config.scale:  # one that is neither packed nor on a coarser grid stays float in INT8
        network.tail = _QuantisedAwms(tail)
    _fit_ranges(network, frames)
    return network


@torch.no_grad()
def without_quantisers(trained: nn.Module, plain: nn.Module) -> nn.Module:
    """Gives `plain`, a fresh network of the same configuration, the weights that were trained."""
    state = trained.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain


def _quantise(conv: nn.Module, weight: nn.Module, activation: nn.Module) -> None:
    register_parametrization(conv, "weight", weight)  # upon weight norm
    conv.quantise_input = activation
    conv.register_forward_pre_hook(_quantised_input)


def _quantised_input(conv: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    # The convolution's own, not one that a closure holds on to: networks are copied.
    assert isinstance(conv.quantise_input, nn.Module)
    return (conv.quantise_input(args[0]),)


def _weight() -> FakeQuantize:
    """Of a kernel, symmetric, each output channel for itself."""
    return FakeQuantize(  # type: ignore[no-untyped-call]
        observer=MovingAveragePerChannelMinMaxObserver,
        averaging_constant=1.0,  # the weights as they are now
        quant_min=-127,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )


def _activation() -> FakeQuantize:
    """Of the range that clipping and rounding lose least by, as `engine.backends.openvino.ranges` has it."""
    return FakeQuantize(  # type: ignore[no-untyped-call]
        observer=HistogramObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    )


class _Slices(nn.Module):
    """What an LRFU is given, or its kernel: each unit's share of the input channels has ranges of its own."""

    def __init__(self, quantisers: Iterable[FakeQuantize]) -> None:
        super().__init__()
        self.quantisers = nn.ModuleList(quantisers)

    def forward(self, x: Tensor) -> Tensor:
        shares = x.chunk(len(self.quantisers), dim=1)
        return torch.cat([q(share) for q, share in zip(self.quantisers, shares, strict=True)], dim=1)


class _QuantisedAwms(AWMS):
    """The AWMS given, its branches merged before they are rounded."""

    def __init__(self, awms: AWMS) -> None:
        nn.Module.__init__(self)
        self.scale, self.branches, self.alphas = awms.scale, awms.branches, awms.alphas
        self.quantise_weight, self.quantise_input = _weight(), _activation()

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = awms_kernel(self)
        kernel = self.quantise_weight(weight.float())
        y = conv2d(self.quantise_input(x), kernel, bias.float(), padding=kernel.shape[-1] // 2)
        return pixel_shuffle(y, self.scale)


@torch.no_grad()
def _fit_ranges(network: nn.Module, frames: Sequence[Tensor]) -> None:
    network.apply(disable_fake_quant)
    for frame in frames:
        network(frame)
    network.apply(enable_fake_quant)
    for module in network.modules():
        if isinstance(module, FakeQuantize) and isinstance(module.activation_post_process, HistogramObserver):
            disable_observer(module)  # type: ignore[no-untyped-call]
