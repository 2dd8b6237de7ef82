"""How far a compiled network's pictures are from the float32 reference's."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.frame import Engine, Precision, YuvFrame

# PSNR of luma, dB, below which a build fails.
LOWEST_DB: dict[Precision, float] = {"float32": 60.0, "bf16": 55.0, "fp16": 50.0, "int8": 50.0}
# Stands for "no differing pixel", which has no PSNR.
IDENTICAL_DB = 100.0


def parity_db(engine: Engine, reference: Engine, frames: Sequence[YuvFrame]) -> float:
    """PSNR of luma over all frames' pixels, as 8-bit planes; at most 100 dB."""
    ours, theirs = engine.lane(), reference.lane()
    errors = []
    for frame in frames:
        ours.submit(frame)
        theirs.submit(frame)
        errors.append(mean_square(ours.wait().y, theirs.wait().y))
    return psnr_db(float(np.mean(errors)))


def psnr_db(mean_square: float) -> float:
    """PSNR of 8-bit planes, at most 100 dB."""
    if mean_square == 0:
        return IDENTICAL_DB
    return min(IDENTICAL_DB, 10 * float(np.log10(255**2 / mean_square)))


def mean_square(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.mean((a.astype(np.float64) - b) ** 2))
