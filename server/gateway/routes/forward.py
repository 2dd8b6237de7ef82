"""Requests that another gateway of the cluster answers: passed on to it over HTTP, in the caller's name."""

import asyncio
import hmac
import ssl

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from server.gateway.errors import HomeUnreachable
from server.gateway.streams.fleet import Fleet
from server.wire.logs import get_logger

log = get_logger(__name__)

_CONNECT_S = 1.0
# Reading again (RFC 8216bis) and a snapshot wait for seconds, a stream that moves may for minutes.
_READ_S, _CHANGE_S = 60.0, 600.0
# The other end closes a connection that is idle for five seconds: a request on its way then would be lost.
IDLE_S = 2.0
_MARK = b"livesr-forwarded"
# What is between two programs only (RFC 9110, 7.6.1), or made anew for the next two.
_HOP = {
    b"connection",
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"proxy-connection",
}
_NOT_ASKED = _HOP | {b"host", b"content-length", b"expect", b"origin", _MARK}
_NOT_ANSWERED = _HOP | {b"date", b"server"}


class Forward:
    """What is passed on says for whom, and proves by the gateways' secret that one of them did: so the next
    counts it for its client, and never passes it on again."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._http = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            # No most of them: requests that wait at one home must not hold up the rest, and each is of a
            # client's connection here, which are counted.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_S),
        )

    async def close(self) -> None:
        await self._http.aclose()

    def client(self, scope: Scope) -> str | None:
        """Of whom another gateway passed the request on; None where none did."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        for name, value in headers:
            if name == _MARK:
                address, _, proof = value.decode("latin-1").partition(" ")
                if hmac.compare_digest(proof.encode(), self._proof(address).encode()):
                    return address
        return None

    async def __call__(self, url: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Has the gateway at that URL answer. Raises HomeUnreachable."""
        request = Request(scope, receive)
        headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_ASKED]
        if "accept-encoding" not in request.headers:
            headers.append((b"accept-encoding", b"identity"))  # or httpx would ask for more
        address = scope["client"][0] if scope["client"] else ""
        headers.append((_MARK, f"{address} {self._proof(address)}".encode()))
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        target = scope["raw_path"].partition(b"?")[0] + query
        reads = scope["method"] in ("GET", "HEAD")
        asked = self._http.build_request(
            scope["method"],
            url,
            headers=headers,
            content=await request.body() or None,
            timeout=httpx.Timeout(_READ_S if reads else _CHANGE_S, connect=_CONNECT_S, pool=_CONNECT_S),
            # As it was authorised here: httpx would resolve its dots, and take a # for a fragment.
            extensions={"target": target},
        )
        if not reads:  # what was asked for is done, even if nobody hears of it
            await self._exchange(asked, url, send)
            return
        exchange = asyncio.create_task(self._exchange(asked, url, send))
        left = asyncio.create_task(_leaves(receive))
        try:
            await asyncio.wait([exchange, left], return_when=asyncio.FIRST_COMPLETED)
        finally:
            exchange.cancel()
            left.cancel()
            await asyncio.wait([exchange, left])
        if not exchange.cancelled():
            exchange.result()

    async def _exchange(self, asked: httpx.Request, url: str, send: Send) -> None:
        """Raises HomeUnreachable."""
        try:
            answer = await self._http.send(asked, stream=True)
        except httpx.HTTPError as exc:
            why = str(exc) or type(exc).__name__
            log.warning("gateway not reached", gateway=url, reason=why)
            raise HomeUnreachable(f"the gateway {url} can't be reached: {why}") from exc
        try:
            kept = [(name.lower(), value) for name, value in answer.headers.raw]
            kept = [(name, value) for name, value in kept if name not in _NOT_ANSWERED]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            async for data in answer.aiter_raw():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except httpx.HTTPError as exc:  # the client sees that it is cut short
            log.warning("gateway not reached", gateway=url, reason=str(exc) or type(exc).__name__)
            return
        finally:
            await answer.aclose()
        await send({"type": "http.response.body", "body": b""})

    def _proof(self, address: str) -> str:
        return hmac.digest(self._fleet.key("forwarded"), address.encode(), "sha256").hex()


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
