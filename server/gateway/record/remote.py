"""Recordings elsewhere: S3 and whatever else `fsspec` reaches. All of it blocks."""

import json
import re
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO, cast

from server.gateway.record.file import MOMENT, RecordedFile, Run, moment_name, named_moment
from server.settings import STREAM_ID
from server.wire.urls import mask_url

# The name there says when it ends, too: elsewhere a file's time is that of its upload.
_STREAM = re.compile(STREAM_ID)
_REMOTE_NAME = re.compile(rf"([^/]+)/({MOMENT})-({MOMENT})\.mp4")


class Remote:
    """A folder of the same shape. What is there is listed once, and remembered. For any thread."""

    def __init__(self, address: str) -> None:
        """Raises ValueError where nothing can be reached by such an address."""
        shown = mask_url(address)
        scheme, _, where = address.partition("://")
        if not (scheme and where):  # drivers would take it for a folder of this machine
            raise ValueError(f"recording.remote={shown!r}: must be an address, as s3://bucket/folder")
        try:
            from fsspec.core import url_to_fs  # an extra, and of no use to recordings that stay here

            self._files, root = url_to_fs(address)
        except ModuleNotFoundError as exc:
            missing = f"recording.remote={shown!r}: needs {exc.name}: pip install 'livesr[remote]'"
            raise ValueError(missing) from exc
        except (ImportError, ValueError, TypeError, OSError) as exc:  # some drivers call at once
            raise ValueError(f"recording.remote={shown!r}: {exc}") from exc
        self.address = shown
        self._root = root.rstrip("/")
        self._known: dict[tuple[str, str], tuple[RecordedFile, str]] = {}  # with its path
        self._lock = threading.Lock()

    def files(self, stream: str | None = None) -> list[RecordedFile]:
        """As of the last `look`, and what has happened since."""
        with self._lock:
            return [file for file, _ in self._known.values() if stream in (None, file.stream)]

    def find(self, stream: str, name: str) -> RecordedFile | None:
        """Likewise."""
        with self._lock:
            known = self._known.get((stream, name))
        return None if known is None else known[0]

    def look(self) -> None:
        """Lists what is there. Raises OSError."""
        known = {}
        self._files.invalidate_cache()  # drivers remember listings, and others may have deleted something
        for path, info in self._ask("find", self._root, detail=True).items():
            match = _REMOTE_NAME.fullmatch(path.removeprefix(self._root).lstrip("/"))
            if match is None or not _STREAM.fullmatch(match[1]):
                continue
            stream, name = match[1], f"{match[2]}.mp4"
            try:
                starts, ends = named_moment(match[2]), named_moment(match[3])
            except ValueError:
                continue
            file = RecordedFile(
                stream=stream, name=name, starts=starts, ends=ends, size=info["size"], remote=True
            )
            known[stream, name] = file, path
        with self._lock:
            self._known = known

    def upload(self, file: RecordedFile, local: str, runs: list[Run]) -> None:
        """`runs`: where its pictures are, which would take long to find out there. Raises OSError."""
        path = f"{self._root}/{file.stream}/{file.name.removesuffix('.mp4')}-{moment_name(file.ends)}.mp4"
        try:
            self._ask("put_file", local, path)
        except FileNotFoundError:  # the folder isn't there; where there are none, as in S3, the bucket isn't
            self.look()  # raises where that is so: drivers would make a bucket, too
            self._ask("makedirs", f"{self._root}/{file.stream}", exist_ok=True)
            self._ask("put_file", local, path)
        self._ask("pipe_file", _index(path), json.dumps(runs).encode())
        size = self._ask("info", path)["size"]
        if size != file.size:
            raise OSError(None, f"{size} of {file.size} bytes have arrived")
        with self._lock:
            self._known[file.stream, file.name] = replace(file, remote=True), path

    def runs(self, file: RecordedFile) -> list[Run]:
        """Raises OSError."""
        data = self._ask("cat_file", _index(self._path(file)))
        try:
            return [Run(*map(int, run)) for run in json.loads(data)]
        except (ValueError, TypeError) as exc:
            raise OSError(None, f"the index of {file.name} can't be read: {exc}") from exc

    def open(self, file: RecordedFile) -> BinaryIO:
        """Raises OSError."""
        return cast(BinaryIO, self._ask("open", self._path(file), "rb"))

    def delete(self, file: RecordedFile) -> None:
        """Raises OSError."""
        path = self._path(file)
        for one in (path, _index(path)):
            with suppress(FileNotFoundError):
                self._ask("rm_file", one)
        with self._lock:
            self._known.pop((file.stream, file.name), None)

    def _path(self, file: RecordedFile) -> str:
        with self._lock:
            known = self._known.get((file.stream, file.name))
        if known is None:
            raise FileNotFoundError(None, f"{file.name} isn't there")
        return known[1]

    def _ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Raises OSError, whatever the driver's own errors are."""
        try:
            return getattr(self._files, what)(*args, **kwargs)
        except OSError:
            raise
        except Exception as exc:  # of a driver, and of the library that it stands on
            raise OSError(None, f"{type(exc).__name__}: {exc}") from exc


def _index(path: str) -> str:
    return f"{path.removesuffix('.mp4')}.index"
