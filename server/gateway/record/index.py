"""Where in recorded files the pictures of a time are: from key frame to key frame."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import BinaryIO

from server.gateway.mp4 import reading
from server.gateway.record.archive import Archive
from server.gateway.record.file import RecordedFile, Run
from server.wire.logs import get_logger
from server.wire.messages import VIDEO_CLOCK_HZ

log = get_logger(__name__)

# As many as a DVR of hours has, however short they are: who plays it asks for all of them again and again.
_MOST_KEPT = 4096  # files
_MOST_RUNS = 1 << 17  # of all of them, some 25 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A file as far as it is known, which for one that grows is up to its last key frame."""

    file: RecordedFile
    init: bytes
    runs: Sequence[Run]  # one for each key frame, at least one
    grows: bool

    def moment(self, ticks: int) -> datetime:
        """The time of day that these stand for."""
        return self.file.starts + timedelta(seconds=(ticks - self.runs[0].starts) / VIDEO_CLOCK_HZ)

    @property
    def ends(self) -> datetime:
        return self.moment(self.runs[-1].ends)

    def follows(self, before: "Indexed | None") -> bool:
        """Whether it goes on where that one ends, as if they were one file."""
        return before is not None and before.init == self.init and before.runs[-1].ends == self.runs[0].starts


class Index:
    """Of all files of the archive; each is read once, and one that grows as it does. For any thread, but not
    for the event loop."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._runs = 0  # of those
        self._lock = threading.Lock()

    def between(self, stream: str, starts: datetime, ends: datetime) -> list[Indexed]:
        """The files that have pictures of that time, the oldest first."""
        files = self._archive.files(stream)
        # When a file ends is only told by its index: the next one's start bounds it.
        later = chain((file.starts for file in files[1:]), [ends])
        wanted = [
            file for file, next_ in zip(files, later, strict=False) if file.starts < ends and next_ >= starts
        ]
        found = [indexed for file in wanted if (indexed := self.of(file)) is not None]
        return [indexed for indexed in found if indexed.ends > starts]

    def find(self, stream: str, name: str) -> Indexed | None:
        file = self._archive.find(stream, name)
        return None if file is None else self.of(file)

    def open(self, file: RecordedFile) -> BinaryIO:
        """Raises OSError."""
        return self._archive.open(file)

    def of(self, file: RecordedFile) -> Indexed | None:
        """None where it has no picture yet, or can't be read: the log says why."""
        try:
            return self.read(file)
        except OSError as exc:
            log.warning("recording not read", stream=file.stream, file=file.name, reason=str(exc))
            return None

    def read(self, file: RecordedFile) -> Indexed | None:
        """None where it has no picture yet. Raises OSError."""
        key = file.stream, file.name
        with self._lock:
            known = self._known.setdefault(key, _Known())
            self._known.move_to_end(key)
        with known.lock:
            # Asked before it is read: what grows no more then has its last fragment.
            grows = self._archive.is_growing(file)
            try:
                known.read(self._archive, file, grows=grows)
            finally:
                self._keep(key, known)
            runs = known.runs[:-1] if grows else list(known.runs)
        if not known.init or not runs:
            return None
        return Indexed(file=file, init=known.init, runs=runs, grows=grows)

    def _keep(self, key: tuple[str, str], known: "_Known") -> None:
        """What has been read of it counts; those that were asked for longest ago go."""
        with self._lock:
            if self._known.get(key) is known:
                self._runs += len(known.runs) - known.counted
                known.counted = len(known.runs)
            while len(self._known) > _MOST_KEPT or self._runs > _MOST_RUNS:
                _, gone = self._known.popitem(last=False)
                self._runs -= gone.counted
                gone.counted = 0


class _Known:
    """What has been read of a file."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # one that is elsewhere keeps nobody from the others
        self.init = b""
        self.runs: list[Run] = []
        self.counted = 0  # of them, by `Index`
        self._read_bytes = 0
        self._whole = False

    def read(self, archive: Archive, file: RecordedFile, *, grows: bool) -> None:
        """Raises OSError."""
        if self._whole:
            return
        if file.remote and archive.remote is not None:
            runs = archive.remote.runs(file)
            with archive.open(file) as opened:
                self.init, self.runs = reading.read_init(opened), runs
        else:
            with archive.path(file).open("rb") as opened:
                self._go_on(opened)
        self._whole = not grows

    def _go_on(self, file: BinaryIO) -> None:
        if not self.init:
            self.init = reading.read_init(file)
            self._read_bytes = len(self.init)
        if not self.init:
            return
        for found in reading.fragments(file, self._read_bytes):
            run = Run(found.offset, found.size, found.starts, found.ends, found.frames)
            if found.independent or not self.runs:
                self.runs.append(run)
            else:
                last = self.runs[-1]
                self.runs[-1] = last.with_next(run)
            self._read_bytes = found.offset + found.size
