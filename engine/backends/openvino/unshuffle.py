"""Packed planes to pictures: the pixel shuffle as a copy from one host buffer to another."""

import math

import numpy as np
from numpy.typing import NDArray

from engine.frame import Plane

# A block's row is moved as one word where there is one so wide.
_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def unshuffle(packed: NDArray[np.uint8], plane: Plane) -> None:
    """(h, w, b²) → the plane's (height, width), any within (b·h, b·w). A row's samples are adjacent on either
    side; rows may lie apart."""
    block = math.isqrt(packed.shape[2])
    blocks, rest = divmod(plane.shape[1], block)
    for row in range(block):
        target = plane[row::block]
        source = packed[: len(target), :, row * block : (row + 1) * block]
        whole = target[:, : blocks * block].reshape(len(target), blocks, block)
        if block in _WORDS:
            word = _WORDS[block]
            np.copyto(whole.view(word), source[:, :blocks].view(word))
        else:
            np.copyto(whole, source[:, :blocks])
        if rest:
            np.copyto(target[:, blocks * block :], source[:, blocks, :rest])
