"""SelNet, which lets each convolution choose what it passes on (Choi and Kim, CVPR Workshops 2017).

Its figures in table 5 are those of RGB, a selection unit behind each of the first twenty-one 3×3
convolutions, and parameters without biases.
"""

import torch
from torch import Tensor, nn

from training.networks.enlarge import bicubic

FEATURES, LAYERS = 64, 21


class SelectionUnit(nn.Module):
    """The input weighed by itself, pixel for pixel: x · sigmoid(1×1(relu(x)))."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = nn.Conv2d(FEATURES, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.choose(torch.relu(x)))


class Selnet(nn.Module):
    """(B, 3, h, w) RGB on 0-255 → (B, 3, s·h, s·w); learns what bicubic lacks."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.enlarge = bicubic(scale)
        layers: list[nn.Module] = []
        for into in (3, *(LAYERS - 1) * (FEATURES,)):
            layers += [nn.Conv2d(into, FEATURES, 3, padding=1), SelectionUnit()]
        layers += [nn.Conv2d(FEATURES, FEATURES * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        layers.append(nn.Conv2d(FEATURES, 3, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, lr: Tensor) -> Tensor:
        x = lr / 255
        residual: Tensor = self.body(x)
        enlarged: Tensor = self.enlarge(x)
        return (enlarged + residual) * 255
