"""DVR: HLS playlists that begin in the past, out of what is recorded."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    InvalidRequest,
    NotReady,
    RecordingNotFound,
    SegmentNotFound,
    StreamNotFound,
    responses,
)
from server.gateway.hls.playlist import Measured, Took, date, stream_inf
from server.gateway.mp4.reading import form_of
from server.gateway.record.dvr import MOST_S, Dvr, Window
from server.gateway.record.threads import RecordThreads
from server.gateway.routes.moments import span
from server.gateway.routes.playlists import MP4, PLAYLIST, playlist_response
from server.gateway.streams.streams import Streams

_FROM = Query(alias="from", description="RFC 3339, or seconds before now: -600")
From = Annotated[str, _FROM]
MaybeFrom = Annotated[str | None, _FROM]
To = Annotated[str | None, Query(description="Likewise; left out, it goes on into live")]
_PLAYLIST = "dvr.m3u8"
_LATE_S = 30.0  # by then a picture is recorded, and its segment whole


class DvrFiles:
    """What a DVR player fetches. `dvr` is None where nothing is recorded."""

    def __init__(self, streams: Streams, dvr: Dvr | None, threads: RecordThreads, guard: Guard) -> None:
        self._streams = streams
        self._dvr = dvr
        self._threads = threads
        self._guard = guard

    def router(self) -> APIRouter:
        """Below a stream's path; to be included before what matches any playlist."""
        routes = APIRouter()

        @routes.head(f"/{_PLAYLIST}", include_in_schema=False)
        @routes.get(
            f"/{_PLAYLIST}",
            response_class=Response,
            responses={
                200: {"content": {PLAYLIST: {}}},
                **responses(RecordingNotFound, InvalidRequest, NotReady),
            },
        )
        async def dvr_playlist(
            stream: str, request: Request, from_: From = "-600", to: To = None
        ) -> Response:
            """What has been recorded since then, and what comes, in segments as long as HLS's."""
            window, starts, ends = await self._window(stream, from_, to)
            ended = not self._grows(stream) or (ends is not None and _reaches(window, ends))
            # Hours of it take a while to write and to pack.
            return await asyncio.to_thread(
                lambda: playlist_response(_media(window, starts, ended=ended), request, self._guard)
            )

        @routes.head("/recorded/{file}/init.mp4", include_in_schema=False)
        @routes.get(
            "/recorded/{file}/init.mp4",
            response_class=Response,
            responses={200: {"content": {MP4: {}}}, **responses(SegmentNotFound)},
        )
        async def recorded_init(stream: str, file: str) -> Response:
            """The init segment of a recorded file."""
            return self._segment(await self._threads.run(self._read_init, stream, file), file)

        @routes.head("/recorded/{file}/{offset}.m4s", include_in_schema=False)
        @routes.get(
            "/recorded/{file}/{offset}.m4s",
            response_class=Response,
            responses={200: {"content": {MP4: {}}}, **responses(SegmentNotFound)},
        )
        async def recorded_segment(stream: str, file: str, offset: int) -> Response:
            """A segment of a recorded file."""
            return self._segment(await self._threads.run(self._read, stream, file, offset), file)

        return routes

    async def multivariant(self, stream: str, from_: str, to: str | None, request: Request) -> Response:
        """The one variant there is: what begins some seconds ago has to begin there when it is loaded again,
        too, so that it names the moment."""
        span(from_, to, datetime.now(UTC), most_s=MOST_S)
        window, starts, ends = await self._window(stream, from_, to)
        query = {"from": date(starts)} | ({} if ends is None else {"to": date(ends)})
        lines = (
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            "#EXT-X-INDEPENDENT-SEGMENTS",
            await asyncio.to_thread(_stream_inf, window),
            f"{_PLAYLIST}?{urlencode(query)}",
        )
        return playlist_response("\n".join((*lines, "")), request, self._guard)

    async def _window(
        self, stream: str, from_: str, to: str | None
    ) -> tuple[Window, datetime, datetime | None]:
        """Raises InvalidRequest, RecordingNotFound, or NotReady where something is just being recorded."""
        now = datetime.now(UTC)
        starts, ends = span(from_, to, now)
        window = None
        if self._dvr is not None:
            window = await self._threads.run(self._dvr.window, stream, starts, min(ends, now))
        if window is None and ends >= now and self._grows(stream):
            raise NotReady(f"stream {stream!r} has no whole segment since from={from_!r} yet")
        if window is None:
            raise RecordingNotFound(f"stream {stream!r} has no recording of that time")
        return window, starts, None if to is None else ends

    def _grows(self, stream: str) -> bool:
        """Whether there may be more of it."""
        try:
            return self._streams.get(stream).outputs.record.state is not None
        except StreamNotFound:
            return False

    def _read_init(self, stream: str, file: str) -> bytes | None:
        return self._dvr.init(stream, file) if self._dvr is not None else None

    def _read(self, stream: str, file: str, offset: int) -> bytes | None:
        return self._dvr.read(stream, file, offset) if self._dvr is not None else None

    def _segment(self, data: bytes | None, file: str) -> Response:
        if data is None:
            raise SegmentNotFound(f"there is no such segment of the recording {file!r}, or no more")
        cached = f"{'private' if self._guard.on else 'public'}, max-age=3600, immutable"
        return Response(data, media_type=MP4, headers={"Cache-Control": cached})


def _reaches(window: Window, ends: datetime) -> bool:
    """Whether nothing before `ends` is still to come."""
    last = window.segments[-1]
    there = last.starts + timedelta(seconds=last.duration_s)
    return there >= ends or (datetime.now(UTC) - ends).total_seconds() > _LATE_S


def _stream_inf(window: Window) -> str:
    """Of all that the player will come upon: codecs of each format, and the size of the largest."""
    forms = sorted(map(form_of, window.inits), key=lambda form: form.width * form.height, reverse=True)
    codecs = dict.fromkeys(codec for form in forms for codec in form.codecs)
    took = (Took(s.bytes, s.duration_s, s.frames) for s in window.segments)
    return stream_inf(Measured.of(took, window.target_duration_s), codecs, forms[0].width, forms[0].height)


def _media(window: Window, starts: datetime, *, ended: bool) -> str:
    """A player begins at that moment, and not at the end as it does with what is live."""
    first = window.segments[0]
    offset_s = min(max(0.0, (starts - first.starts).total_seconds()), first.duration_s)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{window.target_duration_s}",
        f"#EXT-X-MEDIA-SEQUENCE:{window.sequence}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{window.discontinuities}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f"#EXT-X-START:TIME-OFFSET={offset_s:.3f},PRECISE=YES",
    ]
    for segment in window.segments:
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.new_init:
            lines.append(f'#EXT-X-MAP:URI="recorded/{segment.file}/init.mp4"')
        lines.append(segment.lines)
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join((*lines, ""))
