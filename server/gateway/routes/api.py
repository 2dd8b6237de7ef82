"""`/api/streams`: create, list, show, change, delete."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from server.gateway.auth.guard import Guard
from server.gateway.auth.scopes import Caller
from server.gateway.errors import (
    Forbidden,
    HomesUnknown,
    InvalidStream,
    LimitReached,
    NotChanged,
    NotKept,
    NotMoved,
    StreamExists,
    StreamNotFound,
    StreamOfSettings,
    Unauthorized,
    UnreadableBody,
    responses,
)
from server.gateway.figures.views import StreamView
from server.gateway.streams.show import show
from server.gateway.streams.strangers import Strangers
from server.gateway.streams.streams import Streams
from server.settings import StreamChanges, StreamSettings

if TYPE_CHECKING:  # httpx is of the extra `cluster`
    from server.gateway.routes.others import Others

# Streams of a list, between which others have their turn: each may take a quarter of a millisecond.
_SHOWN_AT_ONCE = 16

Here = Annotated[bool, Query(description="Only those that are at home at the gateway that is asked")]
Beside = Annotated[
    bool,
    Query(
        description="The present worker goes on until the next has taken over; false: it ends first, for "
        "a machine without room for both"
    ),
]


class HlsPath(BaseModel):
    url: str = Field(examples=["/hls/demo/1800000000.aBcDeF/index.m3u8"])
    expires: datetime | None = Field(description="Null where everyone may play")


class StreamChanged(BaseModel):
    stream: StreamView
    restarted: list[Literal["worker"]] = Field(description="Empty where it all changes as it runs")
    lossless: bool = Field(
        description="No frame was lost by it, none shown twice. False where another worker starts once the "
        "present one has ended: with `beside=false`, for another source, where nobody watches, or only one "
        "worker can have the source"
    )


class StreamMoved(BaseModel):
    stream: StreamView
    lossless: bool = Field(
        description="The other worker took over at a key frame: no frame lost, none shown twice. False where "
        "nobody watches, or only one worker can have the source: it starts once the present one has ended"
    )


def router(streams: Streams, strangers: Strangers, guard: Guard, others: "Others | None" = None) -> APIRouter:
    """`others`: the gateways of the cluster that have streams, too."""
    routes = APIRouter(prefix="/api/streams", tags=["Streams"], responses=responses(Unauthorized, Forbidden))
    Known = Annotated[Caller, Depends(guard.known)]
    needs_view, needs_publish = Depends(guard.needs("view")), Depends(guard.needs("publish"))

    @routes.get("")
    async def list_streams(request: Request, caller: Known, here: Here = False) -> list[StreamView]:
        """Every stream that the caller may view, as it is now, of all gateways of a cluster."""
        views = []
        for number, stream in enumerate(streams.all(), 1):
            if caller.may("view", stream.id):
                views.append(show(stream))
            if number % _SHOWN_AT_ONCE == 0:
                await asyncio.sleep(0)
        if others is None or here:
            return views
        token, own = request.headers.get("Authorization"), {view.id for view in views}
        beside = await others.streams(caller, token, streams.settings.defaults)
        return [*views, *(view for view in beside if view.id not in own)]

    @routes.post(
        "",
        status_code=HTTPStatus.CREATED,
        responses=responses(UnreadableBody, StreamExists, InvalidStream, LimitReached, HomesUnknown, NotKept),
    )
    async def create_stream(wanted: StreamSettings, response: Response, caller: Known) -> StreamView:
        """Starts a stream; fields that are left out take the operator's defaults. It survives a restart of
        the service where that has a file for it (`server.state`)."""
        caller.require("publish", wanted.id)
        try:
            stream = await strangers.create(wanted.model_dump(mode="json", exclude_unset=True))
        except ValidationError as exc:
            raise RequestValidationError(exc.errors()) from exc
        response.headers["Location"] = f"/api/streams/{stream.id}"
        return show(stream)

    @routes.get("/{stream}", responses=responses(StreamNotFound), dependencies=[needs_view])
    async def show_stream(stream: str) -> StreamView:
        """One stream, with the quantiles of its last 512 frames."""
        return show(streams.get(stream))

    @routes.patch(
        "/{stream}",
        responses=responses(
            *(UnreadableBody, StreamNotFound, StreamOfSettings, InvalidStream, LimitReached, NotKept),
            *(NotChanged, HomesUnknown),
        ),
        dependencies=[needs_publish],
    )
    async def change_stream(stream: str, wanted: StreamChanges, beside: Beside = True) -> StreamChanged:
        """Changes a running stream, and says what restarted; fields that are left out stay as they are. What
        takes another worker is answered once that has its engine and has taken over at a key frame, under
        the same viewers; where it can't, nothing has changed (409). A later change takes in one that is on
        its way: both have the later one's answer. A stream that has failed starts anew; one of the settings
        file is changed there."""
        try:
            changed, came_to = await strangers.change(
                stream, wanted.model_dump(mode="json", exclude_unset=True), beside=beside
            )
        except ValidationError as exc:
            raise RequestValidationError(exc.errors()) from exc
        return StreamChanged(
            stream=show(changed),
            restarted=["worker"] if came_to.new_worker else [],
            lossless=came_to.lossless,
        )

    @routes.post("/{stream}/hls-path", responses=responses(StreamNotFound), dependencies=[needs_view])
    async def sign_hls_path(stream: str) -> HlsPath:
        """A playlist's path for a player, which sends no token: it lets in whoever has it, for a time."""
        found = streams.get(stream)
        signed = guard.sign_path(found.id)
        if signed is None:
            return HlsPath(url=f"/hls/{found.id}/index.m3u8", expires=None)
        signature, expires_s = signed
        expires = datetime.fromtimestamp(expires_s, UTC)
        return HlsPath(url=f"/hls/{found.id}/{signature}/index.m3u8", expires=expires)

    @routes.post("/{stream}/release", responses=responses(StreamNotFound), dependencies=[needs_publish])
    async def release_stream(stream: str) -> StreamView:
        """Ends a stream's quarantine: its workers may die again as if none had."""
        found = streams.get(stream)
        found.release()
        return show(found)

    @routes.post(
        "/{stream}/move", responses=responses(StreamNotFound, NotMoved), dependencies=[needs_publish]
    )
    async def move_stream(stream: str) -> StreamMoved:
        """Has another worker take over, under the same viewers, and answers once it has. Where the machine is
        drained it is on another."""
        found = streams.get(stream)
        lossless = await found.move()
        return StreamMoved(stream=show(found), lossless=lossless)

    @routes.delete(
        "/{stream}",
        status_code=HTTPStatus.NO_CONTENT,
        responses=responses(StreamNotFound, NotKept),
        dependencies=[needs_publish],
    )
    async def delete_stream(stream: str) -> None:
        """Ends a stream, its worker and its viewers."""
        await strangers.delete(stream)

    return routes
