"""Writes one stream to files, in a thread of its own: a slow disk holds up nobody."""

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from server.gateway.mp4.fragments import Fragment, Fragments
from server.gateway.record.archive import Archive
from server.wire.logs import get_logger
from server.wire.messages import UPSCALED, VIDEO_CLOCK_HZ, AudioPacket, Opened, VideoPacket

log = get_logger(__name__)

_QUEUED = 1024  # packets, some ten seconds: a disk that is behind by more gets none of what comes meanwhile
_WRITTEN_EVERY_S = 1.0  # and at key frames
_AGAIN_S = 10.0  # after what couldn't be written


class _Mark(Enum):
    INTERRUPTED = "what follows begins with a key frame"
    END = "nothing follows"


class Recorder:
    """Its methods are the event loop's and never wait, but for `join`. A file is fragmented MP4, whole up to
    its last fragment whatever happens; another one begins after `file_s` or `file_bytes`, and where timeline,
    size or codec change."""

    def __init__(self, stream: str, archive: Archive, *, on_trouble: Callable[[str], None]) -> None:
        """`on_trouble` hears, in the event loop, why nothing is recorded now; "" once it is again."""
        self._stream = stream
        self._archive = archive
        self._on_trouble = on_trouble
        self._trouble = ""
        self._loop = asyncio.get_running_loop()
        self._queue: queue.Queue[Opened | VideoPacket | AudioPacket | _Mark] = queue.Queue(_QUEUED)
        self._behind = False  # the queue was full, and has not emptied since
        self._closed = False
        self._opened: Opened | None = None
        self._thread = threading.Thread(target=self._run, name=f"record {stream}")
        # What the thread has.
        self._fragments = Fragments(lasts_s=_WRITTEN_EVERY_S)
        self._file: BinaryIO | None = None
        self._path = Path()
        self._first: Fragment | None = None  # of the file
        self._starts = datetime.now(UTC)  # that one
        self._size = 0  # of the file
        self._has_pictures = False  # that one
        self._try_at_s = 0.0
        self._thread.start()

    def opened(self, opened: Opened) -> None:
        self._opened = opened
        self._put(opened)

    def video(self, packet: VideoPacket) -> None:
        if packet.rendition == UPSCALED:
            self._put(packet)

    def audio(self, packet: AudioPacket) -> None:
        if packet.codec == "aac":
            self._put(packet)

    def interrupted(self) -> None:
        self._put(_Mark.INTERRUPTED)

    def close(self) -> None:
        """What has come until then is still written; `join` waits for that. No trouble is told any more."""
        self._closed = True
        while True:
            try:
                self._queue.put_nowait(_Mark.END)
            except queue.Full:
                self._queue.get_nowait()
            else:
                return

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _put(self, item: Opened | VideoPacket | AudioPacket | _Mark) -> None:
        try:
            if self._behind:
                if self._queue.qsize() > _QUEUED // 2:
                    return
                self._behind = False
                self._queue.put_nowait(_Mark.INTERRUPTED)
                if self._opened is not None:
                    self._queue.put_nowait(self._opened)
            self._queue.put_nowait(item)
        except queue.Full:
            self._behind = True
            self._tell("the disk is too slow")

    def _run(self) -> None:
        try:
            self._write_what_comes()
        except Exception:  # a bug of ours ends this recording, and no other
            log.exception("recorder failed", stream=self._stream)
            self._tell_loop("the recorder failed; the gateway's log says why")
        finally:
            self._finish()

    def _write_what_comes(self) -> None:
        while (item := self._queue.get()) is not _Mark.END:
            match item:
                case Opened():
                    self._fragments.opened(item)
                case VideoPacket():
                    self._write_all(self._fragments.video(item))
                case AudioPacket():
                    self._fragments.audio(item)
                case _Mark():
                    self._write_all(self._fragments.interrupted())
        self._write_all(self._fragments.interrupted())

    def _write_all(self, fragments: list[Fragment]) -> None:
        for fragment in fragments:
            now_s = time.monotonic()
            if now_s < self._try_at_s:
                continue
            try:
                self._write(fragment)
            except OSError as exc:
                self._finish()
                self._try_at_s = now_s + _AGAIN_S
                self._tell_loop(exc.strerror or str(exc))

    def _write(self, fragment: Fragment) -> None:
        if reason := self._archive.lack_of_room():
            raise OSError(None, reason)
        if self._first is not None and self._ends_before(fragment):
            self._finish()
        if self._first is None and fragment.independent:
            self._begin(fragment)
        if self._first is None or self._file is None:
            return
        self._size += self._file.write(fragment.data)
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self._has_pictures = True
        lasts_s = (fragment.ends - self._first.starts) / VIDEO_CLOCK_HZ
        ends_s = self._starts.timestamp() + lasts_s
        os.utime(self._file.fileno(), (ends_s, ends_s))  # says when its last picture was
        self._tell_loop("")

    def _begin(self, fragment: Fragment) -> None:
        ago_s = time.monotonic() - fragment.starts / VIDEO_CLOCK_HZ
        self._starts = datetime.now(UTC) - timedelta(seconds=ago_s)
        self._path, self._has_pictures = self._archive.begin(self._stream, self._starts), False
        self._file, self._first = self._path.open("wb"), fragment
        self._size = self._file.write(fragment.init)
        log.info("recording begins", stream=self._stream, file=str(self._path))

    def _ends_before(self, fragment: Fragment) -> bool:
        assert self._first is not None
        lasts_s = (fragment.starts - self._first.starts) / VIDEO_CLOCK_HZ
        settings = self._archive.settings
        too_large = settings.file_bytes and self._size + len(fragment.data) > settings.file_bytes
        over = fragment.independent and (lasts_s >= settings.file_s or bool(too_large))
        return over or not fragment.follows

    def _finish(self) -> None:
        self._first = None
        if self._file is not None:
            with contextlib.suppress(OSError):  # it tries once more what couldn't be written
                self._file.close()
            self._file = None
            if not self._has_pictures:
                with contextlib.suppress(OSError):
                    self._path.unlink()
        self._archive.finish(self._path)

    def _tell_loop(self, trouble: str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, trouble)

    def _tell(self, trouble: str) -> None:
        if trouble == self._trouble or (self._behind and not trouble):
            return
        self._trouble = trouble
        if trouble:
            log.error("recording down", stream=self._stream, reason=trouble)
        else:
            log.info("recording again", stream=self._stream)
        if not self._closed:
            self._on_trouble(trouble)
