"""Enlargement by fixed taps: bicubic as MATLAB and Pillow do it, and Lanczos, as a polyphase convolution."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle

from engine.network.bicubic import cubic

Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def lanczos3(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """sinc windowed to three samples on either side."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


class Enlarge(nn.Module):
    """(B, C, h, w) → (B, C, s·h, s·w): pixel centres aligned, edges mirrored with their last pixel, not
    clamped and not rounded. Nothing to train."""

    taps: Tensor

    def __init__(self, scale: int, kernel: Kernel = cubic, reach: int = 2) -> None:
        super().__init__()
        self.scale, self.reach = scale, reach
        # Output pixel s·i + r lies at input position i + r / s - (s - 1) / 2s: never a whole pixel away.
        positions = (np.arange(scale) - (scale - 1) / 2) / scale
        axis = kernel(np.arange(-reach, reach + 1)[None, :] - positions[:, None])  # (s, taps)
        axis /= axis.sum(axis=1, keepdims=True)
        plane = np.einsum("ay,bx->abyx", axis, axis).reshape(scale**2, 1, *2 * axis.shape[1:])
        self.register_buffer("taps", torch.from_numpy(plane).float(), persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        batch, channels, height, width = lr.shape
        padded = _mirror(_mirror(lr, 2, self.reach), 3, self.reach)
        planes = padded.reshape(batch * channels, 1, height + 2 * self.reach, width + 2 * self.reach)
        phases = conv2d(planes, self.taps)  # (B·C, s², h, w)
        return pixel_shuffle(phases, self.scale).reshape(batch, channels, self.scale * height, -1)


def _mirror(x: Tensor, axis: int, pad: int) -> Tensor:
    # torch's "reflect" leaves out the edge pixel; MATLAB repeats it.
    size = x.shape[axis]
    index = torch.arange(-pad, size + pad, device=x.device) % (2 * size)
    return x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))


def bicubic(scale: int) -> Enlarge:
    return Enlarge(scale)


def lanczos(scale: int) -> Enlarge:
    return Enlarge(scale, lanczos3, 3)
