"""HLS over HTTP: playlists and segments of each stream, from memory."""

import asyncio

from fastapi import APIRouter, Depends, Request, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    Forbidden,
    InvalidPath,
    LimitReached,
    NotReady,
    SegmentNotFound,
    StreamFailed,
    StreamNotFound,
    Unauthorized,
    responses,
)
from server.gateway.hls import playlist
from server.gateway.streams.stream import Stream
from server.gateway.streams.streams import Streams

PLAYLIST = "application/vnd.apple.mpegurl"
MP4 = "video/mp4"
# A player that comes before the first segment waits rather than fails, up to about two of them.
FIRST_SEGMENT_TIMEOUT_S = 5.0


def router(streams: Streams, guard: Guard) -> APIRouter:
    """The files at two paths: for a token in the headers, and for a signature in the path."""
    routes = APIRouter(tags=["HLS"])
    files = _files(streams, guard)
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


def _files(streams: Streams, guard: Guard) -> APIRouter:
    routes = APIRouter()
    described = responses(StreamNotFound, StreamFailed, LimitReached, NotReady)

    @routes.head("/index.m3u8", include_in_schema=False)
    @routes.get(
        "/index.m3u8",
        response_class=Response,
        responses={200: {"content": {PLAYLIST: {}}}, **described},
    )
    async def multivariant_playlist(stream: str, request: Request) -> Response:
        """The multivariant playlist, with which a player starts."""
        streams.check_open()
        found = await _with_segments(streams, stream, request)
        return _playlist(playlist.multivariant(found.outputs.hls), guard)

    @routes.head(f"/{playlist.MEDIA_PLAYLIST}", include_in_schema=False)
    @routes.get(
        f"/{playlist.MEDIA_PLAYLIST}",
        response_class=Response,
        responses={200: {"content": {PLAYLIST: {}}}, **described},
    )
    async def media_playlist(stream: str, request: Request) -> Response:
        """The segments of the last seconds."""
        found = await _with_segments(streams, stream, request)
        if found.outputs.hls.ended:
            found.figures.hls_players.told_end(_player(request))
        return _playlist(playlist.media(found.outputs.hls), guard)

    @routes.head("/{segment}", include_in_schema=False)
    @routes.get(
        "/{segment}",
        response_class=Response,
        responses={200: {"content": {MP4: {}}}, **responses(SegmentNotFound, StreamNotFound)},
    )
    async def media_segment(stream: str, segment: str, request: Request) -> Response:
        """A segment, or the init segment before it."""
        found = streams.get(stream)
        data = found.outputs.hls.find(segment)
        if data is None:
            raise SegmentNotFound(f"stream {stream!r} has no segment {segment!r}, or has it no more")
        found.figures.metrics.hls_requests.inc()
        found.figures.hls_players.fetched(_player(request), segment)
        # The name is never given to other bytes.
        cached = f"{'private' if guard.on else 'public'}, max-age=3600, immutable"
        return Response(data, media_type=MP4, headers={"Cache-Control": cached})

    return routes


def _player(request: Request) -> str:
    """Whom this request counts for."""
    client = request.client.host if request.client else ""
    return f"{client} {request.headers.get('User-Agent', '')}"


async def _with_segments(streams: Streams, stream_id: str, request: Request) -> Stream:
    """The stream that is watched by this, once it has a segment; raises StreamNotFound, StreamFailed,
    LimitReached or NotReady."""
    stream = streams.get(stream_id)
    stream.audience.saw_player(_player(request))
    segments = stream.outputs.hls
    try:
        async with asyncio.timeout(FIRST_SEGMENT_TIMEOUT_S):
            await segments.first.wait()
    except TimeoutError:
        raise NotReady(f"stream {stream_id!r} is {stream.state} and has no segment yet") from None
    if not segments.listed:
        streams.check_open()
        streams.get(stream_id)  # it may have been deleted meanwhile
        raise StreamFailed(f"stream {stream_id!r} has failed: {stream.reason}")
    stream.figures.metrics.hls_requests.inc()
    return stream


def _playlist(text: str, guard: Guard) -> Response:
    cached = "private, no-cache" if guard.on else "no-cache"
    return Response(text, media_type=PLAYLIST, headers={"Cache-Control": cached})
