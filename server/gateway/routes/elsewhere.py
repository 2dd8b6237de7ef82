"""Requests about a stream that is at home at another gateway of the cluster: its clients are sent there."""

import re

from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from server.gateway.auth.guard import Guard
from server.gateway.errors import GatewayError, answer
from server.gateway.streams.fleet import Fleet

_OF_A_STREAM = re.compile(r"/(?:api/streams|whep|whip|hls)/(?P<stream>[^/]+)(?:/.*)?")
_SIGNED = re.compile(r"/hls/[^/]+/[^/]+/.+")  # by its home, which alone can tell whether it holds

_bearer = HTTPBearer(auto_error=False)


class AtHomeElsewhere:
    """Middleware. Who may neither view nor publish a stream isn't told where it is."""

    def __init__(self, app: ASGIApp, *, fleet: Fleet, guard: Guard) -> None:
        self._app = app
        self._fleet = fleet
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _OF_A_STREAM.fullmatch(scope["path"]) if scope["type"] == "http" else None
        url = await self._fleet.find(found["stream"]) if found else None
        if found is None or url is None:
            await self._app(scope, receive, send)
            return
        try:
            known = await self._may_know(found["stream"], Request(scope))
        except GatewayError as exc:
            await answer(exc)(scope, receive, send)
            return
        if not known:
            await self._app(scope, receive, send)
            return
        query = "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
        path = scope["raw_path"].decode("latin-1").partition("?")[0]
        await RedirectResponse(f"{url}{path}{query}")(scope, receive, send)

    async def _may_know(self, stream: str, request: Request) -> bool:
        if _SIGNED.fullmatch(request.url.path):
            return True
        caller = await self._guard.caller(request, await _bearer(request))
        return caller.may("view", stream) or caller.may("publish", stream)
