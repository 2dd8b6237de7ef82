"""VDSR, twenty 3×3 layers that learn what bicubic lacks (Kim et al., arXiv 1511.04587)."""

from itertools import pairwise

from torch import Tensor, nn

from training.networks.enlarge import Enlarge


class Vdsr(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w)."""

    def __init__(self, scale: int, layers: int = 20, features: int = 64) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        widths = [1] + [features] * (layers - 1) + [1]
        body: list[nn.Module] = []
        for into, out in pairwise(widths):
            conv = nn.Conv2d(into, out, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            body += [conv, nn.ReLU()]
        self.body = nn.Sequential(*body[:-1])

    def forward(self, lr: Tensor) -> Tensor:
        x: Tensor = self.enlarge(lr) / 255
        residual: Tensor = self.body(x)
        return (x + residual) * 255
