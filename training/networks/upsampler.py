"""Sub-pixel upsampling in steps: a 3×3 convolution and a pixel shuffle for each factor of two or three."""

from collections.abc import Callable

from torch import nn


def upsampler(
    features: int, scale: int, *, activation: Callable[[], nn.Module] | None = None, groups: int = 1
) -> nn.Sequential:
    """(B, features, h, w) → (B, features, s·h, s·w); an activation before each shuffle, if one is given."""
    layers: list[nn.Module] = []
    for step in {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]:
        layers.append(nn.Conv2d(features, features * step**2, 3, padding=1, groups=groups))
        layers += [activation()] if activation else []
        layers.append(nn.PixelShuffle(step))
    return nn.Sequential(*layers)
