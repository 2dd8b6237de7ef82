"""Several gateways behind one name: whichever is asked answers for a stream that is at home at another."""

import re

from fastapi import FastAPI
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.gateway.auth.guard import Guard
from server.gateway.errors import GatewayError, HomesUnknown, answer
from server.gateway.routes.forward import Forward
from server.gateway.streams.fleet import Fleet
from server.gateway.streams.relays import Relays
from server.gateway.streams.streams import Streams
from server.gateway.streams.subscriptions import Subscriptions

_OF_A_STREAM = re.compile(r"/(?P<what>api/streams|whep|whip|hls)/(?P<stream>[^/]+)(?P<rest>/.*)?")
# What a gateway has of a viewer is at that gateway, whoever is asked: its WebRTC session, its HLS playlists.
_SESSION = re.compile(r"(?P<before>/(?:viewers/)?)(?P<gateway>[0-9a-f]{16})\.(?P<after>[^/]+)")
_PLAYER = re.compile(r"(?P<before>(?:/[^/~]+)?/)~(?P<gateway>[0-9a-f]{16})/(?P<after>[^/]+)")
_RECORDED = re.compile(r"(?:/[^/]+)?/(?:dvr\.m3u8|recorded/.+)")

_bearer = HTTPBearer(auto_error=False)


class Relaying:
    """All that makes this gateway one with the others: made, opened and closed with the application."""

    def __init__(self, fleet: Fleet, streams: Streams) -> None:
        self.session_prefix = f"{fleet.id}."  # what a viewer's session here is called by, before its id
        self.player_folder = f"~{fleet.id}/"  # where a player that has begun here goes on
        self._fleet = fleet
        self._forward = Forward(fleet)
        self._subscriptions = Subscriptions(streams, fleet)
        self._relays = Relays(streams, fleet)

    def install(self, app: FastAPI, guard: Guard) -> None:
        """In front of the routes, behind all other middleware."""
        app.add_middleware(
            AtHomeAnywhere, fleet=self._fleet, guard=guard, relays=self._relays, forward=self._forward
        )

    def first(self, app: ASGIApp) -> ASGIApp:
        """In front of all other middleware, and of the access log."""
        return Forwarded(app, forward=self._forward)

    async def open(self) -> None:
        """Before the others know of this gateway. Raises OSError."""
        await self._subscriptions.open()
        self._relays.start()

    async def close(self) -> None:
        """After the streams."""
        await self._relays.close()
        await self._subscriptions.close()
        await self._forward.close()


class Forwarded:
    """Middleware, before all that counts by clients: a request that another gateway has passed on is its
    client's."""

    def __init__(self, app: ASGIApp, *, forward: Forward) -> None:
        self._app = app
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._forward.client(scope) if scope["type"] == "http" else None
        if client is not None:
            scope = {**scope, "client": (client, 0), "livesr.forwarded": True}
        await self._app(scope, receive, send)


class AtHomeAnywhere:
    """Middleware. Packets for viewers come from the stream's home once, and are fanned out here; for all else
    about the stream its home is asked, if the caller may know of it."""

    def __init__(self, app: ASGIApp, *, fleet: Fleet, guard: Guard, relays: Relays, forward: Forward) -> None:
        self._app = app
        self._fleet = fleet
        self._guard = guard
        self._relays = relays
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _OF_A_STREAM.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        what, stream, rest = found["what"], found["stream"], found["rest"] or ""
        holder, rest = _held(what, rest)
        try:
            url = await self._elsewhere(what, stream, rest, holder, Request(scope))
            if url is not None:
                await self._forward(url, scope, receive, send)
                return
        except GatewayError as exc:
            await answer(exc)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        await self._app({**scope, "path": f"/{what}/{stream}{rest}"}, receive, send)

    async def _elsewhere(
        self, what: str, stream: str, rest: str, holder: str | None, request: Request
    ) -> str | None:
        """The base URL of the gateway that is to answer; None where this one does, which has the stream for
        viewers by then."""
        home, forwarded = await self._fleet.find(stream), "livesr.forwarded" in request.scope
        # One that was passed on isn't again: the gateway that it names may have been here before a restart.
        held_by = None if forwarded or holder in (None, self._fleet.id) else self._fleet.url_of(holder)
        if home is None and held_by is None:
            return None
        if not await self._may_know(what, stream, rest, request):
            return None
        if held_by is not None:
            return held_by
        if what in ("whep", "api/streams") and holder is not None:  # its session is here, or lost
            return None
        recorded = _RECORDED.fullmatch(rest) or "from" in request.query_params
        if (what == "hls" and not recorded) or (what == "whep" and not rest):
            await self._relays.ensure(stream)
            return None
        if what == "whep":
            return None
        if forwarded:
            raise HomesUnknown(f"stream {stream!r} is on its way from one home to another")
        return home

    async def _may_know(self, what: str, stream: str, rest: str, request: Request) -> bool:
        """Whether the caller may view it, or may publish it and asks for more than viewers get. Raises
        GatewayError for one who isn't who it says."""
        parts = rest.split("/")[1:]
        if what == "hls" and len(parts) > 1 and parts[0] != "recorded":
            await self._guard.signed(stream, parts[0])
            return True
        caller = await self._guard.caller(request, await _bearer(request))
        publishes = what in ("whip", "api/streams") and caller.may("publish", stream)
        return publishes or caller.may("view", stream)


def _held(what: str, rest: str) -> tuple[str | None, str]:
    """Which gateway has what is asked for, where the path says so, and the path as that one knows it."""
    held = None
    if what == "hls":
        held = _PLAYER.fullmatch(rest)
    elif what != "whip":
        held = _SESSION.fullmatch(rest)
    return (None, rest) if held is None else (held["gateway"], held["before"] + held["after"])
