"""`/api/events`: what happens to streams, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.gateway.auth.guard import Guard
from server.gateway.auth.scopes import Caller
from server.gateway.errors import AddressLimitReached, Forbidden, LimitReached, Unauthorized, responses
from server.gateway.events import Events, Listener, ListenerEnded, event_text
from server.gateway.streams.streams import Streams

EVENTS = "text/event-stream"
HEARTBEAT_S = 15.0
# A token may have expired meanwhile: who listens for longer comes again, as EventSource does by itself.
LONGEST_S = 600.0


def router(streams: Streams, events: Events, guard: Guard) -> APIRouter:
    routes = APIRouter(tags=["Streams"], responses=responses(Unauthorized, Forbidden))

    @routes.get(
        "/api/events",
        response_class=Response,
        responses={
            200: {"content": {EVENTS: {"schema": {"type": "string"}}}, "description": "As long as it lasts"},
            **responses(LimitReached, AddressLimitReached),
        },
    )
    async def listen(request: Request, caller: Annotated[Caller, Depends(guard.known)]) -> Response:
        """Tells of the streams that the caller may view: first the `state` of each, then, as they happen,
        `created`, `changed` (`restarted`), `deleted`, `state` (`state`, `reason`), `step` (`level`, `reason`)
        and `restart` of a worker (`reason`). The data of each is a JSON object with `stream` and `at`. Who
        reads too slowly is cut off, and who has listened for ten minutes: who asks again is told every state
        anew."""
        streams.check_open()
        client = request.client.host if request.client else ""
        listener = events.join(client, lambda stream: caller.may("view", stream))
        # As they are while it joins: all that changes from here on waits for it behind them.
        states = [
            event_text("state", stream.id, state=stream.state, reason=stream.reason)
            for stream in streams.all()
            if listener.may_view(stream.id)
        ]
        return _Told(events, listener, states)

    return routes


class _Told(StreamingResponse):
    """Leaves at its end, even where the client was gone before its first event."""

    def __init__(self, events: Events, listener: Listener, states: Sequence[bytes]) -> None:
        super().__init__(_texts(listener, states), media_type=EVENTS, headers={"X-Accel-Buffering": "no"})
        self._events = events
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._events.leave(self._listener)


async def _texts(listener: Listener, states: Sequence[bytes]) -> AsyncIterator[bytes]:
    if states:
        yield b"".join(states)
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + LONGEST_S
    while loop.time() < ends_s:
        try:
            text = await asyncio.wait_for(listener.next(), HEARTBEAT_S)
        except TimeoutError:
            text = b": still here\n\n"
        except ListenerEnded:
            return
        yield text
