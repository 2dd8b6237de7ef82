"""Exact rewriting of a folded AWSRN for a processor whose vectors are 16 channels wide.

*Packing.* Tail and global skip compute neighbouring positions at once where that fills the lanes of vectors
(`packed_conv.py`).

*The LRFU as a sum.* A convolution of concatenated units is the sum of one convolution for each: no
concatenation, and INT8 gives each unit a range of its own.

Only the OpenVINO backend runs this form, and leaves the shuffle to the host, as a copy that has to be made
anyway. The GPU backends keep the plain one; that is reasoned, not measured. Packing takes 1.44 times as many
multiply-adds for a 5×5 tail, which pays for idle lanes alone; a sum takes a convolution and an addition more
for each unit but the first, each a kernel to launch; and their planes have to be whole where the encoder is.
"""

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from engine.network.fold import FoldedAwsrn, FoldedLfb
from engine.network.packed_conv import best_positions, pack_conv


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
        self.head, self.context = net.head, net.context
        self.body = nn.Sequential(*(SummedLfb(lfb) for lfb in net.body if isinstance(lfb, FoldedLfb)))
        block = net.shuffle.upscale_factor
        positions = best_positions(net.tail, block)
        self.tail = pack_conv(net.tail, block, positions)
        self.skip = pack_conv(net.skip, block, positions)
        self.block = block * positions

    def forward(self, lr: Tensor) -> Tensor:
        x = lr - self.mean
        features = self.head(x)
        if self.context is not None:
            features = features + self.context(x)
        sr: Tensor = self.tail(self.body(features)) + self.skip(x)
        return sr


def pack(net: FoldedAwsrn) -> PackedAwsrn:
    """For inference; the network given is not changed."""
    return PackedAwsrn(net).requires_grad_(False).eval()


def unpack(packed: Tensor, block: int, height: int, width: int) -> Tensor:
    """(B, C·b², h, w) → (B, C, height, width): shuffled, and cropped to the picture."""
    return pixel_shuffle(packed, block)[:, :, :height, :width]


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
