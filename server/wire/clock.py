"""The clock of every timestamp and duration that gateway and worker exchange."""

import time


def now_ns() -> int:
    """CLOCK_MONOTONIC, which all processes of a machine share."""
    return time.monotonic_ns()
