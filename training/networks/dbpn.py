"""D-DBPN, up- and down-projections that correct each other (Haris et al., arXiv 1803.02735): T 7, dense.

A unit projects there and back, and adds what the way back shows to be missing: seven up, six down, each from
all of the other kind before it. All seven HR features are reconstructed together.
"""

from typing import Literal

import torch
from torch import Tensor, nn

FEATURES, FIRST_FEATURES, STAGES = 64, 256, 7
# As published, by scale: kernel, stride and padding of every projection.
_SHAPES = {2: (6, 2, 2), 4: (8, 4, 2), 8: (12, 8, 2)}


class Projection(nn.Module):
    """Back-projection one way, from all that went the other way before: there, back, the difference again."""

    def __init__(self, scale: int, way: Literal["up", "down"], inputs: int) -> None:
        super().__init__()
        kernel, stride, padding = _SHAPES[scale]

        def project(up: bool) -> nn.Sequential:
            kind = nn.ConvTranspose2d if up else nn.Conv2d
            return nn.Sequential(kind(FEATURES, FEATURES, kernel, stride, padding), nn.PReLU())

        self.fusion = (
            nn.Sequential(nn.Conv2d(inputs * FEATURES, FEATURES, 1), nn.PReLU()) if inputs > 1 else None
        )
        self.there = project(way == "up")
        self.back = project(way == "down")
        self.again = project(way == "up")

    def forward(self, before: list[Tensor]) -> Tensor:
        x = self.fusion(torch.cat(before, dim=1)) if self.fusion else before[0]
        projected: Tensor = self.there(x)
        missing: Tensor = self.again(self.back(projected) - x)
        return projected + missing


class Dbpn(nn.Module):
    """(B, 3, h, w) RGB, centred → (B, 3, s·h, s·w); s is 2, 4 or 8."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            nn.Conv2d(3, FIRST_FEATURES, 3, padding=1),
            nn.PReLU(),
            nn.Conv2d(FIRST_FEATURES, FEATURES, 1),
            nn.PReLU(),
        )
        self.ups = nn.ModuleList(Projection(scale, "up", max(1, stage)) for stage in range(STAGES))
        self.downs = nn.ModuleList(Projection(scale, "down", stage) for stage in range(1, STAGES))
        self.exit = nn.Conv2d(STAGES * FEATURES, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        high = [self.ups[0]([self.entry(x)])]
        low: list[Tensor] = []
        for down, up in zip(self.downs, self.ups[1:], strict=True):
            low.append(down(high))
            high.append(up(low))
        sr: Tensor = self.exit(torch.cat(high, dim=1))
        return sr
