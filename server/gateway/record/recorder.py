"""Writes one stream's segments to files, in a thread of its own: a slow disk holds up nobody."""

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from server.gateway.hls.segments import Segment
from server.gateway.record.archive import Archive

log = logging.getLogger(__name__)

_QUEUED = 16  # segments: a disk that is behind by more gets none of what comes meanwhile
_AGAIN_S = 10.0  # after what couldn't be written
_TIDY_S = 60.0


class Recorder:
    """`segment` and `close` belong to the event loop. A file is fragmented MP4, whole up to its last segment
    whatever happens; another one begins after `file_s`, and where timeline, size or codec change."""

    def __init__(self, stream: str, archive: Archive, *, on_trouble: Callable[[str], None]) -> None:
        """`on_trouble` hears, in the event loop, why nothing is recorded now; "" once it is again."""
        self._stream = stream
        self._archive = archive
        self._on_trouble = on_trouble
        self._trouble = ""
        self._loop = asyncio.get_running_loop()
        self._segments: queue.Queue[Segment | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(target=self._run, name=f"record {stream}")
        self._file: BinaryIO | None = None
        self._path = Path()
        self._first: Segment | None = None  # of the file
        self._try_at_s = self._tidy_at_s = 0.0
        self._thread.start()

    def segment(self, segment: Segment) -> None:
        try:
            self._segments.put_nowait(segment)
        except queue.Full:
            self._tell("the disk is too slow")

    def close(self) -> None:
        """What has come until then is still written; `join` waits for that."""
        while True:
            try:
                self._segments.put_nowait(None)
            except queue.Full:
                self._segments.get_nowait()
            else:
                return

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (segment := self._segments.get()) is not None:
            now_s = time.monotonic()
            if now_s < self._try_at_s:
                continue
            try:
                self._write(segment, now_s)
            except OSError as exc:
                self._finish()
                self._try_at_s = now_s + _AGAIN_S
                self._tell_loop(exc.strerror or str(exc))
            else:
                self._tell_loop("")
        self._finish()

    def _write(self, segment: Segment, now_s: float) -> None:
        if now_s >= self._tidy_at_s:
            self._tidy_at_s = now_s + _TIDY_S
            self._archive.make_room()
        if reason := self._archive.lack_of_room():
            raise OSError(None, reason)
        if self._file is None or self._ends_before(segment):
            self._finish()
            self._path = self._archive.begin(self._stream, segment.starts)
            self._file, self._first = self._path.open("wb"), segment
            self._file.write(segment.init.data)
            log.info("stream %s: records to %s", self._stream, self._path)
        self._file.write(segment.data)
        self._file.flush()
        os.fdatasync(self._file.fileno())
        ends_s = (segment.starts + timedelta(seconds=segment.duration_s)).timestamp()
        os.utime(self._file.fileno(), (ends_s, ends_s))  # says when its last picture was

    def _ends_before(self, segment: Segment) -> bool:
        assert self._first is not None
        lasts_s = (segment.starts - self._first.starts).total_seconds()
        new = segment.discontinuity or segment.init is not self._first.init
        return new or lasts_s >= self._archive.settings.file_s

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._archive.finish(self._path)

    def _tell_loop(self, trouble: str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, trouble)

    def _tell(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.error("stream %s: nothing is recorded: %s", self._stream, trouble)
        else:
            log.info("stream %s: is recorded again", self._stream)
        self._on_trouble(trouble)
