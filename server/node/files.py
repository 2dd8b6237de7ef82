"""Files that gateways have sent: kept by content, and laid out as a job names them."""

import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from engine.files import cache_folder
from server.wire.hello import FileOffered, FilePart, FilesOffered
from server.wire.messages import WorkerJob

# Of all that one job names.
MOST_BYTES = 4 << 30


class BadFile(Exception):
    """What came isn't what was offered."""


class FileCache:
    """A folder that grows by what is new. All of it blocks: it is for threads."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder() / "files"

    def lacks(self, offered: FilesOffered) -> list[str]:
        """Contents that aren't here, or are damaged. Raises BadFile, OSError."""
        if sum(file.size for file in offered.files) > MOST_BYTES:
            raise BadFile(f"files of more than {MOST_BYTES} bytes are offered")
        self._folder.mkdir(parents=True, exist_ok=True)
        return [sha256 for sha256 in dict.fromkeys(f.sha256 for f in offered.files) if not self._has(sha256)]

    def _has(self, sha256: str) -> bool:
        path = self._folder / sha256
        if not path.is_file():
            return False
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if not whole:
            path.unlink()
        return whole

    def lay_out(self, offered: FilesOffered) -> dict[str, str]:
        """Where each path is that a job names. Raises OSError."""
        paths: defaultdict[str, list[FileOffered]] = defaultdict(list)
        for file in offered.files:
            paths[file.path].append(file)
        return {path: str(self._lay_out(path, files)) for path, files in paths.items()}

    def _lay_out(self, path: str, files: list[FileOffered]) -> Path:
        named = Path(path).name or "model"
        if [file.name for file in files] == [""]:
            listing, inside = files[0].sha256, {named: files[0].sha256}
        else:
            inside = {f"{named}/{file.name}": file.sha256 for file in files}
            listing = hashlib.sha256(repr(sorted(inside.items())).encode()).hexdigest()
        place = self._folder / "named" / listing
        if not all(_is_same(place / name, self._folder / sha256) for name, sha256 in inside.items()):
            shutil.rmtree(place, ignore_errors=True)  # one of them was damaged, and came anew
            place.parent.mkdir(exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=place.parent))
            for name, sha256 in inside.items():
                (made / name).parent.mkdir(exist_ok=True)
                os.link(self._folder / sha256, made / name)
            try:
                made.rename(place)
            except OSError:  # another stream was first
                shutil.rmtree(made)
        return place / named

    def open(self, sha256: str, size: int) -> "Incoming":
        return Incoming(self._folder, sha256, size)


def _is_same(link: Path, file: Path) -> bool:
    return link.exists() and link.samefile(file)


class Incoming:
    """A file on its way: it takes its place once it is whole, and is what it was called."""

    def __init__(self, folder: Path, sha256: str, size: int) -> None:
        self._place = folder / sha256
        self._left = size
        self._digest = hashlib.sha256()
        self._file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - `close` ends it

    def add(self, part: FilePart) -> bool:
        """Whether it is whole now. Raises BadFile, OSError."""
        self._left -= len(part.data)
        if part.sha256 != self._place.name or self._left < 0:
            raise BadFile(f"file {self._place.name[:16]}… is not what was offered")
        if part.data:
            self._digest.update(part.data)
            self._file.write(part.data)
            return False
        if self._digest.hexdigest() != self._place.name:
            raise BadFile(f"file {self._place.name[:16]}… came as {self._digest.hexdigest()[:16]}…")
        self._file.flush()
        os.replace(self._file.name, self._place)
        self.close()
        return True

    def close(self) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


def with_paths(job: WorkerJob, places: Mapping[str, str]) -> WorkerJob:
    """The job, naming what is here."""
    ladder = None if job.ladder is None else tuple(places.get(model, model) for model in job.ladder)
    slate = None if job.slate is None else places.get(job.slate, job.slate)
    return replace(job, model=places.get(job.model, job.model), ladder=ladder, slate=slate)
