"""The frame graph with packed planes: what `FrameNet` computes, but the last shuffle is left to the reader.

uint8 planes in. Out, uint8 as well, (B, h', w', c·b²): for each block of b×b pixels of a plane's b² channels
together, in the order of PixelShuffle, plane after plane. They are clamped, rounded and made bytes before a
shuffle, which then moves a quarter of the bytes and can be the copy out of the graph (`unshuffle.py`).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from engine.config import AwsrnConfig
from engine.frame import Colour
from engine.network.frame_net import Enlarge, FrameNet, Subsample, frame_net, to_uint8
from engine.network.pack import PackedAwsrn
from engine.network.packed_conv import best_positions, pack_conv


class PackedFrameNet(nn.Module):
    """y (B, 1, h, w) and uv (B, 2, h/2, w/2), uint8 → packed planes of s times the size."""

    def __init__(self, frame: FrameNet, net: PackedAwsrn) -> None:
        super().__init__()
        self.net = net
        self.kind = frame.kind
        if frame.kind == "y":
            self.chroma: nn.Module = _PackedFilter(frame.chroma, frame.chroma.shuffle.upscale_factor)
        else:
            self.chroma, self.to_rgb, self.to_yuv = frame.chroma, frame.to_rgb, frame.to_yuv
            # The matrix needs R, G and B of a pixel side by side.
            self.shuffle = nn.PixelShuffle(net.block)
            self.subsample = _PackedFilter(frame.subsample, 1)

    def forward(self, y: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
        luma, chroma = y.to(torch.float32), self.chroma(uv.to(torch.float32))
        if self.kind == "y":
            return _bytes(self.net(luma)), _bytes(chroma)
        yuv = self.to_yuv(self.shuffle(self.net(self.to_rgb(torch.cat([luma, chroma], dim=1)))))
        return _bytes(yuv[:, :1]), _bytes(self.subsample(yuv[:, 1:]))


def packed_frame_net(net: PackedAwsrn, config: AwsrnConfig, colour: Colour) -> PackedFrameNet:
    frame = frame_net(nn.Identity(), config, colour)
    return PackedFrameNet(frame, net).requires_grad_(False).eval()


class _PackedFilter(nn.Module):
    """A filter of two planes whose output is left packed, for PixelShuffle(scale · p)."""

    def __init__(self, plain: Enlarge | Subsample, scale: int) -> None:
        super().__init__()
        self.margins = plain.margins
        self.conv = pack_conv(plain.conv, scale, best_positions(plain.conv, scale))

    def forward(self, planes: Tensor) -> Tensor:
        out: Tensor = self.conv(pad(planes, self.margins, mode="replicate"))
        return out


def _bytes(x: Tensor) -> Tensor:
    return to_uint8(x).permute(0, 2, 3, 1)
