"""`/api/streams/ID/snapshot.jpg`: the picture that viewers see now."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from server.gateway.auth.guard import Guard
from server.gateway.errors import (
    Forbidden,
    NotReady,
    RenditionNotFound,
    StreamFailed,
    StreamNotFound,
    TooManyRequests,
    Unauthorized,
    responses,
)
from server.gateway.snapshots.snapshots import MOST_ACROSS
from server.gateway.streams.streams import Streams
from server.wire.messages import UPSCALED

JPEG = "image/jpeg"
# No key frames are further apart; older is only what nobody watches.
_MAX_AGE_S = 10.0
_STATES = ("starting", "running", "idle", "reconnecting")  # in which a picture may come


def router(streams: Streams, guard: Guard) -> APIRouter:
    routes = APIRouter(prefix="/api/streams", tags=["Streams"], responses=responses(Unauthorized, Forbidden))

    @routes.get(
        "/{stream}/snapshot.jpg",
        response_class=Response,
        responses={
            200: {"content": {JPEG: {}}, "description": "The picture; `Picture-Age` says its age in seconds"},
            304: {"description": "It is still the one of `If-None-Match`"},
            **responses(StreamNotFound, RenditionNotFound, StreamFailed, TooManyRequests, NotReady),
        },
        dependencies=[Depends(guard.needs("view"))],
    )
    async def take_snapshot(
        stream: str,
        rendition: str = UPSCALED,
        width: Annotated[int | None, Query(ge=16, le=MOST_ACROSS)] = None,
        max_age: Annotated[float, Query(ge=1)] = _MAX_AGE_S,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The last key frame as JPEG, at most so wide. Where nobody watches it may be older than `max_age`
        seconds: then the stream is woken for one picture, for which the answer waits up to five seconds, and
        if none comes it is the old one."""
        found = streams.get(stream)
        found.outputs.require(rendition)
        try:
            taken = await found.snapshots.take(
                rendition, width=width, max_age_s=max_age, awaited=lambda: found.state in _STATES
            )
        except NotReady as exc:
            if found.state == "failed":
                raise StreamFailed(f"stream {stream!r} has failed: {found.reason}") from None
            raise NotReady(f"stream {stream!r} is {found.state}: {exc}") from None
        at = datetime.now(UTC) - timedelta(seconds=taken.age_s)
        headers = {
            "Cache-Control": f"{'private' if guard.on else 'public'}, max-age=1",
            "ETag": taken.etag,
            "Last-Modified": format_datetime(at, usegmt=True),
            "Picture-Age": f"{taken.age_s:.1f}",
        }
        if if_none_match is not None and taken.etag in map(str.strip, if_none_match.split(",")):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(taken.jpeg, media_type=JPEG, headers=headers)

    return routes
