"""RDN, residual dense blocks and a fusion of all (Zhang et al., arXiv 1802.08797): D 16, C 8, G 64."""

import torch
from torch import Tensor, nn

from training.networks.upsampler import upsampler

FEATURES, BLOCKS, LAYERS = 64, 16, 8


class ResidualDenseBlock(nn.Module):
    """Eight layers, each from all before it; a 1×1 convolution fuses them with the input."""

    def __init__(self) -> None:
        super().__init__()
        inputs = [FEATURES * (1 + layer) for layer in range(LAYERS)]
        self.layers = nn.ModuleList(nn.Conv2d(into, FEATURES, 3, padding=1) for into in inputs)
        self.fusion = nn.Conv2d((1 + LAYERS) * FEATURES, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for layer in self.layers:
            features = torch.cat([features, torch.relu(layer(features))], dim=1)
        fused: Tensor = self.fusion(features)
        return x + fused


class Rdn(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.shallow1 = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.shallow2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock() for _ in range(BLOCKS))
        self.fusion = nn.Sequential(
            nn.Conv2d(BLOCKS * FEATURES, FEATURES, 1), nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        )
        self.upsampler = upsampler(FEATURES, scale)
        self.exit = nn.Conv2d(FEATURES, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow1(x)
        features, of_blocks = self.shallow2(shallow), []
        for block in self.blocks:
            features = block(features)
            of_blocks.append(features)
        fused = shallow + self.fusion(torch.cat(of_blocks, dim=1))
        sr: Tensor = self.exit(self.upsampler(fused))
        return sr
