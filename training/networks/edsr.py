"""EDSR, residual blocks without normalisation (Lim et al., arXiv 1707.02921): 32 of 256 features."""

from torch import Tensor, nn

from training.networks.upsampler import upsampler

FEATURES, BLOCKS, RESIDUAL_SCALE = 256, 32, 0.1


class ResidualBlock(nn.Module):
    """x + r · conv(relu(conv(x))); r holds back very wide blocks."""

    def __init__(self, features: int, kernel: int = 3, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.body = nn.Sequential(
            nn.Conv2d(features, features, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(features, features, kernel, padding=kernel // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + self.residual_scale * residual


class Edsr(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, FEATURES, 3, padding=1)
        blocks = [ResidualBlock(FEATURES, residual_scale=RESIDUAL_SCALE) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*blocks, nn.Conv2d(FEATURES, FEATURES, 3, padding=1))
        self.upsampler = upsampler(FEATURES, scale)
        self.exit = nn.Conv2d(FEATURES, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.entry(x)
        sr: Tensor = self.exit(self.upsampler(features + self.body(features)))
        return sr
