"""The cubic kernel (Keys, a = -0.5) as fixed polyphase taps: integer resampling without a resize operator."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Taps = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Polyphase:
    """One axis of a resampler. `taps[phase]` weighs the inputs from `before` samples before a base sample to
    `after` behind it; each row sums to 1."""

    taps: Taps  # (phases, before + 1 + after)
    before: int
    after: int


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Catmull-Rom, which MATLAB's imresize and Pillow call bicubic too."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def enlarging(scale: int, offset: float) -> Polyphase:
    """Output sample scale·i + r lies at input position i + r / scale + offset."""
    return _polyphase([r / scale + offset for r in range(scale)], stretch=1)


def shrinking(step: int, offset: float) -> Polyphase:
    """Output sample i lies at input position step·i + offset; the kernel is stretched against aliasing."""
    return _polyphase([offset], stretch=step)


def _polyphase(positions: list[float], *, stretch: int) -> Polyphase:
    reach = 2 * stretch
    first = math.floor(min(positions) - reach) + 1
    last = math.ceil(max(positions) + reach) - 1
    inputs = np.arange(first, last + 1)
    taps = cubic((inputs[None, :] - np.array(positions)[:, None]) / stretch)
    return Polyphase(taps=taps / taps.sum(axis=1, keepdims=True), before=-first, after=last)


def enlarge(plane: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """(h, w) → (scale·h, scale·w), sample centres aligned as pictures are, borders repeated; not clamped."""
    axis = enlarging(scale, -(scale - 1) / (2 * scale))
    for _ in range(2):
        padded = np.pad(plane, ((axis.before, axis.after), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, axis.taps.shape[1], axis=0)
        # (h, w, taps) × (scale, taps) → (h, scale, w)
        rows = np.einsum("hwt,st->hsw", windows, axis.taps.astype(np.float32))
        plane = rows.reshape(-1, plane.shape[1]).T
    return np.ascontiguousarray(plane)
