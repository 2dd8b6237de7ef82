"""Connections: how many one address may hold, and how long a client may take to send or to read.

uvicorn by itself waits without end for the rest of a request, and for a client that doesn't read its answer.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.gateway.limits.rates import origin
from server.gateway.limits.refusals import Refusal, Refusals
from server.settings import Limits

# In one request. h11 takes 10 µs for each chunk of a body, however small: 200 kB in chunks of a byte would
# hold up everybody for half a second. An SDP offer of 64 KiB has 2,000 lines.
MAX_LINES = 8192


class Connections:
    """Those that are open now, by address. A proxy's are its clients' and only count as a whole, and so do
    those of another gateway of the cluster."""

    def __init__(
        self,
        limits: Limits,
        refusals: Refusals,
        *,
        proxies: tuple[str, ...],
        gateways: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`gateways`: the addresses of the others, as they are by then."""
        self.client_timeout_s = limits.client_timeout_s
        self.refusals = refusals
        self._limits = limits
        self._proxies = frozenset(map(origin, proxies))
        self._gateways = gateways
        self._open: Counter[str] = Counter()

    def enter(self, client: str) -> bool:
        """Whether there is room for one more of this address."""
        who = origin(client)
        full = self._open[who] >= self._limits.max_connections_per_address
        if (full and not self._is_many(who)) or self._open.total() >= self._limits.max_connections:
            self.refusals.add("connections", client)
            return False
        self._open[who] += 1
        return True

    def _is_many(self, who: str) -> bool:
        return who in self._proxies or who in map(origin, self._gateways())

    def leave(self, client: str) -> None:
        who = origin(client)
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]


def guarded(connections: Connections) -> type[asyncio.Protocol]:
    """The class of uvicorn's connections with these limits."""

    class Guarded(_GuardedProtocol):
        gate = connections

    return Guarded


class _GuardedProtocol(H11Protocol):
    gate: ClassVar[Connections]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entered = False
        self._lines = 0  # since the last answer
        self._sending: asyncio.TimerHandle | None = None  # the client, its request
        self._reading: asyncio.TimerHandle | None = None  # the client, our answer

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._entered = self.gate.enter(self._address)
        if self._entered:
            self._watch_request()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_came()
        self._answer_taken()
        if self._entered:
            self.gate.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._entered:
            return
        self._lines += data.count(b"\n")
        if self._lines > MAX_LINES:
            self._cut_off("lines")
            return
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._lines = 0
        self._watch_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer_taken()

    def _watch_request(self) -> None:
        """A request that has begun has to end in time, and so has the silence before the first."""
        state = self.conn.their_state
        begun = self.cycle is None or self.conn.trailing_data[0] != b""
        if state is h11.SEND_BODY or (state is h11.IDLE and begun):
            if self._sending is None:
                self._sending = self.loop.call_later(self.gate.client_timeout_s, self._too_slow)
        else:
            self._request_came()

    def _request_came(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _watch_answer(self) -> None:
        """Some of an answer has to be taken within each span of time, however slow the link is."""
        waiting = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() >= waiting:
                self._too_slow()
            else:
                self._watch_answer()

        self._reading = self.loop.call_later(self.gate.client_timeout_s, check)

    def _answer_taken(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _too_slow(self) -> None:
        self._cut_off("slow_client")

    def _cut_off(self, reason: Refusal) -> None:
        self.gate.refusals.add(reason, self._address)
        self.transport.abort()
