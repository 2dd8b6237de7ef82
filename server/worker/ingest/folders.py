"""Files for libav that lie in the folders of a policy, whatever a playlist or a script names."""

import os
import stat
from pathlib import Path

from server.wire.source_policy import SourcePolicy, allows_file
from server.worker.ingest.dial import Refused
from server.worker.ingest.readable import Decrypted, Nothing, Readable, decrypted_url

# libav opens nothing by itself.
OPTIONS = {"protocol_whitelist": "none"}


class Folders:
    """`open` is libav's `io_open`. A file that can't be had is `Nothing`; `failure` says why. Raises Refused
    for what does not lie in the folders, whether it is there or not."""

    def __init__(self, policy: SourcePolicy) -> None:
        self._policy = policy
        self._open: list[_File] = []
        self.failure = ""

    def open(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        url, encrypted = decrypted_url(url)
        if not url.startswith("file:"):
            raise Refused("it leads to what is no file")
        try:
            file = self._file(Path(url.removeprefix("file:")))
        except OSError as exc:
            self.failure = exc.strerror or str(exc)
            return Nothing()
        self._open.append(file)
        return Decrypted(file, options) if encrypted else file

    def _file(self, path: Path) -> "_File":
        self._check(path)
        # A named pipe that lies there would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._check(Path(f"/proc/self/fd/{descriptor}"))  # a link may have changed meanwhile
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("is no file")
        except BaseException:
            os.close(descriptor)
            raise
        return _File(descriptor)

    def _check(self, path: Path) -> None:
        if not allows_file(path, self._policy):
            raise Refused("it leads to a file that does not lie in one of sources.folders")

    def close(self) -> None:
        """Closes what libav has left open."""
        for file in self._open:
            file.close()
        self._open.clear()
        self.failure = ""


class _File:
    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "rb", buffering=0)

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size) or b""
        except OSError:  # of a disk that fails: it ends there
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        size = os.fstat(self._file.fileno()).st_size
        base = {0: 0, 1: self._file.tell(), 2: size}[whence]
        return self._file.seek(max(0, base + offset))

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
