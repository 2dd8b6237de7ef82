"""SRResNet, the residual network of SRGAN (Ledig et al., arXiv 1609.04802): sixteen blocks with batch
normalisation, 9×9 convolutions at both ends."""

from torch import Tensor, nn

from training.networks.upsampler import upsampler

FEATURES, BLOCKS = 64, 16


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
            nn.BatchNorm2d(FEATURES),
            nn.PReLU(),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
            nn.BatchNorm2d(FEATURES),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + residual


class Srresnet(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.Conv2d(3, FEATURES, 9, padding=4), nn.PReLU())
        blocks = [ResidualBlock() for _ in range(BLOCKS)]
        last = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.body = nn.Sequential(*blocks, last, nn.BatchNorm2d(FEATURES))
        # One slope for all channels: before the shuffle or behind it is the same.
        self.upsampler = upsampler(FEATURES, scale, activation=nn.PReLU)
        self.exit = nn.Conv2d(FEATURES, 3, 9, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        features = self.entry(x)
        sr: Tensor = self.exit(self.upsampler(features + self.body(features)))
        return sr
