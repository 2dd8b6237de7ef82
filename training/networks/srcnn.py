"""SRCNN, the first convolutional network for super-resolution (Dong et al., arXiv 1501.00092): 9-5-5."""

import torch
from torch import Tensor, nn

from training.networks.enlarge import Enlarge


class Srcnn(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w); refines its bicubic enlargement. Borders are padded
    with zeros, so that the output keeps its size."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        self.extract = nn.Conv2d(1, 64, 9, padding=4)
        self.map = nn.Conv2d(64, 32, 5, padding=2)
        self.reconstruct = nn.Conv2d(32, 1, 5, padding=2)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.enlarge(lr) / 255
        x = torch.relu(self.map(torch.relu(self.extract(x))))
        y: Tensor = self.reconstruct(x)
        return y * 255
