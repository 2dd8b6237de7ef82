"""The one cubic kernel is the one that Pillow and MATLAB use."""

import numpy as np
import pytest
from PIL import Image

from engine.network.bicubic import enlarge, enlarging, shrinking


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_enlarging_is_pillows_bicubic(scale: int) -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (11, 14)).astype(np.float32)
    padded = np.pad(plane, 3, mode="edge")  # Pillow does not repeat borders by itself
    size = (padded.shape[1] * scale, padded.shape[0] * scale)
    pillow = np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC))
    margin = 3 * scale
    np.testing.assert_allclose(enlarge(plane, scale), pillow[margin:-margin, margin:-margin], atol=1e-2)


def test_taps_sum_to_one_and_keep_a_ramp() -> None:
    for axis, positions in (
        (enlarging(2, -1 / 8), [-1 / 8, 3 / 8]),
        (enlarging(3, -1 / 3), [-1 / 3, 0, 1 / 3]),
        (shrinking(2, 0.5), [0.5]),
    ):
        inputs = np.arange(-axis.before, axis.after + 1)
        np.testing.assert_allclose(axis.taps.sum(axis=1), 1)
        np.testing.assert_allclose(axis.taps @ inputs, positions, atol=1e-12)
