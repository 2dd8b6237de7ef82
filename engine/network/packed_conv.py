"""Convolutions that step over p×p positions and compute them at once, as channels.

A k×k convolution to c channels of which a PixelShuffle(s) makes a picture leaves most lanes of a processor's
vectors empty where c is small: a luma tail ×2 has 4. It equals one that computes p×p neighbouring positions:
a (k+p-1)×(k+p-1) convolution of stride p to p²·c channels, each position's kernel shifted to its place,
before a PixelShuffle(s·p). It pads p-1 more zeros below and right, so that a side which is no multiple of p
is computed whole; what lies beyond the picture is cropped after the shuffle.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

LANES = 16


class PackedConv(nn.Conv2d):
    """Of stride `stride`, with `before` zeros above and left of its input and `after` below and right."""

    before: int
    after: int

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
    before, after = _margins(conv)
    step = conv.stride[0]
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
    return PackedConv(weight.flatten(0, 4), bias, stride=step * positions, before=before, after=after + reach)


def unshuffled_conv(conv: nn.Conv2d, grid: int) -> PackedConv:
    """The convolution of a PixelUnshuffle(grid) as one of pixels: of stride `grid`, for any size."""
    assert conv.stride == (1, 1)
    before, after = (grid * margin for margin in _margins(conv))
    weight = pixel_shuffle(conv.weight.data, grid)
    bias = None if conv.bias is None else conv.bias.data
    return PackedConv(weight, bias, stride=grid, before=before, after=after + grid - 1)


def _margins(conv: nn.Conv2d) -> tuple[int, int]:
    if isinstance(conv, PackedConv):
        return conv.before, conv.after
    assert isinstance(conv.padding, tuple)
    return conv.padding[0], conv.padding[0]
