"""One publisher's connection: what it may take before it is let in, and what is believed of it after."""

import asyncio
import socket
from collections.abc import Callable

from server.gateway.limits.connections import Connections
from server.gateway.limits.refusals import Refusals
from server.gateway.publish import Admission, Dialogue, Line, Malformed, Publication
from server.gateway.publish.desk import Desk
from server.wire.clock import now_ns
from server.wire.messages import PieceKind

# Handshake, commands and a description, many times over; media comes after.
_BEFORE_PUBLISHING_BYTES = 1 << 18
# Answers are short: whoever leaves so much unread doesn't read.
_UNREAD_BYTES = 1 << 16
_LINGER_S = 2.0

# Finds the desk of a path for a client of that address: None where there is none for it, for whatever reason.
FindDesk = Callable[[bytes, str], Desk | None]


class PublisherConnection(asyncio.Protocol):
    """`speaks` makes the protocol's side. `timeout_s` is the time until it publishes."""

    def __init__(
        self,
        *,
        speaks: Callable[[Line], Dialogue],
        find_desk: FindDesk,
        connections: Connections,
        refusals: Refusals,
        timeout_s: float,
        on_open: Callable[["PublisherConnection"], None],
        on_close: Callable[["PublisherConnection"], None],
    ) -> None:
        self._speaks = speaks
        self._find_desk = find_desk
        self._connections = connections
        self._refusals = refusals
        self._timeout_s = timeout_s
        self._on_open = on_open
        self._on_close = on_close
        self._transport: asyncio.Transport
        self._dialogue: Dialogue | None = None  # None: nothing is read, any more or at all
        self._address = ""
        self._entered = False
        self._desk: Desk | None = None  # where it publishes
        self._received = 0
        self._arrival_ns = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._reason = "the publisher has gone"

    @property
    def shown(self) -> str:
        return self._address

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if peer else ""
        self._on_open(self)
        self._entered = self._connections.enter(self._address)
        if not self._entered:
            transport.abort()
            return
        self._dialogue = self._speaks(self)
        self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._dialogue is None:
            return
        self._arrival_ns = now_ns()
        self._acknowledge()
        self._received += len(data)
        try:
            if self._desk is None and self._received > _BEFORE_PUBLISHING_BYTES:
                raise Malformed("it sends too much before it publishes")
            self._dialogue.feed(data)
        except Malformed as exc:
            self._refusals.add("bad_publisher", self._address)
            self._cut(f"the publisher was cut off: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._dialogue = None
        self._stop_clock()
        self._leave()
        if self._entered:
            self._connections.leave(self._address)
        self._on_close(self)

    # Line

    def write(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > _UNREAD_BYTES:
            raise Malformed("it doesn't read what it is answered")
        self._transport.write(data)

    def knows(self, path: bytes) -> bool:
        return self._find_desk(path, self._address) is not None

    def publish(self, path: bytes, publication: Publication) -> Admission:
        desk = self._find_desk(path, self._address)
        if desk is None:
            return "denied"
        if not desk.accept(self, publication):
            return "busy"
        self._desk = desk
        self._stop_clock()
        return "accepted"

    def push(self, data: bytes, kind: PieceKind, *, picture: bool) -> None:
        assert self._desk is not None, "a dialogue pushes once it is accepted"
        self._desk.push(self, data, kind, picture=picture, arrival_ns=self._arrival_ns)

    def hang_up(self, reason: str) -> None:
        self._reason = reason
        self._dialogue = None
        self._leave()
        self._stop_clock()
        # Closed at once, with something unread, an answer might never be seen.
        self._transport.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)

    def request_key_frame(self) -> None:
        pass  # an encoder that pushes has key frames at its own times

    def abort(self) -> None:
        self._cut("the stream ends")

    def _acknowledge(self) -> None:
        """At once, which has to be asked for each time: an encoder that collects small packets (Nagle) would
        keep the end of a frame until then, 40 ms."""
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _cut(self, reason: str) -> None:
        self._reason = reason
        self._dialogue = None
        self._leave()
        self._transport.abort()

    def _leave(self) -> None:
        if self._desk is not None:
            self._desk.leave(self, self._reason)

    def _too_slow(self) -> None:
        self._refusals.add("slow_client", self._address)
        self._cut("too slow")

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
