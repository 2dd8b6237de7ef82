"""The whole frame as one graph: uint8 YUV 4:2:0 planes in, uint8 planes of the upscaled frame out.

A `y` model sends luma through the network and enlarges chroma by the fixed bicubic kernel. An `rgb` model
brings chroma to luma's size, goes to RGB by the stream's matrix and range, and comes back the same way.

Chroma of 4:2:0 is sited as H.264 has it by default (ITU-T H.264 annex E, chroma_sample_loc_type 0): in a
row with every second luma sample, vertically half-way between two luma rows. Every position below follows
from that and from pixel k's centre being at k + 1/2, so that the output is sited as the input was.

Only fixed convolutions, pixel shuffles and elementwise arithmetic: the graph is the same in every backend,
except that OpenVINO runs it packed (`packed_frame.py`). It computes in one type throughout, float32 or half:
a code value is exact in either.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from engine.config import AwsrnConfig, ColourKind
from engine.frame import Colour
from engine.network.bicubic import Polyphase, enlarging, shrinking

# Weights of R and B in luma, from which each matrix follows (ITU-R BT.601, BT.709).
LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


class FrameNet(nn.Module):
    """y (B, 1, h, w) and uv (B, 2, h/2, w/2), uint8 → the same at s times the size; h and w even.

    `net` maps (B, C, h, w) on the 0-255 scale to (B, C, s·h, s·w), C = 1 for `y`, 3 for `rgb`; it becomes
    part of this module and is converted to `dtype` with all the rest.
    """

    def __init__(
        self,
        net: nn.Module,
        scale: int,
        kind: ColourKind,
        colour: Colour,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.net = net
        self.kind = kind
        if kind == "y":
            self.chroma = Enlarge(scale, -(scale - 1) / (2 * scale), -(scale - 1) / (4 * scale))
        else:
            self.chroma = Enlarge(2, -1 / 4, 0.0)
            self.to_rgb, self.to_yuv = _matrices(colour)
            self.subsample = Subsample()
        self.to(dtype)

    def forward(self, y: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
        luma, chroma = y.to(self.dtype), self.chroma(uv.to(self.dtype))
        if self.kind == "y":
            return to_uint8(self.net(luma)), to_uint8(chroma)
        yuv = self.to_yuv(self.net(self.to_rgb(torch.cat([luma, chroma], dim=1))))
        return to_uint8(yuv[:, :1]), to_uint8(self.subsample(yuv[:, 1:]))


def frame_net(
    net: nn.Module, config: AwsrnConfig, colour: Colour, dtype: torch.dtype = torch.float32
) -> FrameNet:
    """The frame graph of a network, for inference; `net` stays as it is."""
    net = copy.deepcopy(net)
    return FrameNet(net, config.scale, config.colour, colour, dtype).requires_grad_(False).eval()


def to_uint8(x: Tensor) -> Tensor:
    # OpenVINO's cast wraps and CUDA's is undefined out of range: clamp first.
    return x.clamp(0.0, 255.0).round().to(torch.uint8)


class Enlarge(nn.Module):
    """(B, 2, h, w) → (B, 2, s·h, s·w) by the bicubic kernel, borders repeated."""

    def __init__(self, scale: int, vertical_offset: float, horizontal_offset: float) -> None:
        super().__init__()
        vertical = enlarging(scale, vertical_offset)
        horizontal = enlarging(scale, horizontal_offset)
        self.margins = _margins(vertical, horizontal)
        self.conv = _plane_conv(vertical, horizontal, step=1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, planes: Tensor) -> Tensor:
        out: Tensor = self.shuffle(self.conv(pad(planes, self.margins, mode="replicate")))
        return out


class Subsample(nn.Module):
    """(B, 2, h, w) at luma's size → (B, 2, h/2, w/2) at 4:2:0's positions."""

    def __init__(self) -> None:
        super().__init__()
        vertical, horizontal = shrinking(2, 0.5), shrinking(2, 0.0)
        self.margins = _margins(vertical, horizontal)
        self.conv = _plane_conv(vertical, horizontal, step=2)

    def forward(self, planes: Tensor) -> Tensor:
        out: Tensor = self.conv(pad(planes, self.margins, mode="replicate"))
        return out


def _margins(vertical: Polyphase, horizontal: Polyphase) -> Sequence[int]:
    return [horizontal.before, horizontal.after, vertical.before, vertical.after]


def _plane_conv(vertical: Polyphase, horizontal: Polyphase, *, step: int) -> nn.Conv2d:
    """Two planes filtered alike, as one block-diagonal convolution; a plane's phases are adjacent channels,
    as PixelShuffle wants them."""
    kernels = torch.einsum("ai,bj->abij", torch.tensor(vertical.taps), torch.tensor(horizontal.taps))
    kernels = kernels.flatten(0, 1)  # (phases, kv, kh)
    phases, kv, kh = kernels.shape
    weight = torch.zeros(2, phases, 2, kv, kh)
    for plane in range(2):
        weight[plane, :, plane] = kernels
    conv = nn.Conv2d(2, 2 * phases, (kv, kh), stride=step, bias=False)
    conv.weight.data = weight.flatten(0, 1)
    return conv


def _matrices(colour: Colour) -> tuple[nn.Conv2d, nn.Conv2d]:
    """YUV code values → RGB on 0-255 and back, as 1×1 convolutions."""
    red, blue = LUMA_WEIGHTS[colour.matrix]
    luma = torch.tensor([red, 1 - red - blue, blue], dtype=torch.float64)
    to_yuv = torch.stack(
        [
            luma,
            (torch.tensor([0.0, 0.0, 1.0]) - luma) / (2 * (1 - blue)),
            (torch.tensor([1.0, 0.0, 0.0]) - luma) / (2 * (1 - red)),
        ]
    )
    if not colour.full_range:
        to_yuv *= torch.tensor([[219.0], [224.0], [224.0]]) / 255.0
    zero = torch.tensor([0.0 if colour.full_range else 16.0, 128.0, 128.0], dtype=torch.float64)
    to_rgb = torch.linalg.inv(to_yuv)
    return _matrix_conv(to_rgb, -to_rgb @ zero), _matrix_conv(to_yuv, zero)


def _matrix_conv(matrix: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(3, 3, 1)
    conv.weight.data = matrix[:, :, None, None].float()
    conv.bias = nn.Parameter(bias.float())
    return conv
