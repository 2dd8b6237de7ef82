"""What a visitor's browser is kept from: other sites that reach for this one through it."""

from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.gateway.errors import UnknownHost, answer
from server.gateway.limits.refusals import Refusals
from server.settings import Server

_PLAYING = ("/whep/", "/hls/")
_HEADERS = {
    # The page has no line of script or style in itself, and asks no other host. hls.js plays from blobs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a signed path lets in whoever reads it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # a video element of another site asks for no CORS
    "Cache-Control": "no-store",  # where an answer says nothing else
}


class SafeHeaders:
    """Around the whole application, so that errors have them too."""

    def __init__(self, app: ASGIApp, *, server: Server) -> None:
        self._app = app
        self._others_play = bool(server.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self._others_play and scope["path"].startswith(_PLAYING):
                    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            await send(message)

        await self._app(scope, receive, with_headers)


class KnownHosts:
    """Ends DNS rebinding: a site whose name has come to mean this machine still sends its own name.

    Addresses are always known, since there is no name in them that could change its meaning.
    """

    def __init__(self, app: ASGIApp, *, server: Server, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals
        self._names = {name.lower() for name in ("localhost", server.host, *server.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("Host", "") if scope["type"] == "http" else ""
        if host and not self._knows(host):
            self._refusals.add("host", scope["client"][0] if scope["client"] else "")
            error = UnknownHost(f"Host {host!r} is no name of this service; server.hosts has those that are")
            await answer(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, host: str) -> bool:
        if host.startswith("["):
            name = host[1:].partition("]")[0]
        else:
            name = host.partition(":")[0].rstrip(".").lower()
        if name in self._names or "*" in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


class PlayerCors:
    """Lets pages of other origins play: WHEP and HLS, but not the API, which starts and ends streams."""

    def __init__(self, app: ASGIApp, *, server: Server) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=server.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=["Location", "ETag", "Link", "Accept-Patch", "Retry-After"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        playing = scope["type"] == "http" and scope["path"].startswith(_PLAYING)
        await (self._open if playing else self._app)(scope, receive, send)
