"""How many frames go through an engine together."""

import math

BATCHES = (1, 2, 4, 8)
_SIDE_OF_8 = 640


def most_side(batch: int) -> int:
    """Longest side, in pixels, of LR frames of which so many go together."""
    return int(_SIDE_OF_8 * math.sqrt(BATCHES[-1] / batch)) // 2 * 2


def batch_sizes(width: int, height: int) -> tuple[int, ...]:
    """Of LR frames of this size, on a GPU: as many as it takes to keep it busy. Each more costs memory in
    every lane, and all frames of a batch wait for the last of them."""
    return tuple(size for size in BATCHES if size == 1 or max(width, height) <= most_side(size))
