"""Exact inference-time rewriting of AWSRN into Conv, ReLU, Add, Concat and one PixelShuffle.

Each step changes the numbers by float32 rounding only: weight norm becomes plain weights; λ_res goes into the
second convolution of its unit, what is between its two is scaled so that half precision holds it; λ_x leaves
the shortcut by rescaling the residual stream, y_k = x_k / ∏ λ_x; the AWMS branches, parallel linear
convolutions of one input, become one convolution of the largest kernel, to which the global skip is added
before the shuffle; the pixel scale goes into the outer convolutions; a context's normalisation goes into the
convolution behind it; where features have a coarser grid than pixels, head and global skip step from pixels
to it. The mean shift stays, because zero padding comes after it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from engine.network.awsrn import AWMS, AWRU, LFB, PIXEL_SCALE, Awsrn, mean_log
from engine.network.packed_conv import pack_conv, unshuffled_conv

# A stream scaled beyond this is left alone: a λ_x near zero would divide by almost nothing.
MAX_RESCALE = 64.0


class FoldedAwru(nn.Module):
    """conv, ReLU, conv; plus the input, times λ_x where that could not be folded."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d, shortcut: float) -> None:
        super().__init__()
        self.conv1, self.relu, self.conv2 = conv1, nn.ReLU(), conv2
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(self.relu(self.conv1(x)))
        return residual + (x if self.shortcut == 1.0 else x * self.shortcut)


class FoldedLfb(nn.Module):
    def __init__(self, awrus: list[FoldedAwru], lrfu: nn.Conv2d, shortcut: float) -> None:
        super().__init__()
        self.awrus = nn.ModuleList(awrus)
        self.lrfu = lrfu
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        unit_output = x
        for awru in self.awrus:
            unit_output = awru(unit_output)
            outputs.append(unit_output)
        fused: Tensor = self.lrfu(torch.cat(outputs, dim=1))
        return fused + (x if self.shortcut == 1.0 else x * self.shortcut)


class FoldedContext(nn.Module):
    """What is added to the features of a picture whose mean is shifted: (B, C, h, w) → (B, n, 1, 1)."""

    def __init__(self, network: Awsrn) -> None:
        super().__init__()
        frequencies, hidden, last = (plain_conv(conv) for conv in network.context.convs)
        self.frequencies = scaled(frequencies, inputs=1 / PIXEL_SCALE)
        self.hidden, self.last = _normalised(hidden, network.context.norm), last
        self.shift = nn.Conv2d(1, network.config.features, 1, bias=False)
        self.shift.weight.data = network.shift.detach().view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        logit = self.last(torch.relu(self.hidden(mean_log(self.frequencies, x))))
        added: Tensor = self.shift(torch.sigmoid(logit))
        return added


class FoldedAwsrn(nn.Module):
    """The function of the `Awsrn` it was made of: (B, C, h, w) → (B, C, s·h, s·w) on 0-255, not clamped."""

    mean: Tensor

    def __init__(self, network: Awsrn) -> None:
        super().__init__()
        config = network.config
        self.config = config
        self.register_buffer("mean", network.mean.clone())
        mean = network.mean.flatten().repeat_interleave(config.scale**2)
        self.head = scaled(plain_conv(network.head), inputs=1 / PIXEL_SCALE)
        self.context = FoldedContext(network) if config.context else None
        blocks, scale = [], 1.0
        for lfb in network.body:
            assert isinstance(lfb, LFB)
            block, scale = fold_lfb(lfb, scale)
            blocks.append(block)
        self.body = nn.Sequential(*blocks)
        self.tail = scaled(merge_awms(network.tail), inputs=scale, outputs=PIXEL_SCALE)
        self.skip = scaled(plain_conv(network.skip), inputs=1 / PIXEL_SCALE, outputs=PIXEL_SCALE)
        assert self.skip.bias is not None
        self.skip.bias.data += mean
        if config.grid > 1:
            self.head = unshuffled_conv(self.head, config.grid)
            self.skip = pack_conv(self.skip, config.scale, config.grid)
        self.shuffle = nn.PixelShuffle(config.scale * config.grid)

    def forward(self, lr: Tensor) -> Tensor:
        x = lr - self.mean
        sr: Tensor = self.shuffle(self.correction(x) + self.skip(x))
        if self.config.grid > 1:  # what is beyond the picture where its sides are odd
            height, width = (self.config.scale * side for side in lr.shape[2:])
            sr = sr[..., :height, :width]
        return sr

    def correction(self, x: Tensor) -> Tensor:
        """Of a picture whose mean is shifted, what the network adds to the global skip."""
        features = self.head(x)
        if self.context is not None:
            features = features + self.context(x)
        sr: Tensor = self.tail(self.body(features))
        return sr


def fold(network: Awsrn) -> FoldedAwsrn:
    """The network for inference; the one given is not changed."""
    with torch.no_grad():
        return FoldedAwsrn(network).requires_grad_(False).eval()


def plain_conv(conv: nn.Module) -> nn.Conv2d:
    """A convolution without weight norm: w = g · v / |v|."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return _conv2d(conv.weight.detach(), conv.bias.detach(), conv.stride[0])


def scaled(conv: nn.Conv2d, *, inputs: float | Tensor = 1.0, outputs: float = 1.0) -> nn.Conv2d:
    """outputs · conv(inputs · x). `inputs` may be one factor for each input channel."""
    assert conv.bias is not None
    factor = torch.as_tensor(inputs, dtype=torch.float64).view(1, -1, 1, 1)
    return _conv2d(conv.weight.double() * factor * outputs, conv.bias.double() * outputs, conv.stride[0])


def _normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The 1×1 convolution behind a normalisation as one."""
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = conv.weight / (norm.running_var + norm.eps).sqrt().view(1, -1, 1, 1)
    return _conv2d(weight, conv.bias - weight.flatten(1) @ norm.running_mean)


def merge_awms(awms: AWMS) -> nn.Conv2d:
    """Σ α_k · conv_k as one convolution, each kernel centred in the largest."""
    weight, bias = awms_kernel(awms)
    return _conv2d(weight.detach(), bias.detach())


def awms_kernel(awms: AWMS) -> tuple[Tensor, Tensor]:
    """Weight and bias of the merged convolution, float64, as functions of the branches' own."""
    largest = max(int(name.removeprefix("k")) for name in awms.branches)
    weights, biases = [], []
    for name, conv in awms.branches.items():
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        alpha = awms.alphas[name].double()
        margin = (largest - conv.kernel_size[0]) // 2
        weights.append(pad(alpha * conv.weight.double(), [margin] * 4))
        biases.append(alpha * conv.bias.double())
    return torch.stack(weights).sum(0), torch.stack(biases).sum(0)


def fold_awru(awru: AWRU, scale: float) -> tuple[FoldedAwru, float]:
    """`scale` is c in x = c · y, where y is the stream that comes in; returned with the unit is the c that
    goes out: conv1 takes c in, conv2 gives λ_res / c out."""
    scale_out, shortcut = _fold_shortcut(awru.lambda_x, scale)
    conv1 = scaled(plain_conv(awru.conv1), inputs=scale)
    conv2 = scaled(plain_conv(awru.conv2), outputs=awru.lambda_res.item() / scale_out)
    hidden = _balance(conv1.weight, conv2.weight)
    conv1, conv2 = scaled(conv1, outputs=1 / hidden), scaled(conv2, inputs=hidden)
    return FoldedAwru(conv1, conv2, shortcut), scale_out


def _balance(into: Tensor, out: Tensor) -> float:
    """By how much less the ReLU between two convolutions may get, so that their weights are alike: nothing in
    training keeps it within what half precision holds, as whatever the first gives the second takes back. A
    power of two, which changes no float32 result."""
    into_max, out_max = into.abs().max().item(), out.abs().max().item()
    return 2.0 ** round(math.log2(into_max / out_max) / 2) if into_max and out_max else 1.0


def fold_lfb(lfb: LFB, scale: float) -> tuple[FoldedLfb, float]:
    """As `fold_awru`; the slices of the LRFU take each unit's own scale."""
    units, scales, unit_scale = [], [], scale
    for awru in lfb.awrus:
        assert isinstance(awru, AWRU)
        unit, unit_scale = fold_awru(awru, unit_scale)
        units.append(unit)
        scales.append(unit_scale)
    scale_out, shortcut = _fold_shortcut(lfb.lambda_x, scale)
    lrfu = plain_conv(lfb.lrfu)
    slices = torch.tensor(scales, dtype=torch.float64).repeat_interleave(lrfu.out_channels)
    lrfu = scaled(lrfu, inputs=slices, outputs=lfb.lambda_res.item() / scale_out)
    return FoldedLfb(units, lrfu, shortcut), scale_out


def _fold_shortcut(lambda_x: Tensor, scale: float) -> tuple[float, float]:
    """(scale of the stream behind the addition, factor that stays on the shortcut)."""
    factor = lambda_x.item()
    if 1 / MAX_RESCALE <= abs(scale * factor) <= MAX_RESCALE:
        return scale * factor, 1.0
    return scale, factor


def _conv2d(weight: Tensor, bias: Tensor, stride: int = 1) -> nn.Conv2d:
    """Of stride 1, one that keeps the picture's size."""
    out_channels, in_channels, kernel, _ = weight.shape
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2 if stride == 1 else 0)
    conv.weight.data = weight.float()
    conv.bias = nn.Parameter(bias.float())
    return conv
