"""Where the log's lines go: standard error, written by a thread of its own.

Whoever logs waits neither for a disk nor for a pipe that nobody reads, and a full or closed one ends nothing.
"""

import logging
import os
import queue
import threading
from contextlib import suppress

_MOST_WAITING = 1000
_FLUSH_S = 1.0  # a reader that has stopped doesn't hold up the end of a process


class LogOutput(logging.Handler):
    """Lines that can't be written, or come while too many wait, are lost; before the next one that can be
    written an event says how many."""

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._lost = 0
        self._counting = threading.Lock()
        self._line_is_cut = False
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # as every handler of `logging`: what can't be shown ends nothing
            self.handleError(record)
            return
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._count_lost(1)

    def flush(self) -> None:
        """Waits until all lines are written, but no longer than a second."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, _FLUSH_S)

    def close(self) -> None:
        """Ends the thread with the lines that wait."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        super().close()

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            lost = self._lost
            if lost and self._write(self.format(_lines_lost(lost))):
                self._count_lost(-lost)
            if not self._write(line):
                self._count_lost(1)
            self._waiting.task_done()
        self._waiting.task_done()

    def _count_lost(self, count: int) -> None:
        with self._counting:
            self._lost += count

    def _write(self, line: str) -> bool:
        """Whether all of it could be written."""
        left = f"{line}\n".encode(errors="backslashreplace")
        if self._line_is_cut:
            left = b"\n" + left
        whole = len(left)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self._line_is_cut |= len(left) < whole
            return False
        self._line_is_cut = False
        return True


def _lines_lost(count: int) -> logging.LogRecord:
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "log lines lost", (), None)
    record.count = count
    return record
