"""The seam for whole images: a bare network of any backend, on arrays of any size."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import AwsrnConfig
from engine.network.bicubic import enlarge

Batch = NDArray[np.float32]

# BT.601 limited range, as the paper's protocol has it; RGB and YCbCr both on 0-255.
_TO_YCBCR = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=np.float32
) / np.float32(255)
_YCBCR_ZERO = np.array([16, 128, 128], dtype=np.float32)


class Net(Protocol):
    @property
    def config(self) -> AwsrnConfig: ...

    def run(self, x: Batch) -> Batch:
        """(B, C, h, w) float32 on 0-255 → (B, C, s·h, s·w), not clamped."""
        ...


def to_ycbcr(rgb: NDArray[np.uint8]) -> Batch:
    """(h, w, 3) → Y, Cb, Cr of BT.601 limited range in float, not rounded."""
    return rgb.astype(np.float32) @ _TO_YCBCR.T + _YCBCR_ZERO


def upscale_image(net: Net, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) sRGB → (s·h, s·w, 3): exactly the output of an `rgb` network, rounded and clamped. A `y`
    network gets the luma of BT.601 in float, and Cb and Cr are enlarged by bicubic."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"{rgb.shape = }, {rgb.dtype = } must be (h, w, 3) of uint8")
    if net.config.colour == "rgb":
        out = net.run(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32))[0].transpose(1, 2, 0)
    else:
        ycbcr = to_ycbcr(rgb)
        y = net.run(np.ascontiguousarray(ycbcr[None, None, :, :, 0]))[0, 0]
        chroma = [enlarge(ycbcr[:, :, c], net.config.scale) for c in (1, 2)]
        out = (np.stack([y, *chroma], axis=-1) - _YCBCR_ZERO) @ np.linalg.inv(_TO_YCBCR).T
    return np.ascontiguousarray(np.rint(np.clip(out, 0, 255)).astype(np.uint8))
