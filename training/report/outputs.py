"""Where results go, looked at before they are worked for."""

import os
import tempfile
from pathlib import Path


def check_file(option: str, path: Path) -> None:
    """Raises ValueError naming the option where no file can be written; leaves nothing there."""
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder, must be a file")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: {path.parent} is no folder")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise ValueError(f"{option} {path} must be a file that can be written")
        return
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as exc:
        raise ValueError(f"{option} {path}: no file can be made in {path.parent}: {exc.strerror}") from exc


def check_page(option: str, path: Path) -> None:
    """As `check_file`, for a page with a folder of its name beside it."""
    check_file(option, path)
    if not path.suffix:
        raise ValueError(f"{option} {path} must end as .md does: {path} is the folder of its pictures")
    folder = path.with_suffix("")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option} {path}: {folder}, for its pictures, must be a folder")
