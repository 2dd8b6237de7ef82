"""Where gateways come to a host: a secret for each stream, once."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from server.gateway.placement import Placement
from server.gateway.placement.cpu import IdleCores
from server.node.files import FileCache
from server.node.session import Session
from server.wire import door
from server.wire.door import UnknownVisitor, Visitor
from server.wire.hello import SECRET_BYTES, Hello, Ticket

_ADMITTED_S = 30.0  # to come with its secret


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
        self._machine = _Machine()
        self._door = door.Door(admit=self._let_in, serve=self._serve, here="this host")

    async def open(self, host: str, port: int = 0) -> None:
        """Listens there. Raises OSError."""
        await self._door.open(host, port)

    def admit(self, stream: str) -> Ticket:
        """Lets in who comes for that stream with this ticket, once and soon."""
        secret, now_s = secrets.token_bytes(SECRET_BYTES), time.monotonic()
        self._admitted = [one for one in self._admitted if one.until_s > now_s]
        self._admitted.append(
            _Admitted(stream=stream, digest=hashlib.sha256(secret).digest(), until_s=now_s + _ADMITTED_S)
        )
        at = self._door.address
        return Ticket(host=at.host, port=at.port, fingerprint=at.fingerprint, secret=secret, node=self._node)

    async def close(self) -> None:
        """Ends every session, and its worker."""
        await self._door.close()

    async def _serve(self, visitor: Visitor, stream: str) -> None:
        await Session(visitor, self._placement, self._files, self._machine).run(stream)

    def _let_in(self, hello: Hello) -> None:
        """Raises UnknownVisitor."""
        digest, now_s = hashlib.sha256(hello.secret).digest(), time.monotonic()
        found = [one for one in self._admitted if hmac.compare_digest(one.digest, digest)]
        if not found or found[0].stream != hello.stream or found[0].until_s < now_s:
            raise UnknownVisitor(f"nobody of that secret was admitted for stream {hello.stream!r}")
        self._admitted.remove(found[0])
