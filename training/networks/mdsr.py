"""MDSR, one body of eighty residual blocks for three scales (Lim et al., arXiv 1707.02921).

Each scale has two 5×5 residual blocks before the body and an upsampler behind it. The published 8.0 M
parameters are of all three, so a network of one scale keeps the other heads, without a gradient.
"""

from torch import Tensor, nn

from training.networks.edsr import ResidualBlock
from training.networks.upsampler import upsampler

FEATURES, BLOCKS, SCALES = 64, 80, (2, 3, 4)


class Mdsr(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.entry = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.heads = nn.ModuleDict(
            {f"x{s}": nn.Sequential(*(ResidualBlock(FEATURES, kernel=5) for _ in range(2))) for s in SCALES}
        )
        blocks = [ResidualBlock(FEATURES) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*blocks, nn.Conv2d(FEATURES, FEATURES, 3, padding=1))
        self.upsamplers = nn.ModuleDict({f"x{s}": upsampler(FEATURES, s) for s in SCALES})
        self.exit = nn.Conv2d(FEATURES, 3, 3, padding=1)
        for parts in (self.heads, self.upsamplers):
            for name, part in parts.items():
                part.requires_grad_(name == f"x{scale}")

    def forward(self, x: Tensor) -> Tensor:
        key = f"x{self.scale}"
        features = self.heads[key](self.entry(x))
        sr: Tensor = self.exit(self.upsamplers[key](features + self.body(features)))
        return sr
