"""SRMDNF, one network for many degradations, without noise (Zhang et al., arXiv 1712.06116).

The blur kernel of the degradation, reduced to 15 numbers by PCA, is stretched over the picture as 15 more
channels. Here the degradation is always MATLAB's bicubic, so these are constants; the PCA is of the paper's
kernels, Gaussians of 15×15, made afresh, as its own basis is not published but in a program's file.
"""

from functools import cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.network.bicubic import cubic

FEATURES, LAYERS, KERNEL, CODE = 128, 12, 15, 15


class Srmdnf(nn.Module):
    """(B, 3, h, w) RGB on 0-255 → (B, 3, s·h, s·w); s is 2, 3 or 4."""

    code: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        code = torch.from_numpy(degradation(scale)).float().view(1, CODE, 1, 1)
        self.register_buffer("code", code, persistent=False)
        layers: list[nn.Module] = [nn.Conv2d(3 + CODE, FEATURES, 3, padding=1), nn.ReLU()]
        for _ in range(LAYERS - 2):
            layers += [nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.BatchNorm2d(FEATURES), nn.ReLU()]
        layers += [nn.Conv2d(FEATURES, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        self.body = nn.Sequential(*layers)

    def forward(self, lr: Tensor) -> Tensor:
        code = self.code.expand(lr.shape[0], -1, *lr.shape[2:])
        sr: Tensor = self.body(torch.cat([lr / 255, code], dim=1))
        return sr * 255


def degradation(scale: int) -> NDArray[np.float64]:
    """The code of bicubic shrinking by `scale`: (15,)."""
    reach = np.arange(KERNEL) - KERNEL // 2
    taps = cubic(reach / scale)
    kernel = np.outer(taps, taps)
    code: NDArray[np.float64] = _basis() @ (kernel / kernel.sum()).ravel()
    return code


@cache
def _basis() -> NDArray[np.float64]:
    """The first 15 principal directions of Gaussian kernels, widths 0.2 to 4 and all rotations: (15, 225)."""
    y, x = np.mgrid[:KERNEL, :KERNEL] - KERNEL // 2
    kernels = []
    for along, across, angle in product(
        *2 * [np.linspace(0.2, 4, 8)], np.linspace(0, np.pi, 6, endpoint=False)
    ):
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        kernel = np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
        kernels.append((kernel / kernel.sum()).ravel())
    samples = np.array(kernels)
    directions: NDArray[np.float64] = np.linalg.svd(samples, full_matrices=False)[2][:CODE]
    return directions
