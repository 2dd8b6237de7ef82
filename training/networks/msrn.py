"""MSRN, blocks that look with 3×3 and 5×5 at once (Li et al., ECCV 2018): eight, fused hierarchically.

Table 5 counts every convolution on the LR grid, those behind an upsampling as well: 1,365.4 G at ×2 instead
of 1,366.6 G, 349.8 G at ×4 instead of 376.8 G.
"""

import torch
from torch import Tensor, nn

from training.networks.upsampler import upsampler

FEATURES, BLOCKS = 64, 8


class MultiScaleBlock(nn.Module):
    """Two stages of a 3×3 and a 5×5 branch that share what they find; a 1×1 fuses them."""

    def __init__(self) -> None:
        super().__init__()
        n = FEATURES
        self.first3 = nn.Conv2d(n, n, 3, padding=1)
        self.first5 = nn.Conv2d(n, n, 5, padding=2)
        self.second3 = nn.Conv2d(2 * n, 2 * n, 3, padding=1)
        self.second5 = nn.Conv2d(2 * n, 2 * n, 5, padding=2)
        self.fusion = nn.Conv2d(4 * n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([torch.relu(self.first3(x)), torch.relu(self.first5(x))], dim=1)
        both = torch.cat([torch.relu(self.second3(both)), torch.relu(self.second5(both))], dim=1)
        fused: Tensor = self.fusion(both)
        return x + fused


class Msrn(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.blocks = nn.ModuleList(MultiScaleBlock() for _ in range(BLOCKS))
        self.fusion = nn.Conv2d((1 + BLOCKS) * FEATURES, FEATURES, 1)
        self.exit = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
            upsampler(FEATURES, scale),
            nn.Conv2d(FEATURES, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [self.entry(x)]
        for block in self.blocks:
            features.append(block(features[-1]))
        sr: Tensor = self.exit(self.fusion(torch.cat(features, dim=1)))
        return sr
