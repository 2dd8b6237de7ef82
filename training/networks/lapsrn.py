"""LapSRN, a Laplacian pyramid: each level doubles the picture and adds what it lacks (Lai et al., arXiv
1704.03915).

The paper draws 4×4 transposed convolutions throughout. Its count (812 K in its journal version, 813 K in
table 5 at every scale) is that of 3×3 ones for the features, two levels and no biases: so it is here. The
29.9 G that table 5 has at ×2 are of a 640×360 result: a quarter of the 119.6 G of 1280×720. The published
training has a loss at every level; here there is that of the last alone.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

FEATURES, DEPTH, SLOPE = 64, 10, 0.2


class Level(nn.Module):
    """Features and picture, each twice as large; the picture by fixed bilinear taps to begin with."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(DEPTH):
            layers += [nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.LeakyReLU(SLOPE)]
        # (n - 1)·2 - 2 + 3 + 1 = 2n
        layers.append(nn.ConvTranspose2d(FEATURES, FEATURES, 3, stride=2, padding=1, output_padding=1))
        layers.append(nn.LeakyReLU(SLOPE))
        self.features = nn.Sequential(*layers)
        self.residual = nn.Conv2d(FEATURES, 1, 3, padding=1)
        self.enlarge = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.enlarge.weight.copy_(torch.outer(taps, taps)[None, None])

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(features)
        return features, self.enlarge(image) + self.residual(features)


class Lapsrn(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w); s is 2, 4 or 8."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(1, FEATURES, 3, padding=1)
        self.levels = nn.ModuleList(Level() for _ in range(scale.bit_length() - 1))

    def forward(self, lr: Tensor) -> Tensor:
        image = lr / 255
        features = leaky_relu(self.entry(image), SLOPE)
        for level in self.levels:
            features, image = level(features, image)
        return image * 255
