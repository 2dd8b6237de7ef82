"""Reads a body ahead of whoever reads it at its own pace, and remembers when each part arrived."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from server.wire.clock import now_ns

_PART_BYTES = 1 << 15
_MOST_BYTES = 8 << 20
_POLL_S = 0.2


class Body(Protocol):
    """`abort` may be called from another thread: it ends a `read` that waits."""

    def read(self, size: int, /) -> bytes: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Ahead:
    """Body as the file that libav reads; `on_read` hears what it reads, and when that arrived. A thread of
    its own takes what comes, and waits when libav has left too much."""

    def __init__(self, body: Body, *, on_read: Callable[[bytes, int], None]) -> None:
        self._body = body
        self._on_read = on_read
        self._changed = threading.Condition()
        self._parts: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._ended = self._closing = False
        self._ready = b""
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        if not self._ready:
            with self._changed:
                while not self._parts and not self._ended:
                    self._changed.wait(_POLL_S)
                if not self._parts:
                    return b""
                self._ready, arrival_ns = self._parts.popleft()
                self._bytes -= len(self._ready)
                self._changed.notify()
            self._on_read(self._ready, arrival_ns)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._body.abort()
        self._thread.join()
        self._body.close()

    def _run(self) -> None:
        while data := self._body.read(_PART_BYTES):
            arrival_ns = now_ns()
            with self._changed:
                self._parts.append((data, arrival_ns))
                self._bytes += len(data)
                self._changed.notify()
                while self._bytes > _MOST_BYTES and not self._closing:
                    self._changed.wait(_POLL_S)
                if self._closing:
                    break
        with self._changed:
            self._ended = True
            self._changed.notify()
