"""ESPCN, the sub-pixel convolution (Shi et al., arXiv 1609.05158): 5-3-3 with tanh."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle


class Espcn(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(1, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, scale**2, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        x = torch.tanh(self.conv2(torch.tanh(self.conv1(lr / 255))))
        return pixel_shuffle(self.conv3(x), self.scale) * 255
