"""Unshuffling is PixelShuffle, written into whatever plane it is given."""

import numpy as np
import pytest
import torch
from torch.nn.functional import pixel_shuffle

from engine.backends.openvino.unshuffle import unshuffle

SPARE = 7  # samples between the end of a row and the next row


@pytest.mark.parametrize("cropped", [(0, 0), (1, 0), (0, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("block", [1, 2, 3, 4, 6, 8])
def test_a_plane_is_the_shuffled_picture_cropped(block: int, cropped: tuple[int, int]) -> None:
    rng = np.random.default_rng(block)
    both = rng.integers(0, 256, (5, 9, 2 * block**2), np.uint8)  # two planes side by side
    height, width = 5 * block - cropped[0] % block, 9 * block - cropped[1] % block
    for packed in (both[:, :, : block**2], both[:, :, block**2 :]):
        rows = np.zeros((height, width + SPARE), np.uint8)
        unshuffle(packed, rows[:, :width])
        channels_first = torch.from_numpy(packed.transpose(2, 0, 1).copy())[None]
        expected = pixel_shuffle(channels_first, block)[0, 0, :height, :width].numpy()
        np.testing.assert_array_equal(rows[:, :width], expected)
        assert not rows[:, width:].any()
