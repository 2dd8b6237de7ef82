"""Bound on what a worker may take: a source that makes it run away ends it, and not the machine."""

import errno
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av

from engine.machine import nvidia_gpus

# As OpenVINO, NumPy, x264 and Python say it, beside `MemoryError` and ENOMEM.
_WORDS = re.compile(
    r"bad_alloc|(?:failed|unable) to allocate|cannot allocate memory|malloc of size|start new thread", re.I
)
# A library that fails with less than this left of the bound fails for want of memory; x264 asks for blocks as
# large as a picture.
_ROOM, _ROOM_BYTES = 0.1, 64 << 20


class SharedBound:
    """Bound of a process that several streams share: the sum of theirs, as nobody can say whose memory is
    whose. What one of them takes beyond its own part is missing to whoever asks next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bounds: list[int] = []

    @property
    def streams(self) -> int:
        return len(self._bounds)

    @contextmanager
    def raised_by(self, most_bytes: int) -> Iterator[None]:
        """While a stream runs that may take so much; 0 for no bound."""
        with self._lock:
            self._bounds.append(most_bytes)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._bounds.remove(most_bytes)
                self._apply()

    def _apply(self) -> None:
        limit_memory(0 if 0 in self._bounds else sum(self._bounds))


def limit_memory(most_bytes: int) -> None:
    """Bounds the process's private writable memory, 0 for no bound; what goes beyond fails as MemoryError.

    RLIMIT_DATA and not RLIMIT_AS: models mapped from files and reserves of allocators are address space only.
    Nothing is bounded beside a GPU, since CUDA maps the memory of every device.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = hard
    if most_bytes and not nvidia_gpus():
        most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
    if most != soft:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def lacks_memory(exc: BaseException) -> bool:
    """Whether it is the bound that made this fail, whatever a library makes of it: libav's decoders call it
    invalid data, and its encoders an error of something else."""
    bound = resource.getrlimit(resource.RLIMIT_DATA)[0]
    room = max(_ROOM * bound, _ROOM_BYTES)
    full = bound != resource.RLIM_INFINITY and held_bytes() > bound - room
    for error in _chain(exc):
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if _WORDS.search(str(error)) or (full and isinstance(error, av.FFmpegError | RuntimeError)):
            return True
    return False


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def held_bytes() -> int:
    """Private writable memory of this process, which is what is bounded."""
    with open("/proc/self/status") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmData:"))
    return int(kilobytes) * 1024
