"""The files that a job's paths name on this machine, for a host that may lack them."""

import hashlib
from functools import cache
from pathlib import Path

from engine.shipped import zoo
from server.wire.hello import FileOffered
from server.wire.messages import WorkerJob


def offer_files(job: WorkerJob) -> tuple[tuple[FileOffered, ...], dict[str, Path]]:
    """What the job's paths hold that are there, artifacts, checkpoints and the slate, by content; and where
    each content lies. Reads what is new. Raises OSError."""
    offered: list[FileOffered] = []
    found: dict[str, Path] = {}
    for name in dict.fromkeys((job.model, *(job.ladder or ()), *([job.slate] if job.slate else []))):
        path = Path(name)
        if name in zoo() or not path.exists():
            continue
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        for file in files:
            now = file.stat()
            sha256 = _hash(file, now.st_mtime_ns, now.st_size)
            found[sha256] = file
            inner = file.name if path.is_dir() else ""
            offered.append(FileOffered(path=name, name=inner, sha256=sha256, size=now.st_size))
    return tuple(offered), found


@cache
def _hash(path: Path, mtime_ns: int, size: int) -> str:
    """SHA-256 of the file as it was at that time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
