"""DRRN, one residual unit applied twenty-five times (Tai et al., CVPR 2017): B1U25 with 128 features.

The units share their convolutions; each has batch normalisations of its own, as the features' statistics
differ from one to the next. The published count leaves out normalisation and biases.
"""

from torch import Tensor, nn

from training.networks.enlarge import Enlarge
from training.networks.preactivated import Normalised

FEATURES, UNITS = 128, 25


class Drrn(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        self.entry_norm = Normalised(1)
        self.entry = nn.Conv2d(1, FEATURES, 3, padding=1)
        self.conv1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.conv2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.norms1 = nn.ModuleList(Normalised(FEATURES) for _ in range(UNITS))
        self.norms2 = nn.ModuleList(Normalised(FEATURES) for _ in range(UNITS))
        self.exit_norm = Normalised(FEATURES)
        self.exit = nn.Conv2d(FEATURES, 1, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        x: Tensor = self.enlarge(lr) / 255
        first: Tensor = self.entry(self.entry_norm(x))
        features = first
        for norm1, norm2 in zip(self.norms1, self.norms2, strict=True):
            # The identity branch of every unit is the block's first features.
            features = first + self.conv2(norm2(self.conv1(norm1(features))))
        residual: Tensor = self.exit(self.exit_norm(features))
        return (x + residual) * 255
