"""MATLAB's imresize, bicubic and antialiased, as every super-resolution benchmark makes its LR images.

Pillow's BICUBIC on uint8 is the same filter with the same rounding between passes; what differs is that
MATLAB mirrors the edges and takes the vertical pass first. So: mirror, transpose, resize, crop.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]
Kernel = Literal["area", "bilinear", "bicubic", "lanczos"]
_FILTERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def _resize(image: Rgb, width: int, height: int, pad: int, pad_out: int, kernel: Kernel = "bicubic") -> Rgb:
    edges = ((pad, pad), (pad, pad)) + ((0, 0),) * (image.ndim - 2)
    padded = np.pad(image, edges, mode="symmetric").swapaxes(0, 1)
    size = (height + 2 * pad_out, width + 2 * pad_out)  # Pillow says (width, height), of the transposed image
    resized = Image.fromarray(np.ascontiguousarray(padded)).resize(size, _FILTERS[kernel])
    inner = slice(pad_out, -pad_out)
    return np.ascontiguousarray(np.asarray(resized)[inner, inner].swapaxes(0, 1))


def downscale(hr: Rgb, scale: int, kernel: Kernel = "bicubic") -> Rgb:
    """LR of an HR image: uint8 (H, W) or (H, W, 3) → (H/s, W/s, …). Benchmarks have it bicubic.

    Raises ValueError where `scale` does not divide a side; crop first (`crop_to_multiple`).
    """
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"image of {width}×{height} must be a multiple of scale={scale} on both sides")
    return _resize(hr, width // scale, height // scale, 4 * scale, 4, kernel)


def upscale_bicubic(lr: Rgb, scale: int) -> Rgb:
    """Plain bicubic enlargement, what super-resolution is compared with: (h, w, …) → (s·h, s·w, …)."""
    height, width = lr.shape[:2]
    return _resize(lr, width * scale, height * scale, 4, 4 * scale)


def crop_to_multiple(image: Rgb, scale: int) -> Rgb:
    """The largest top-left part whose sides `scale` divides."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]
