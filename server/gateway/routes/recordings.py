"""`/api/recordings`: what has been recorded, to be listed, fetched and deleted."""

import re
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from server.gateway.auth.guard import Guard
from server.gateway.auth.scopes import Caller
from server.gateway.errors import (
    Forbidden,
    InvalidRequest,
    RangeNotSatisfiable,
    RecordingChanges,
    RecordingGrows,
    RecordingNotFound,
    RemoteFailed,
    Unauthorized,
    responses,
)
from server.gateway.figures.views import UploadState
from server.gateway.record.archive import Archive
from server.gateway.record.cut import FormatChanges, cut
from server.gateway.record.file import RecordedFile
from server.gateway.record.index import Index
from server.gateway.record.threads import RecordThreads
from server.gateway.record.uploader import Uploader
from server.gateway.routes.moments import span
from server.settings import STREAM_ID

_CHUNK_BYTES = 1 << 18
_MOST_S = 24 * 3600.0  # of one file


class RecordingView(BaseModel):
    stream: str
    name: str = Field(examples=["20261129T140320.120Z.mp4"])
    starts: datetime = Field(description="Of the first picture")
    ends: datetime = Field(description="Of the last one")
    bytes: int
    growing: bool = Field(description="It is being written, and can be played as far as it goes")
    remote: bool = Field(description="It is in recording.remote")
    url: str


def router(
    archive: Archive | None,
    index: Index | None,
    uploader: Uploader | None,
    threads: RecordThreads,
    guard: Guard,
) -> APIRouter:
    routes = APIRouter(
        prefix="/api/recordings", tags=["Recordings"], responses=responses(Unauthorized, Forbidden)
    )
    Known = Annotated[Caller, Depends(guard.known)]

    @routes.get("")
    async def list_recordings(
        caller: Known, stream: Annotated[str | None, Query(pattern=STREAM_ID)] = None
    ) -> list[RecordingView]:
        """Files that the caller may view, the oldest first."""
        if archive is None:
            return []
        files = await threads.run(archive.files, stream)
        return [_view(archive, file) for file in files if caller.may("view", file.stream)]

    @routes.get("/upload", responses=responses(RecordingNotFound))
    async def show_upload(caller: Known) -> UploadState:
        """How far finished files have gone to `recording.remote`."""
        if uploader is None:
            raise RecordingNotFound("recordings go nowhere: there is no recording.remote")
        return uploader.state

    @routes.head("/{stream}.mp4", include_in_schema=False, dependencies=[Depends(guard.needs("view"))])
    @routes.get(
        "/{stream}.mp4",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"video/mp4": {}}},
            **responses(RecordingNotFound, RecordingChanges, InvalidRequest),
        },
        dependencies=[Depends(guard.needs("view"))],
    )
    async def download_range(
        stream: str,
        from_: Annotated[str, Query(alias="from", description="RFC 3339, or seconds before now: -600")],
        to: Annotated[str | None, Query(description="Likewise; left out, it is now")] = None,
    ) -> StreamingResponse:
        """What was recorded from one time to another as one MP4, of as many files as that lies in: from the
        key frame before it to the one after it, as it was encoded. Where the stream was away, what came next
        follows at once; where its format has changed, it has to be asked for in two."""
        starts, ends = span(from_, to, datetime.now(UTC), most_s=_MOST_S)
        found = None
        if index is not None:
            try:
                found = await threads.run(cut, index, stream, starts, ends)
            except FormatChanges as exc:
                raise RecordingChanges(f"stream {stream!r}: {exc}; ask for what is before or after") from exc
        if found is None:
            raise RecordingNotFound(f"stream {stream!r} has no recording of that time")
        name = f"{stream}-{found.starts:%Y%m%dT%H%M%SZ}.mp4"
        headers = {
            "Content-Length": str(found.size),
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        return _Pieces(found.chunks(), threads, headers=headers)

    @routes.head("/{stream}/{name}", include_in_schema=False, dependencies=[Depends(guard.needs("view"))])
    @routes.get(
        "/{stream}/{name}",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"video/mp4": {}}},
            **responses(RecordingNotFound, RangeNotSatisfiable, RemoteFailed),
        },
        dependencies=[Depends(guard.needs("view"))],
    )
    async def fetch_recording(
        stream: str, name: str, request: Request, wanted: Annotated[str, Header(alias="Range")] = ""
    ) -> StreamingResponse:
        """The file, as fragmented MP4; byte ranges are served. Of one that grows it is what there is now."""
        there, file = await _find(stream, name)
        filename = f"{stream}-{name}"
        # Of other methods a range means nothing (RFC 9110, 14.2).
        first, last = _range(wanted if request.method == "GET" else "", file.size)
        try:
            opened = await threads.run(there.open, file)
        except FileNotFoundError:
            raise RecordingNotFound(f"stream {stream!r} has no recording {name!r} any more") from None
        except OSError as exc:
            raise RemoteFailed(f"{name!r} can't be fetched from recording.remote: {exc.strerror}") from exc
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Length": str(last - first + 1),
            "Content-Disposition": f'attachment; filename="{filename}"',
        }
        part = last - first + 1 < file.size
        if part:
            headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        return _Pieces(_Part(opened, first, last), threads, status_code=status, headers=headers)

    @routes.delete(
        "/{stream}/{name}",
        status_code=HTTPStatus.NO_CONTENT,
        responses=responses(RecordingNotFound, RecordingGrows, RemoteFailed),
        dependencies=[Depends(guard.needs("publish"))],
    )
    async def delete_recording(stream: str, name: str) -> None:
        there, file = await _find(stream, name)
        if there.is_growing(file):
            raise RecordingGrows(f"stream {stream!r}: {name!r} is being written")
        if not await threads.run(there.delete, file):
            raise RemoteFailed(f"{name!r} can't be deleted; the log says why")

    async def _find(stream: str, name: str) -> tuple[Archive, RecordedFile]:
        """Raises RecordingNotFound."""
        if archive is not None and (file := await threads.run(archive.find, stream, name)):
            return archive, file
        raise RecordingNotFound(f"stream {stream!r} has no recording {name!r}")

    return routes


def _range(wanted: str, size: int) -> tuple[int, int]:
    """The first and last byte of a single range; all of them where it is another, or none (RFC 9110, 14.2).
    Raises RangeNotSatisfiable."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", wanted.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return 0, size - 1
    if match[1]:
        first = int(match[1])
        last = int(match[2] or max(first, size - 1))
    else:
        first, last = max(0, size - int(match[2])), size - 1
    if match[1] and last < first:
        return 0, size - 1
    if first >= size:
        raise RangeNotSatisfiable(f"Range: {wanted}: the file has {size} bytes", size=size)
    return first, min(last, size - 1)


class _Part:
    """Bytes of a file, piece by piece."""

    def __init__(self, file: BinaryIO, first: int, last: int) -> None:
        self._file = file
        self._at, self._end = first, last + 1

    def __next__(self) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(min(self._end - self._at, _CHUNK_BYTES))
        if not data:
            raise StopIteration
        self._at += len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return self

    def close(self) -> None:
        self._file.close()


class _Pieces(StreamingResponse):
    """MP4 that is made or read in threads, and closed however the answer ends."""

    def __init__(
        self,
        pieces: _Part | Generator[bytes, None, None],
        threads: RecordThreads,
        *,
        headers: dict[str, str],
        status_code: int = HTTPStatus.OK,
    ) -> None:
        self._pieces = pieces
        self._threads = threads
        self._making = threading.Lock()
        self._over = False
        super().__init__(self._each(), status_code, headers, media_type="video/mp4")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._over = scope["method"] == "HEAD"  # there are only headers
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over = True
            self._close()

    async def _each(self) -> AsyncIterator[bytes]:
        while not self._over and (piece := await self._threads.run(self._next)) is not None:
            yield piece

    def _next(self) -> bytes | None:
        with self._making:
            piece = next(self._pieces, None)
        if self._over:
            self._close()
        return piece

    def _close(self) -> None:
        """Now, or once the thread is done that makes a piece."""
        if self._making.acquire(blocking=False):
            try:
                self._pieces.close()
            finally:
                self._making.release()


def _view(archive: Archive, file: RecordedFile) -> RecordingView:
    return RecordingView(
        stream=file.stream,
        name=file.name,
        starts=file.starts,
        ends=file.ends,
        bytes=file.size,
        growing=archive.is_growing(file),
        remote=file.remote,
        url=f"/api/recordings/{file.stream}/{file.name}",
    )
