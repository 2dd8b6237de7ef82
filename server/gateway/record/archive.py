"""The folder of recordings: what is in it, how long it stays, and how much of the disk is left alone."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.settings import STREAM_ID, Recording
from server.wire.logs import get_logger

log = get_logger(__name__)

_STREAM = re.compile(STREAM_ID)
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z\.mp4")
_TIME = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A file of a stream. While it grows, it can be played as far as it goes."""

    stream: str
    name: str
    path: Path
    starts: datetime
    ends: datetime
    size: int


class Archive:
    """Folders by stream, files by the moment of their first picture. For any thread."""

    def __init__(self, settings: Recording) -> None:
        """`settings.folder` is set. Raises ValueError where it can't be made or written."""
        assert settings.folder is not None
        self.settings = settings
        self._folder = Path(settings.folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as exc:
            raise ValueError(f"recording.folder={settings.folder!r}: {exc.strerror}") from exc
        self._growing: set[Path] = set()
        self.free_bytes = shutil.disk_usage(self._folder).free  # of the disk, as last measured

    def files(self, stream: str | None = None) -> list[RecordedFile]:
        """The oldest first; of one stream, or of all."""
        names = [stream] if stream is not None else [path.name for path in self._folder.iterdir()]
        # Whoever asks names the stream: it must be no way out of the folder.
        folders = [self._folder / name for name in names if _STREAM.fullmatch(name)]
        found = [file for folder in folders if folder.is_dir() for file in _files(folder)]
        return sorted(found, key=lambda file: (file.starts, file.stream))

    def find(self, stream: str, name: str) -> RecordedFile | None:
        return next((file for file in self.files(stream) if file.name == name), None)

    def begin(self, stream: str, starts: datetime) -> Path:
        """The path of a new file, which isn't deleted until `finish`. Raises OSError."""
        folder = self._folder / stream
        folder.mkdir(exist_ok=True)
        moment = starts.astimezone(UTC).strftime(_TIME)[:-3]  # milliseconds
        path = folder / f"{moment}Z.mp4"
        self._growing.add(path)
        return path

    def finish(self, path: Path) -> None:
        self._growing.discard(path)

    def is_growing(self, path: Path) -> bool:
        return path in self._growing

    def make_room(self) -> None:
        """Deletes what is older or more than is to be kept, the oldest first."""
        settings, files = self.settings, self.files()
        total = sum(file.size for file in files)
        oldest = datetime.now(UTC) - timedelta(seconds=settings.keep_s)
        for file in files:
            too_old = settings.keep_s and file.ends < oldest
            too_much = settings.keep_bytes and total > settings.keep_bytes
            if not (too_old or too_much):
                continue
            if not self.is_growing(file.path) and self.delete(file):
                total -= file.size

    def delete(self, file: RecordedFile) -> bool:
        """Whether it is gone; the log says why not."""
        try:
            file.path.unlink(missing_ok=True)
        except OSError as exc:
            log.error("recording not deleted", stream=file.stream, file=str(file.path), reason=str(exc))
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
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) is None:
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:  # deleted meanwhile
            continue
        starts = datetime.strptime(path.name.removesuffix("Z.mp4"), _TIME).replace(tzinfo=UTC)
        ends = datetime.fromtimestamp(stat.st_mtime, UTC)
        yield RecordedFile(
            stream=folder.name, name=path.name, path=path, starts=starts, ends=ends, size=stat.st_size
        )
