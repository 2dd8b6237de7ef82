"""The one PSNR, SSIM and flicker: on the Y channel, in float, as the super-resolution papers measure.

Y is BT.601 limited range (16-235) of 8-bit RGB, not rounded: rounding it costs 0.09 dB at ×2.
"""

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float64]

# Gaussian of SSIM: 11 taps, σ 1.5.
_WINDOW: FloatImage = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()
# Rows blurred at a time: a strip's moments stay in the cache, and memory does not grow with the image.
_STRIP = 32


def rgb_to_y(rgb: NDArray[np.uint8]) -> FloatImage:
    """(…, 3) uint8 RGB → (…) BT.601 luma, 16-235, float64 (MATLAB's rgb2ycbcr before its rounding)."""
    luma: FloatImage = 16.0 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0
    return luma


def psnr(a: FloatImage, b: FloatImage) -> float:
    """Peak signal-to-noise ratio in dB of two images on the 0-255 scale; infinite where they are equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


def ssim(a: FloatImage, b: FloatImage) -> float:
    """Structural similarity (Wang et al. 2004): 11×11 Gaussian, σ 1.5, no padding, 0-255 scale."""
    if a.shape != b.shape:
        raise ValueError(f"{a.shape = } must be {b.shape = }")
    if min(a.shape) < 11:
        raise ValueError(f"image of {a.shape[1]}×{a.shape[0]} is smaller than SSIM's 11×11 window")
    rows = a.shape[0] - 10
    total = 0.0
    for top in range(0, rows, _STRIP):
        strip = slice(top, min(top + _STRIP, rows) + 10)
        total += float(_similarity(a[strip].astype(np.float64), b[strip].astype(np.float64)).sum())
    return total / float(rows * (a.shape[1] - 10))


def _similarity(a: FloatImage, b: FloatImage) -> FloatImage:
    """SSIM's map, 10 rows and columns smaller than the images."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = _blur(np.stack([a, b, a * a, b * b, a * b]))
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    similarity: FloatImage = ((2 * product + c1) * (2 * (mean_ab - product) + c2)) / (
        (squares + c1) * (mean_aa + mean_bb - squares + c2)
    )
    return similarity


def _blur(x: FloatImage) -> FloatImage:
    """(n, h, w) → (n, h - 10, w - 10), each weighed by the window along both axes."""
    height, width = x.shape[1] - 10, x.shape[2] - 10
    rows, out = np.zeros((len(x), height, x.shape[2])), np.zeros((len(x), height, width))
    for tap, weight in enumerate(_WINDOW):
        rows += weight * x[:, tap : tap + height]
    for tap, weight in enumerate(_WINDOW):
        out += weight * rows[:, :, tap : tap + width]
    return out


def flicker(sr: FloatImage, sr_before: FloatImage, hr: FloatImage, hr_before: FloatImage) -> float:
    """How far the result's change from one frame to the next is from the original's, as RMS on the 0-255
    scale: dtSSD of Erofeev et al., "Perceptually motivated benchmark for video matting" (BMVC 2015), on Y.

    0 where every change is the original's own, however wrong the still frames are: it sees shimmer only.
    """
    change = (sr - sr_before) - (hr - hr_before)
    return float(np.sqrt(np.mean(change**2)))


def score(sr: NDArray[np.uint8], hr: NDArray[np.uint8], scale: int) -> tuple[float, float]:
    """PSNR and SSIM of an 8-bit RGB result against its HR original, a border of `scale` pixels cut off."""
    if sr.shape != hr.shape:
        raise ValueError(f"{sr.shape = } must be {hr.shape = }")
    inner = (slice(scale, -scale), slice(scale, -scale))
    a, b = rgb_to_y(sr)[inner], rgb_to_y(hr)[inner]
    return psnr(a, b), ssim(a, b)
