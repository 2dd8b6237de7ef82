"""FSRCNN, SRCNN on the LR grid (Dong et al., arXiv 1608.00367): FSRCNN(56, 12, 4) and a 9×9 deconvolution."""

from torch import Tensor, nn


class Fsrcnn(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w)."""

    def __init__(self, scale: int, features: int = 56, shrunk: int = 12, mappings: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, features, 5, padding=2), nn.PReLU(features)]
        layers += [nn.Conv2d(features, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(mappings):
            layers += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        layers += [nn.Conv2d(shrunk, features, 1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers)
        self.enlarge = nn.ConvTranspose2d(
            features, 1, 9, stride=scale, padding=4, output_padding=scale - 1
        )  # (n - 1)·s - 8 + 9 + s - 1 = s·n

    def forward(self, lr: Tensor) -> Tensor:
        y: Tensor = self.enlarge(self.body(lr / 255))
        return y * 255
