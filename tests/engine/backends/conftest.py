"""What the tests of backends have in common."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of artifacts, which is yet to be made."""
    return tmp_path / "artifacts"
