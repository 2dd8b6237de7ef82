"""What every test may use: the optional data beside the checkout, and what to do where a peer is missing."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def shared(relative: str) -> Path:
    """A file or folder of the test data beside the checkout; skips the test where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"no test data: {relative} is not beside the checkout")
    return path


def missing_peer(name: str, how: str) -> NoReturn:
    """Skips the test for want of an independent program; fails it where REQUIRE_PEERS=1 promises them all."""
    message = f"{name} is not installed: {how}"
    if os.environ.get("REQUIRE_PEERS") == "1":
        pytest.fail(message)
    pytest.skip(message)
