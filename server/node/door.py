"""Where gateways come to a host: TLS, a secret for each stream, the same version."""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from server.gateway.placement import Placement
from server.gateway.placement.cpu import IdleCores
from server.gateway.placement.process import READ_BYTES
from server.node.files import FileCache
from server.node.session import Session
from server.wire.codec import ProtocolError
from server.wire.hello import (
    HELLO_BYTES,
    SECRET_BYTES,
    Hello,
    Refused,
    Ticket,
    Welcome,
    decoder,
    wire_version,
)
from server.wire.logs import get_logger
from server.wire.tls import host_context

log = get_logger(__name__)

_ADMITTED_S = 30.0  # to come with its secret
_HELLO_S = 5.0  # to say it
_MOST_STRANGERS = 64  # connections that have yet to


class UnknownVisitor(Exception):
    """Nobody admitted it, or it is another livesr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    stream: str
    digest: bytes  # of the secret
    until_s: float


class _Machine:
    """Cores that were idle in the last whole second, for all sessions."""

    def __init__(self) -> None:
        self._idle_cores = IdleCores()
        self._latest, self._at_s = 0.0, time.monotonic()

    def __call__(self) -> float:
        now_s = time.monotonic()
        if now_s - self._at_s >= 1.0:
            self._latest, self._at_s = self._idle_cores(), now_s
        return self._latest


class Door:
    """Made and used on one event loop. Workers are the placement's."""

    def __init__(self, placement: Placement, *, node: str, files: FileCache | None = None) -> None:
        self._placement = placement
        self._node = node
        self._files = files or FileCache()
        self._admitted: list[_Admitted] = []
        self._strangers = 0
        self._machine = _Machine()
        self._server: asyncio.Server | None = None
        self._fingerprint = ""
        self._sessions: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int = 0) -> None:
        """Listens there. Raises OSError."""
        context, self._fingerprint = host_context()
        self._server = await asyncio.start_server(self._come, host, port, ssl=context, limit=READ_BYTES)

    def admit(self, stream: str) -> Ticket:
        """Lets in who comes for that stream with this ticket, once and soon."""
        assert self._server is not None
        secret, now_s = secrets.token_bytes(SECRET_BYTES), time.monotonic()
        self._admitted = [one for one in self._admitted if one.until_s > now_s]
        self._admitted.append(
            _Admitted(stream=stream, digest=hashlib.sha256(secret).digest(), until_s=now_s + _ADMITTED_S)
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        return Ticket(host=host, port=port, fingerprint=self._fingerprint, secret=secret, node=self._node)

    async def close(self) -> None:
        """Ends every session, and its worker."""
        if self._server is not None:
            self._server.close()
        for session in self._sessions:
            session.cancel()
        if self._sessions:
            await asyncio.wait(self._sessions)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._strangers >= _MOST_STRANGERS:
            writer.transport.abort()
            return
        session = Session(reader, writer, self._placement, self._files, decoder(), self._machine)
        # A task of its own, as asyncio takes it for a fault where this one is cancelled.
        task = asyncio.create_task(self._serve(session, writer))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        await asyncio.wait([task])

    async def _serve(self, session: Session, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await self._let_in(session)
            await session.run(stream)
        except (UnknownVisitor, TimeoutError, OSError, ProtocolError) as exc:
            peer = writer.get_extra_info("peername")
            reason = str(exc) or f"no Hello within {_HELLO_S:g} s"
            log.warning("gateway refused", client=peer[0] if peer else "", reason=reason)
            with contextlib.suppress(OSError):
                session.say(Refused(reason=reason))
                await writer.drain()
        finally:
            writer.close()

    async def _let_in(self, session: Session) -> str:
        """The stream that it was admitted for. Raises UnknownVisitor, TimeoutError, ProtocolError."""
        self._strangers += 1
        session.decoder.most_bytes, usual = HELLO_BYTES, session.decoder.most_bytes
        try:
            async with asyncio.timeout(_HELLO_S):
                hello = await session.next()
        finally:
            self._strangers -= 1
            session.decoder.most_bytes = usual
        if not isinstance(hello, Hello):
            raise UnknownVisitor("a gateway begins with Hello")
        if hello.version != wire_version():
            raise UnknownVisitor(f"this host speaks {wire_version()}, the gateway {hello.version}")
        admitted = self._find(hello)
        self._admitted.remove(admitted)
        session.say(Welcome())
        return admitted.stream

    def _find(self, hello: Hello) -> _Admitted:
        digest, now_s = hashlib.sha256(hello.secret).digest(), time.monotonic()
        found = [one for one in self._admitted if hmac.compare_digest(one.digest, digest)]
        if not found or found[0].stream != hello.stream or found[0].until_s < now_s:
            raise UnknownVisitor(f"nobody of that secret was admitted for stream {hello.stream!r}")
        return found[0]
