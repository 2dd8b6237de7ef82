"""The paper's ablations (section 4.3): Basic RU and wRU in place of AWRU, LFBs without their LRFU, a plain
3×3 reconstruction in place of AWMS. Everything else, weight norm included, is AWSRN's.

So WDSR here has the 3×3 skip of AWSRN, where its own paper has a 5×5: a row of tables 1-3 differs from the
next by what it names and by nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle
from torch.nn.utils.parametrizations import weight_norm

from engine.network.awsrn import AWMS, AWRU, LFB, PIXEL_SCALE
from training.networks.config import AblationConfig, UnitKind


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Module:
    conv: nn.Module = weight_norm(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2))
    return conv


class BasicRU(nn.Module):
    """The wide-activation residual unit of WDSR, figure 3(a), equation 5: f(x) + x."""

    def __init__(self, features: int, block_features: int) -> None:
        super().__init__()
        self.conv1 = _conv(features, block_features, 3)
        self.conv2 = _conv(block_features, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(torch.relu(self.conv1(x)))
        return residual + x


class WRU(BasicRU):
    """The residual unit weighted by wSE, figure 3(b): λ_res and λ_x come from the picture itself.

    wSE sees both branches, as the figure shows and its source has it (arXiv 1811.06878: pooled, then fully
    connected layers). The paper gives no sizes; with AWSRN's weight norm and 2n/8 hidden features it has 548
    parameters a unit, which is table 1's 8,768. Both weights start near 1, as AWRU's do.
    """

    def __init__(self, features: int, block_features: int) -> None:
        super().__init__(features, block_features)
        hidden = max(1, 2 * features // 8)
        self.squeeze = _conv(2 * features, hidden, 1)
        self.excite = _conv(hidden, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(torch.relu(self.conv1(x)))
        pooled = torch.cat([residual, x], dim=1).mean(dim=(2, 3), keepdim=True)  # (B, 2n, 1, 1)
        weights = 2 * torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))  # (B, 2, 1, 1)
        return weights[:, :1] * residual + weights[:, 1:] * x


def residual_unit(kind: UnitKind, features: int, block_features: int) -> nn.Module:
    match kind:
        case "basic":
            return BasicRU(features, block_features)
        case "wru":
            return WRU(features, block_features)
        case "awru":
            return AWRU(features, block_features)


class FusedUnits(LFB):
    """An LFB over residual units of any kind."""

    def __init__(self, config: AblationConfig) -> None:
        n, b = config.features, config.block_features
        super().__init__(config.units, n, b)
        self.awrus = nn.ModuleList(residual_unit(config.unit, n, b) for _ in range(config.units))


class Ablated(nn.Module):
    """(B, C, h, w) float on the 0-255 scale → (B, C, s·h, s·w) on the same scale, not clamped."""

    mean: Tensor

    def __init__(self, config: AblationConfig) -> None:
        super().__init__()
        self.config = config
        relative = config.relative()
        n, b, channels, scale = config.features, config.block_features, relative.channels, config.scale
        mean = 255.0 * torch.tensor(relative.mean).view(1, channels, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.head = _conv(channels, n, 3)
        if config.lrfu:
            self.body = nn.Sequential(*(FusedUnits(config) for _ in range(config.lfbs)))
        else:
            units = config.lfbs * config.units
            self.body = nn.Sequential(*(residual_unit(config.unit, n, b) for _ in range(units)))
        self.tail = (
            AWMS(n, channels, scale, config.kernels)
            if config.kernels
            else nn.Sequential(_conv(n, channels * scale**2, 3), nn.PixelShuffle(scale))
        )
        self.skip = _conv(channels, channels * scale**2, 3)

    def forward(self, lr: Tensor) -> Tensor:
        x = (lr - self.mean) / PIXEL_SCALE
        sr: Tensor = self.tail(self.body(self.head(x))) + pixel_shuffle(self.skip(x), self.config.scale)
        return sr * PIXEL_SCALE + self.mean
