"""Files that are whole or not there, and where those are that can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The service's folder in the user's cache (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livesr"


def replace_file(path: Path, data: bytes) -> None:
    """Writes beside the file and then takes its place, so that a full disk or a kill leaves what was there.

    Raises OSError naming the file.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as exc:
        # What a full disk raises from a write names no file.
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    finally:
        partial.unlink(missing_ok=True)
