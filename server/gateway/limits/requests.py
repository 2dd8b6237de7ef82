"""Middleware before all routes: the size of headers, and the rate of HLS requests."""

import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from server.gateway.errors import GatewayError, HeadersTooLarge, TooManyRequests, answer
from server.gateway.limits.rates import Rates, origin
from server.gateway.limits.refusals import Refusals
from server.settings import Limits

HLS_BURST_S = 2.0  # players start with several requests at once


class RequestLimits:
    def __init__(self, app: ASGIApp, *, limits: Limits, refusals: Refusals) -> None:
        self._app = app
        self._limits = limits
        self._refusals = refusals
        self._hls = Rates(limits.hls_requests_per_s, limits.hls_requests_per_s * HLS_BURST_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refused(scope) if scope["type"] == "http" else None
        await (self._app if error is None else answer(error))(scope, receive, send)

    def _refused(self, scope: Scope) -> GatewayError | None:
        client = scope["client"][0] if scope["client"] else ""
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["raw_path"])
        size += len(scope["query_string"])
        if size > self._limits.max_header_bytes:
            self._refusals.add("headers", client)
            return HeadersTooLarge(
                f"the headers have {size} bytes; limits.max_header_bytes={self._limits.max_header_bytes}"
            )
        if scope["path"].startswith("/hls/"):
            who, now_s = origin(client), time.monotonic()
            if wait_s := self._hls.wait_s(who, now_s):
                self._refusals.add("hls_rate", client)
                return TooManyRequests(
                    f"too many HLS requests; limits.hls_requests_per_s={self._limits.hls_requests_per_s:g}",
                    retry_after_s=math.ceil(wait_s),
                )
            self._hls.take(who, now_s)
        return None
