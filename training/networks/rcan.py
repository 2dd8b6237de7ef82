"""RCAN, channel attention in residual groups (Zhang et al., arXiv 1807.02758): ten of twenty blocks."""

import torch
from torch import Tensor, nn

from training.networks.upsampler import upsampler

FEATURES, GROUPS, BLOCKS, REDUCTION = 64, 10, 20, 16


class ChannelAttention(nn.Module):
    """Each channel weighed by what the means of all of them say."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(FEATURES, FEATURES // REDUCTION, 1)
        self.excite = nn.Conv2d(FEATURES // REDUCTION, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)  # (B, 64, 1, 1)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + residual


def _conv() -> nn.Conv2d:
    return nn.Conv2d(FEATURES, FEATURES, 3, padding=1)


def _group() -> Residual:
    blocks = (Residual(_conv(), nn.ReLU(), _conv(), ChannelAttention()) for _ in range(BLOCKS))
    return Residual(*blocks, _conv())


class Rcan(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.body = Residual(*(_group() for _ in range(GROUPS)), _conv())
        self.upsampler = upsampler(FEATURES, scale)
        self.exit = nn.Conv2d(FEATURES, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        sr: Tensor = self.exit(self.upsampler(self.body(self.entry(x))))
        return sr
