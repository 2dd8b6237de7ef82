"""AWSRN, the adaptive weighted super-resolution network, in the paper's terms (arXiv 1904.02358, section 3).

Where the paper is silent the authors' released code decides: zero padding after the mean shift, a 3×3 LRFU,
weight norm on every convolution.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle
from torch.nn.utils.parametrizations import weight_norm

from engine.config import AwsrnConfig

# The released code works on (x - 255 mean) / 127.5.
PIXEL_SCALE = 127.5


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Module:
    conv: nn.Module = weight_norm(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2))
    return conv


def _scalar(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]))


class AWRU(nn.Module):
    """Adaptive weighted residual unit, equation 6: λ_res · f(x) + λ_x · x, f = conv, ReLU, conv."""

    def __init__(self, features: int, block_features: int) -> None:
        super().__init__()
        self.conv1 = _conv(features, block_features, 3)
        self.conv2 = _conv(block_features, features, 3)
        self.lambda_res = _scalar(1.0)
        self.lambda_x = _scalar(1.0)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(torch.relu(self.conv1(x)))
        return self.lambda_res * residual + self.lambda_x * x


class LFB(nn.Module):
    """Local fusion block, equation 4: a chain of AWRUs whose outputs the LRFU fuses."""

    def __init__(self, awrus: int, features: int, block_features: int) -> None:
        super().__init__()
        self.awrus = nn.ModuleList(AWRU(features, block_features) for _ in range(awrus))
        self.lrfu = _conv(awrus * features, features, 3)
        self.lambda_res = _scalar(1.0)
        self.lambda_x = _scalar(1.0)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        unit_output = x
        for awru in self.awrus:
            unit_output = awru(unit_output)
            outputs.append(unit_output)
        fused: Tensor = self.lrfu(torch.cat(outputs, dim=1))
        return self.lambda_res * fused + self.lambda_x * x


class AWMS(nn.Module):
    """Adaptive weighted multi-scale reconstruction, equation 3: Σ α_k · PixelShuffle(conv_k(x))."""

    def __init__(self, features: int, channels: int, scale: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = scale
        self.branches = nn.ModuleDict({f"k{k}": _conv(features, channels * scale**2, k) for k in kernels})
        self.alphas = nn.ParameterDict({f"k{k}": _scalar(0.25) for k in kernels})

    def forward(self, x: Tensor) -> Tensor:
        # α is a scalar, so it may be applied before the one shuffle that all branches share.
        total = sum(self.alphas[name] * conv(x) for name, conv in self.branches.items())
        assert isinstance(total, Tensor)
        return pixel_shuffle(total, self.scale)


class Context(nn.Module):
    """Whether a picture is compressed, which the whole of it tells better than a few of its pixels:
    (B, C, h, w) of any size → (B, 1, 1, 1), the logit.

    It sees the logarithm of how much there is of each frequency in blocks of 8×8 pixels, for codecs quantise
    frequencies; every fourth block says as much as all. It begins with the DCT.
    """

    def __init__(self, config: AwsrnConfig) -> None:
        super().__init__()
        first, *others = (nn.Conv2d(*shape) for shape in config.context_convs())
        first.weight.data[:] = PIXEL_SCALE / config.channels * _dct(8)
        assert first.bias is not None
        first.bias.data.zero_()
        self.convs = nn.ModuleList([first, *others])
        self.norm = nn.BatchNorm2d(first.out_channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # what it looks for may be half a level
            frequencies, hidden, last = self.convs
            logit: Tensor = last(torch.relu(hidden(self.norm(mean_log(frequencies, x.float())))))
        return logit


def mean_log(frequencies: nn.Module, x: Tensor) -> Tensor:
    """What a context sees: (B, C, h, w) → (B, frequencies, 1, 1)."""
    amounts: Tensor = frequencies(pad(x, (0, 7, 0, 7), mode="replicate")).abs()
    return torch.log(amounts + 0.1).mean((2, 3), keepdim=True)  # what is below a tenth of a level is rounding


def _dct(size: int) -> Tensor:
    """The two-dimensional DCT-II as kernels, orthonormal: (size², 1, size, size)."""
    k, x = torch.arange(size)[:, None], torch.arange(size)
    waves = torch.cos(torch.pi / size * (x + 0.5) * k) * (2 / size) ** 0.5
    waves[0] /= 2**0.5
    return torch.einsum("iy,jx->ijyx", waves, waves).reshape(size**2, 1, size, size)


class Awsrn(nn.Module):
    """(B, C, h, w) float on the 0-255 scale → (B, C, s·h, s·w) on the same scale, not clamped."""

    mean: Tensor

    def __init__(self, config: AwsrnConfig) -> None:
        super().__init__()
        self.config = config
        n, channels = config.features, config.channels
        mean = 255.0 * torch.tensor(config.mean).view(1, channels, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.head = _conv(channels * config.grid**2, n, 3)
        if config.context:
            self.context = Context(config)
            self.shift = nn.Parameter(torch.zeros(1, n, 1, 1))
        self.body = nn.Sequential(*(LFB(config.awrus, n, config.block_features) for _ in range(config.lfbs)))
        self.tail = AWMS(n, channels, config.scale * config.grid, config.kernels)
        self.skip = _conv(channels, channels * config.scale**2, 3)

    def forward(self, lr: Tensor, probability: Tensor | None = None) -> Tensor:
        """`probability`: of each picture's being compressed, (B, 1, 1, 1), where it is known better than `lr`
        by itself tells the context, as in training of what is around a patch."""
        x = self._normalised(lr)
        skipped = pixel_shuffle(self.skip(x), self.config.scale)
        height, width = skipped.shape[2:]
        features = self.head(self._on_grid(x))
        if self.config.context:
            if probability is None:
                probability = torch.sigmoid(self.compressed(lr))
            features = features + probability * self.shift
        sr: Tensor = self.tail(self.body(features))[..., :height, :width] + skipped
        return sr * PIXEL_SCALE + self.mean

    def compressed(self, lr: Tensor) -> Tensor:
        """Logit of each picture's being compressed, (B, C, h, w) of any size → (B, 1, 1, 1)."""
        logit: Tensor = self.context(self._normalised(lr))
        return logit

    def _normalised(self, lr: Tensor) -> Tensor:
        return (lr - self.mean) / PIXEL_SCALE

    def _on_grid(self, x: Tensor) -> Tensor:
        grid = self.config.grid
        if grid == 1:
            return x
        height, width = x.shape[2:]
        return pixel_unshuffle(pad(x, (0, -width % grid, 0, -height % grid)), grid)
