"""HLS over HTTP: playlists and segments of each stream, from memory."""

import asyncio
import math
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    Forbidden,
    InvalidPath,
    InvalidReload,
    InvalidRequest,
    LimitReached,
    NotReady,
    RecordingNotFound,
    RenditionNotFound,
    SegmentNotFound,
    StreamFailed,
    StreamNotFound,
    Unauthorized,
    responses,
)
from server.gateway.hls import playlist
from server.gateway.hls.segments import Segments
from server.gateway.hls.sink import HlsSink
from server.gateway.record.dvr import Dvr
from server.gateway.record.threads import RecordThreads
from server.gateway.routes.dvr import DvrFiles, MaybeFrom, To
from server.gateway.routes.playlists import MP4, PLAYLIST, playlist_response
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams
from server.wire.messages import UPSCALED, Rendition

# A player that comes before the first segment waits rather than fails.
FIRST_SEGMENT_TIMEOUT_S = 5.0
# So many target durations a player may wait for what it asks for ahead (RFC 8216bis, 6.2.5.2).
_BLOCKED_TARGETS = 3
# How far ahead a player may ask: segments after the last, and seconds of parts after the last of these.
_AHEAD, _AHEAD_S = 2, 3.0
_FRESH_TARGETS = 6

Sequence = Annotated[int | None, Query(alias="_HLS_msn", ge=0)]
PartIndex = Annotated[int | None, Query(alias="_HLS_part", ge=0)]
Skip = Annotated[Literal["YES", "v2"] | None, Query(alias="_HLS_skip")]


def router(
    streams: Streams, dvr: Dvr | None, threads: RecordThreads, guard: Guard, folder: str = ""
) -> APIRouter:
    """The files at two paths: for a token in the headers, and for a signature in the path. Players that have
    begun go on in `folder`."""
    routes = APIRouter(tags=["HLS"])
    files = _files(streams, DvrFiles(streams, dvr, threads, guard), guard, folder)
    routes.include_router(
        files,
        prefix="/hls/{stream}",
        dependencies=[Depends(guard.needs("view"))],
        responses=responses(Unauthorized, Forbidden),
    )
    routes.include_router(
        files,
        prefix="/hls/{stream}/{signature}",
        dependencies=[Depends(guard.signed)],
        responses=responses(InvalidPath),
    )
    return routes


def _files(streams: Streams, recorded: DvrFiles, guard: Guard, folder: str) -> APIRouter:
    routes = APIRouter()
    routes.include_router(recorded.router())
    described = responses(StreamNotFound, StreamFailed, LimitReached, NotReady)

    @routes.head("/index.m3u8", include_in_schema=False)
    @routes.get(
        "/index.m3u8",
        response_class=Response,
        responses={
            200: {"content": {PLAYLIST: {}}},
            **described,
            **responses(RecordingNotFound, InvalidRequest),
        },
    )
    async def multivariant_playlist(
        stream: str, request: Request, from_: MaybeFrom = None, to: To = None
    ) -> Response:
        """The multivariant playlist, with which a player starts. With `from` it is of what was recorded since
        then, up to `to` or on into live."""
        if from_ is not None:
            return await recorded.multivariant(stream, from_, to, request)
        if to is not None:
            raise InvalidRequest(f"to={to!r} without from: what is live has no end")
        streams.check_open()
        found = await _with_segments(streams, stream, request)
        return playlist_response(playlist.multivariant(found.outputs.hls, folder), request, guard)

    @routes.head(f"/{playlist.MEDIA_PLAYLIST}", include_in_schema=False)
    @routes.get(
        f"/{playlist.MEDIA_PLAYLIST}",
        response_class=Response,
        responses={200: {"content": {PLAYLIST: {}}}, **described, **responses(InvalidReload)},
    )
    async def media_playlist(
        stream: str, request: Request, msn: Sequence = None, part: PartIndex = None, skip: Skip = None
    ) -> Response:
        """The segments of the last seconds. With `_HLS_msn` the answer waits for that segment, or for the
        part `_HLS_part` of it; with `_HLS_skip` it leaves out what the player has."""
        return await media_of(UPSCALED, stream, request, msn, part, skip)

    @routes.head("/{rendition}.m3u8", include_in_schema=False)
    @routes.get(
        "/{rendition}.m3u8",
        response_class=Response,
        responses={
            200: {"content": {PLAYLIST: {}}},
            **described,
            **responses(InvalidReload, RenditionNotFound),
        },
    )
    async def variant_playlist(
        stream: str,
        rendition: str,
        request: Request,
        msn: Sequence = None,
        part: PartIndex = None,
        skip: Skip = None,
    ) -> Response:
        """The same of a smaller variant, which is made while its playlist is asked for."""
        return await media_of(rendition, stream, request, msn, part, skip)

    async def media_of(
        rendition: Rendition,
        stream: str,
        request: Request,
        msn: int | None,
        part: int | None,
        skip: str | None,
    ) -> Response:
        found = await _with_segments(streams, stream, request, rendition)
        sink = found.outputs.hls
        segments = sink.variant(rendition)
        blocked = msn is not None and not segments.ended
        if msn is not None and blocked:
            await _until_there(sink, segments, msn, part)
            found.outputs.require(rendition)  # it may have come to its end
        elif msn is None and part is not None:
            raise InvalidReload(f"_HLS_part={part} without _HLS_msn: a part is one of a segment")
        if segments.ended:
            found.figures.hls_players.told_end(_player(request))
        text = playlist.media(sink, rendition, delta=skip is not None)
        # What was waited for stays true; for how long it is worth keeping, B.1 says.
        fresh_s = _FRESH_TARGETS * segments.target_duration_s if blocked and not segments.ended else 0
        return playlist_response(text, request, guard, fresh_s)

    @routes.head("/{segment}", include_in_schema=False)
    @routes.get(
        "/{segment}",
        response_class=Response,
        responses={200: {"content": {MP4: {}}}, **responses(SegmentNotFound, StreamNotFound)},
    )
    async def media_segment(stream: str, segment: str, request: Request) -> Response:
        """A segment, a part of one, or the init segment before it. It waits for the part that a playlist says
        comes next."""
        found = streams.get_to_view(stream)
        segments = found.outputs.hls.of(segment)
        if segment == segments.next_part:
            await _changed(segments, lambda: segment != segments.next_part)
        data = segments.find(segment)
        if data is None:
            raise SegmentNotFound(f"stream {stream!r} has no segment {segment!r}, or has it no more")
        found.figures.metrics.hls_requests.inc()
        found.figures.hls_players.fetched(_player(request), segment)
        # The name is never given to other bytes.
        cached = f"{'private' if guard.on else 'public'}, max-age=3600, immutable"
        return Response(data, media_type=MP4, headers={"Cache-Control": cached})

    return routes


async def _until_there(sink: HlsSink, segments: Segments, msn: int, part: int | None) -> None:
    """Raises InvalidReload where it is too far ahead, NotReady where it doesn't come."""
    last = segments.media_sequence + len(segments.listed) - 1
    if msn > last + _AHEAD:
        raise InvalidReload(f"_HLS_msn={msn}: must be at most {last + _AHEAD}, the last segment is {last}")
    if part is not None and msn > last:
        there = len(segments.growing.parts) if segments.growing and msn == last + 1 else 0
        most = there - 1 + math.ceil(_AHEAD_S / min(playlist.part_target_s(sink), 1.0))
        if part > most:
            raise InvalidReload(f"_HLS_part={part}: must be at most {most}, segment {msn} has {there} parts")
    if not await _changed(segments, lambda: segments.has(msn, part)):
        raise NotReady(f"segment {msn} hasn't come")


async def _changed(segments: Segments, there: Callable[[], bool]) -> bool:
    """Waits until it is there, or nothing more will come; False where that takes too long."""
    try:
        async with asyncio.timeout(_BLOCKED_TARGETS * segments.target_duration_s):
            while not (there() or segments.ended):
                await segments.changes()
    except TimeoutError:
        return False
    return True


def _player(request: Request) -> str:
    """Whom this request counts for."""
    client = request.client.host if request.client else ""
    return f"{client} {request.headers.get('User-Agent', '')}"


async def _with_segments(
    streams: Streams, stream_id: str, request: Request, rendition: Rendition = UPSCALED
) -> Stream:
    """The stream that is watched by this, once the variant has a segment; raises StreamNotFound,
    RenditionNotFound, StreamFailed, LimitReached or NotReady."""
    stream = streams.get_to_view(stream_id)
    stream.outputs.require(rendition)
    stream.audience.saw_player(_player(request), rendition)
    segments = stream.outputs.hls.variant(rendition)
    try:
        async with asyncio.timeout(FIRST_SEGMENT_TIMEOUT_S):
            await segments.first.wait()
    except TimeoutError:
        raise NotReady(f"stream {stream_id!r} is {stream.state} and has no segment yet") from None
    if not segments.listed:
        streams.check_open()
        streams.get_to_view(stream_id)  # it may have been deleted meanwhile
        if stream.state == "failed":
            raise StreamFailed(f"stream {stream_id!r} has failed: {stream.reason}")
        stream.outputs.require(rendition)  # or be without that one
        raise NotReady(f"stream {stream_id!r} is {stream.state} and has begun anew")
    stream.figures.metrics.hls_requests.inc()
    return stream
