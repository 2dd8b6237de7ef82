"""The recordings there are: how long they stay, here or elsewhere, and how much of the disk is left alone."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from server.gateway.record.file import MOMENT, RecordedFile, moment_name, named_moment
from server.gateway.record.remote import Remote
from server.settings import STREAM_ID, Recording
from server.wire.logs import get_logger

log = get_logger(__name__)

_STREAM = re.compile(STREAM_ID)
_NAME = re.compile(rf"{MOMENT}\.mp4")


class Archive:
    """Folders by stream, files by the moment of their first picture. For any thread."""

    def __init__(self, settings: Recording) -> None:
        """`settings.folder` is set. Raises ValueError where it can't be made or written, or
        `remote` can't be understood."""
        assert settings.folder is not None
        self.settings = settings
        self._folder = Path(settings.folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as exc:
            raise ValueError(f"recording.folder={settings.folder!r}: {exc.strerror}") from exc
        self.remote = Remote(settings.remote) if settings.remote is not None else None
        self._growing: set[Path] = set()
        self.free_bytes = shutil.disk_usage(self._folder).free  # of the disk, as last measured

    def files(self, stream: str | None = None) -> list[RecordedFile]:
        """The oldest first; of one stream, or of all."""
        found = {(file.stream, file.name): file for file in self.local(stream)}
        # In this order: a file is elsewhere before it is here no more.
        for file in self.remote.files(stream) if self.remote is not None else ():
            found.setdefault((file.stream, file.name), file)
        return sorted(found.values(), key=lambda file: (file.starts, file.stream))

    def local(self, stream: str | None = None) -> list[RecordedFile]:
        """Those in the folder."""
        names = [stream] if stream is not None else [path.name for path in self._folder.iterdir()]
        # Whoever asks names the stream: it must be no way out of the folder.
        folders = [self._folder / name for name in names if _STREAM.fullmatch(name)]
        return [file for folder in folders if folder.is_dir() for file in _files(folder)]

    def finished(self) -> list[RecordedFile]:
        """Those in the folder that nobody writes any more."""
        done = {(file.stream, file.name) for file in self.local() if not self.is_growing(file)}
        # Looked at again: one may have got its end between the look and the question.
        return [file for file in self.local() if (file.stream, file.name) in done]

    def find(self, stream: str, name: str) -> RecordedFile | None:
        """Looks at no other: players ask so for each segment, and there may be thousands of files."""
        # Whoever asks names them: they must be no way out of the folder.
        if not (_STREAM.fullmatch(stream) and _NAME.fullmatch(name)):
            return None
        found = _file(self._folder / stream / name)
        return found if found is not None or self.remote is None else self.remote.find(stream, name)

    def path(self, file: RecordedFile) -> Path:
        """Where it lies, or did before it went elsewhere."""
        return self._folder / file.stream / file.name

    def open(self, file: RecordedFile) -> BinaryIO:
        """Wherever it is. Raises OSError."""
        try:
            return self.path(file).open("rb")
        except FileNotFoundError:
            if self.remote is None:
                raise
            return self.remote.open(file)

    def begin(self, stream: str, starts: datetime) -> Path:
        """The path of a new file, which isn't deleted until `finish`. Raises OSError."""
        folder = self._folder / stream
        folder.mkdir(exist_ok=True)
        path = folder / f"{moment_name(starts)}.mp4"
        self._growing.add(path)
        return path

    def finish(self, path: Path) -> None:
        self._growing.discard(path)

    def is_growing(self, file: RecordedFile) -> bool:
        return self.path(file) in self._growing

    def make_room(self, *, remote: bool = False) -> None:
        """Deletes what is older or more than is to be kept, the oldest first: of what is in the folder, or
        of what is elsewhere."""
        settings, files = self.settings, self.files()
        total = sum(file.size for file in files)
        now = datetime.now(UTC)
        for file in files:
            too_old = settings.keep_s and (now - file.ends).total_seconds() > settings.keep_s
            too_much = settings.keep_bytes and total > settings.keep_bytes
            if not (too_old or too_much) or self.is_growing(file):
                continue
            # What is not ours to delete will be by who does.
            if file.remote is not remote or self.delete(file):
                total -= file.size

    def delete(self, file: RecordedFile) -> bool:
        """Whether it is gone; the log says why not. Blocks for long where it is elsewhere."""
        try:
            if file.remote and self.remote is not None:
                self.remote.delete(file)
            else:
                self.path(file).unlink(missing_ok=True)
        except OSError as exc:
            log.error("recording not deleted", stream=file.stream, file=file.name, reason=str(exc))
            return False
        log.info("recording deleted", stream=file.stream, file=file.name)
        return True

    def lack_of_room(self) -> str:
        """Why nothing more may be written; "" where there is room."""
        free = self.free_bytes = shutil.disk_usage(self._folder).free
        if free >= self.settings.free_bytes:
            return ""
        floor = self.settings.free_bytes
        return f"the disk has {free >> 20} MB left, below recording.free_bytes={floor} ({floor >> 20} MB)"


def _files(folder: Path) -> Iterator[RecordedFile]:
    named = (path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    return (file for path in named if (file := _file(path)) is not None)


def _file(path: Path) -> RecordedFile | None:
    """None where it has been deleted, or its name is no moment."""
    try:
        stat, starts = path.stat(), named_moment(path.stem)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    ends = datetime.fromtimestamp(stat.st_mtime, UTC)
    return RecordedFile(stream=path.parent.name, name=path.name, starts=starts, ends=ends, size=stat.st_size)
