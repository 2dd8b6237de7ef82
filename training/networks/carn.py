"""CARN and CARN-M, cascading residual networks (Ahn et al., arXiv 1803.08664).

As published, one network holds the upsamplers of ×2, ×3 and ×4, and the published parameters count all
three. Here a network has one scale: the other two upsamplers are kept, so that counts and weights are the
published ones, but they take no gradient.
"""

import torch
from torch import Tensor, nn

from engine.config import RGB_MEAN
from training.networks.upsampler import upsampler

FEATURES = 64


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.conv2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class EfficientResidualBlock(nn.Module):
    """Grouped 3×3 convolutions and a pointwise one."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1, groups=groups)
        self.conv2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1, groups=groups)
        self.pointwise = nn.Conv2d(FEATURES, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.pointwise(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return torch.relu(x + residual)


class Cascade(nn.Module):
    """Three units in a chain, or one three times; after each, all outputs so far are fused by a 1×1
    convolution."""

    def __init__(self, units: list[nn.Module]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.fusions = nn.ModuleList(nn.Conv2d((i + 2) * FEATURES, FEATURES, 1) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        outputs = x
        for i, fusion in enumerate(self.fusions):
            outputs = torch.cat([outputs, self.units[i % len(self.units)](x)], dim=1)
            x = torch.relu(fusion(outputs))
        return x


def _blocks(mobile: bool, groups: int) -> list[nn.Module]:
    if mobile:
        # CARN-M repeats one set of weights three times within a block.
        return [Cascade([EfficientResidualBlock(groups)]) for _ in range(3)]
    return [Cascade([ResidualBlock() for _ in range(3)]) for _ in range(3)]


class Carn(nn.Module):
    """(B, 3, h, w) RGB on 0-255 → (B, 3, s·h, s·w). `mobile` is CARN-M, with four groups."""

    mean: Tensor

    def __init__(self, scale: int, *, mobile: bool = False) -> None:
        super().__init__()
        groups = 4 if mobile else 1
        self.scale = scale
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.entry = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.body = Cascade(_blocks(mobile, groups))
        self.upsamplers = nn.ModuleDict(
            {f"x{s}": upsampler(FEATURES, s, activation=nn.ReLU, groups=groups) for s in (2, 3, 4)}
        )
        self.exit = nn.Conv2d(FEATURES, 3, 3, padding=1)
        for name, of_scale in self.upsamplers.items():
            of_scale.requires_grad_(name == f"x{scale}")

    def forward(self, lr: Tensor) -> Tensor:
        features = self.body(self.entry(lr / 255 - self.mean))
        rgb: Tensor = self.exit(self.upsamplers[f"x{self.scale}"](features))
        return (rgb + self.mean) * 255
