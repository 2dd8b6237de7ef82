"""DRCN, one convolution applied sixteen times (Kim et al., arXiv 1511.04491).

Every recursion is reconstructed by the same two layers, and the results are summed with learned weights. The
published training also has a loss on each of them; here there is that of the sum alone.
"""

import torch
from torch import Tensor, nn

from training.networks.enlarge import Enlarge

FEATURES, RECURSIONS = 256, 16


class Drcn(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        self.embed1 = nn.Conv2d(1, FEATURES, 3, padding=1)
        self.embed2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.infer = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.reconstruct1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.reconstruct2 = nn.Conv2d(FEATURES, 1, 3, padding=1)
        self.weights = nn.Parameter(torch.full((RECURSIONS,), 1 / RECURSIONS))
        # As published: the recursion begins as the identity, or sixteen of it would explode or vanish.
        nn.init.dirac_(self.infer.weight)
        nn.init.zeros_(self.infer.bias)  # type: ignore[arg-type]

    def forward(self, lr: Tensor) -> Tensor:
        x: Tensor = self.enlarge(lr) / 255
        features = torch.relu(self.embed2(torch.relu(self.embed1(x))))
        y = torch.zeros_like(x)
        for weight in self.weights:
            features = torch.relu(self.infer(features))
            y = y + weight * (x + self.reconstruct2(torch.relu(self.reconstruct1(features))))
        return y * 255
