"""RGB on 0-255 for a network that wants it on 0-1 with DIV2K's mean taken away."""

import torch
from torch import Tensor, nn

from engine.config import RGB_MEAN


class Centred(nn.Module):
    """(B, 3, h, w) RGB on 0-255 → (B, 3, s·h, s·w), by `body` on centred values."""

    mean: Tensor

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.body = body

    def forward(self, lr: Tensor) -> Tensor:
        centred: Tensor = self.body(lr / 255 - self.mean)
        return (centred + self.mean) * 255
