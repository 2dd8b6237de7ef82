"""MemNet, a chain of memory blocks with gates over all that came before (Tai et al., arXiv 1708.02209):
M6R6, multi-supervised.

A block applies one residual unit six times (short-term memory); its gate, a 1×1 convolution, weighs these
and the outputs of every earlier block (long-term memory). Every block's output is reconstructed by the same
layer, and the pictures are summed with learned weights. Table 5 counts that layer once: 2,662.4 G instead of
2,665.0 G; parameters are listed without normalisation and biases. The published training has a loss on each
picture as well.
"""

import torch
from torch import Tensor, nn

from training.networks.enlarge import Enlarge
from training.networks.preactivated import Normalised

FEATURES, BLOCKS, RECURSIONS = 64, 6, 6


class MemoryBlock(nn.Module):
    """The outputs of all earlier blocks, the last one first refined, gated to one: (B, 64, H, W)."""

    def __init__(self, long_term: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.conv2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.norms1 = nn.ModuleList(Normalised(FEATURES) for _ in range(RECURSIONS))
        self.norms2 = nn.ModuleList(Normalised(FEATURES) for _ in range(RECURSIONS))
        memories = (RECURSIONS + long_term) * FEATURES
        self.gate = nn.Sequential(*Normalised(memories), nn.Conv2d(memories, FEATURES, 1))

    def forward(self, long_term: list[Tensor]) -> Tensor:
        features, short_term = long_term[-1], []
        for norm1, norm2 in zip(self.norms1, self.norms2, strict=True):
            features = features + self.conv2(norm2(self.conv1(norm1(features))))
            short_term.append(features)
        gated: Tensor = self.gate(torch.cat([*short_term, *long_term], dim=1))
        return gated


class Memnet(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        self.extract = nn.Sequential(*Normalised(1), nn.Conv2d(1, FEATURES, 3, padding=1))
        self.blocks = nn.ModuleList(MemoryBlock(1 + number) for number in range(BLOCKS))
        self.reconstruct = nn.Sequential(*Normalised(FEATURES), nn.Conv2d(FEATURES, 1, 3, padding=1))
        self.weights = nn.Parameter(torch.full((BLOCKS,), 1 / BLOCKS))

    def forward(self, lr: Tensor) -> Tensor:
        x: Tensor = self.enlarge(lr) / 255
        memories: list[Tensor] = [self.extract(x)]
        y = torch.zeros_like(x)
        for block, weight in zip(self.blocks, self.weights, strict=True):
            memories.append(block(memories))
            y = y + weight * (x + self.reconstruct(memories[-1]))
        return y * 255
