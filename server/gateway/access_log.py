"""An event for each HTTP request, where the settings want it."""

import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.wire.logs import ACCESS, get_logger

log = get_logger(__name__)

# What lets in whoever has it: an HLS path's signature, the session of a WebRTC client.
_SECRET = re.compile(r"^(/hls/[^/]+/)[^/]+(?=/)|^(/(?:whep|whip)/[^/]+/|/api/streams/[^/]+/viewers/)[^/]+")


class AccessLog:
    """Neither queries nor secrets in paths are logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began_s = 0, time.monotonic()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])  # an HTTPStatus would be logged as one
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            log.info(
                ACCESS,
                client=scope["client"][0] if scope["client"] else "",
                method=scope["method"],
                path=_shown(scope["path"]),
                status=status,
                took_s=round(time.monotonic() - began_s, 4),
            )


def _shown(path: str) -> str:
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", path)
