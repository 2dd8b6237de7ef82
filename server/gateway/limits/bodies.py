"""Middleware before all routes: the size of request bodies, whether or not a route reads them."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.gateway.errors import BodyTooLarge, answer

_DISCARDED_BYTES = 1 << 20  # a longer one is refused at once


class BodyLimit:
    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        try:
            if b"transfer-encoding" in headers:
                receive = await self._whole(receive)
            elif (length := int(headers.get(b"content-length", b"0"))) > self._max_bytes:
                await _discard(receive, length)
                raise BodyTooLarge(f"the body has {length} bytes; limits.max_body_bytes={self._max_bytes}")
        except BodyTooLarge as exc:
            await answer(exc)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _whole(self, receive: Receive) -> Receive:
        """A body whose length is not known before, read to its end; raises BodyTooLarge."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise BodyTooLarge(f"the body is longer than limits.max_body_bytes={self._max_bytes}")
            if not message.get("more_body", False):
                break
        first: list[Message] = [{**message, "body": bytes(body)}]

        async def again() -> Message:
            return first.pop() if first else await receive()

        return again


async def _discard(receive: Receive, length: int) -> None:
    """Lets a body of `length` bytes come to its end before it is refused. A proxy whose client still sends
    when the answer comes may end both with an error instead of passing it on, as Caddy may by HTTP/2.
    """
    if length > _DISCARDED_BYTES:
        return
    while (await receive()).get("more_body", False):
        pass
