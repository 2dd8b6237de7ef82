"""Exact rewriting of a folded AWSRN for a processor whose vectors are 16 channels wide.

*Packing.* A k×k convolution to c channels of which a PixelShuffle(s) makes a picture leaves most lanes empty
where c is small: a luma tail ×2 has 4. It equals one that computes p×p neighbouring positions at once: a
(k+p-1)×(k+p-1) convolution of stride p to p²·c channels, each position's kernel shifted to its place, before
a PixelShuffle(s·p). It pads p-1 more zeros below and right, so that a side which is no multiple of p is
computed whole; what lies beyond the picture is cropped after the shuffle.

*The LRFU as a sum.* A convolution of concatenated units is the sum of one convolution for each: no
concatenation, and INT8 gives each unit a range of its own.

Only the OpenVINO backend runs this form, and leaves the shuffle to the host, as a copy that has to be made
anyway. The GPU backends keep the plain one; that is reasoned, not measured. Packing takes 1.44 times as many
multiply-adds for a 5×5 tail, which pays for idle lanes alone; a sum takes a convolution and an addition more
for each unit but the first, each a kernel to launch; and their planes have to be whole where the encoder is.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

from engine.network.fold import FoldedAwsrn, FoldedLfb

LANES = 16


class PackedConv(nn.Conv2d):
    """Of stride `stride`, with `before` zeros above and left of its input and `after` below and right."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int, before: int, after: int) -> None:
        out_channels, in_channels, rows, columns = weight.shape
        super().__init__(in_channels, out_channels, (rows, columns), stride=stride, bias=bias is not None)
        self.weight.data = weight
        if bias is not None:
            self.bias = nn.Parameter(bias)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        padded = pad(x, (self.before, self.after, self.before, self.after))
        return conv2d(padded, self.weight, self.bias, self.stride)


class SummedLfb(nn.Module):
    """The function of the `FoldedLfb` it was made of."""

    def __init__(self, lfb: FoldedLfb) -> None:
        super().__init__()
        self.awrus = lfb.awrus
        self.lrfus = nn.ModuleList(_slices(lfb.lrfu, len(lfb.awrus)))
        self.shortcut = lfb.shortcut

    def forward(self, x: Tensor) -> Tensor:
        unit_output = x
        total = x if self.shortcut == 1.0 else x * self.shortcut
        for awru, lrfu in zip(self.awrus, self.lrfus, strict=True):
            unit_output = awru(unit_output)
            total = total + lrfu(unit_output)
        return total


class PackedAwsrn(nn.Module):
    """(B, C, h, w) on 0-255 → (B, C·b², ⌈h/p⌉, ⌈w/p⌉), which `unpack` makes a picture of; b = s·p."""

    mean: Tensor

    def __init__(self, net: FoldedAwsrn) -> None:
        super().__init__()
        config = net.config
        self.config = config
        self.register_buffer("mean", net.mean.clone())
        self.head = net.head
        self.body = nn.Sequential(*(SummedLfb(lfb) for lfb in net.body if isinstance(lfb, FoldedLfb)))
        positions = best_positions(net.tail, config.scale)
        self.tail = pack_conv(net.tail, config.scale, positions)
        self.skip = pack_conv(net.skip, config.scale, positions)
        self.block = config.scale * positions

    def forward(self, lr: Tensor) -> Tensor:
        x = lr - self.mean
        sr: Tensor = self.tail(self.body(self.head(x))) + self.skip(x)
        return sr


def pack(net: FoldedAwsrn) -> PackedAwsrn:
    """For inference; the network given is not changed."""
    return PackedAwsrn(net).requires_grad_(False).eval()


def unpack(packed: Tensor, block: int, height: int, width: int) -> Tensor:
    """(B, C·b², h, w) → (B, C, height, width): shuffled, and cropped to the picture."""
    return pixel_shuffle(packed, block)[:, :, :height, :width]


def best_positions(conv: nn.Conv2d, scale: int) -> int:
    """p of fewest multiply-adds for each position, lanes that carry nothing included, for a convolution whose
    output goes through PixelShuffle(scale)."""

    def cost(positions: int) -> float:
        lanes = -(-conv.out_channels * positions**2 // LANES) * LANES
        reach = conv.stride[0] * (positions - 1)
        rows, columns = (side + reach for side in conv.kernel_size)
        return lanes * rows * columns / positions**2

    return min((1, 2), key=cost)


def pack_conv(conv: nn.Conv2d, scale: int, positions: int) -> PackedConv:
    """p×p positions of a convolution whose output goes through PixelShuffle(scale)."""
    assert isinstance(conv.padding, tuple)
    step, margin = conv.stride[0], conv.padding[0]
    reach = step * (positions - 1)
    out_channels, in_channels, rows, columns = conv.weight.shape
    channels = out_channels // scale**2
    phases = conv.weight.data.view(channels, scale, scale, in_channels, rows, columns)
    # (channel, position's row, phase's row, position's column, phase's column, …) as PixelShuffle wants it
    weight = torch.zeros(
        channels, positions, scale, positions, scale, in_channels, rows + reach, columns + reach
    )
    for i in range(positions):
        for j in range(positions):
            top, left = step * i, step * j
            weight[:, i, :, j, :, :, top : top + rows, left : left + columns] = phases
    bias = None
    if conv.bias is not None:
        bias = conv.bias.data.view(channels, 1, scale, 1, scale)
        bias = bias.expand(channels, positions, scale, positions, scale).flatten()
    return PackedConv(
        weight.flatten(0, 4), bias, stride=step * positions, before=margin, after=margin + reach
    )


def _slices(lrfu: nn.Conv2d, units: int) -> list[nn.Conv2d]:
    """One convolution for each unit's share of the input channels; the first has the bias."""
    slices = []
    for index, weight in enumerate(lrfu.weight.data.chunk(units, dim=1)):
        out_channels, in_channels, kernel, _ = weight.shape
        conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=index == 0)
        conv.weight.data = weight.contiguous()
        if index == 0:
            conv.bias = lrfu.bias
        slices.append(conv)
    return slices
