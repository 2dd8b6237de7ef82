"""Where other machines of the cluster come to: TLS, a secret, the same version."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from server.wire.codec import ProtocolError, encode
from server.wire.hello import (
    HELLO_BYTES,
    DoorAddress,
    Hello,
    Refused,
    Welcome,
    decoder,
    wire_version,
)
from server.wire.logs import get_logger
from server.wire.messages import Message
from server.wire.tls import host_context

log = get_logger(__name__)

READ_BYTES = 1 << 20
_HELLO_S = 5.0  # to say it, and for TLS before
_MOST_STRANGERS = 64  # connections that have yet to


class UnknownVisitor(Exception):
    """Nobody admitted it, or it is another livesr."""


class Visitor:
    """Whoever has come: what it says, one message after the other, and what is said to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.decoder = decoder()
        self._reader = reader
        self._waiting: list[Message] = []

    async def next(self) -> Message | None:
        """None at the end. Raises ProtocolError, OSError."""
        while not self._waiting:
            data = await self._reader.read(READ_BYTES)
            if not data:
                return None
            self._waiting += self.decoder.feed(data)
        return self._waiting.pop(0)

    def say(self, message: Message) -> None:
        if not self.writer.is_closing():
            self.writer.write(encode(message))


class Door:
    """Made and used on one event loop."""

    def __init__(
        self,
        *,
        admit: Callable[[Hello], None],
        serve: Callable[[Visitor, str], Awaitable[None]],
        here: str,
    ) -> None:
        """`admit` raises UnknownVisitor; `serve` has the visitor from then on, and the stream that it came
        for, until it is cancelled. `here` is what is behind the door, for the log and for visitors."""
        self._admit = admit
        self._serve = serve
        self._here = here
        self._strangers = 0
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext
        self._fingerprint = ""
        self._visits: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int = 0) -> None:
        """Listens there. Raises OSError."""
        self._context, self._fingerprint = host_context()
        self._server = await asyncio.start_server(self._come, host, port, limit=READ_BYTES)

    @property
    def address(self) -> DoorAddress:
        """Once it is open."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return DoorAddress(host=host, port=port, fingerprint=self._fingerprint)

    async def close(self) -> None:
        """Ends every visit."""
        if self._server is not None:
            self._server.close()
        for visit in self._visits:
            visit.cancel()
        if self._visits:
            await asyncio.wait(self._visits)

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._strangers >= _MOST_STRANGERS:
            writer.transport.abort()
            return
        self._strangers += 1
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()  # the first byte is TLS's
        visit = asyncio.create_task(self._receive(Visitor(reader, writer)))
        self._visits.add(visit)
        # Not by the visit itself: a door that closes at this moment cancels it before its first step.
        visit.add_done_callback(lambda _: writer.close())
        visit.add_done_callback(self._visits.discard)

    async def _receive(self, visitor: Visitor) -> None:
        try:
            stream = await self._let_in(visitor)
            await self._serve(visitor, stream)
        except (UnknownVisitor, TimeoutError, OSError, ProtocolError) as exc:
            peer = visitor.writer.get_extra_info("peername")
            reason = str(exc) or f"no Hello within {_HELLO_S:g} s"
            log.warning("gateway refused", client=peer[0] if peer else "", reason=reason)
            with contextlib.suppress(OSError):
                visitor.say(Refused(reason=reason))
                await visitor.writer.drain()

    async def _let_in(self, visitor: Visitor) -> str:
        """The stream that it comes for. Raises UnknownVisitor, TimeoutError, OSError, ProtocolError."""
        visitor.decoder.most_bytes, usual = HELLO_BYTES, visitor.decoder.most_bytes
        try:
            async with asyncio.timeout(_HELLO_S):
                await visitor.writer.start_tls(self._context)
                hello = await visitor.next()
        finally:
            self._strangers -= 1
            visitor.decoder.most_bytes = usual
        if not isinstance(hello, Hello):
            raise UnknownVisitor("a gateway begins with Hello")
        if hello.version != wire_version():
            raise UnknownVisitor(f"{self._here} speaks {wire_version()}, the gateway {hello.version}")
        self._admit(hello)
        visitor.say(Welcome())
        return hello.stream
