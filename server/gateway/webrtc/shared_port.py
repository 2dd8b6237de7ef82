"""One UDP port for all viewers: which of them a datagram is for.

An ICE check names the viewer, by the user name that its answer gave it; all else is told by its source
address. An address is a viewer's by its first check, and another's only by an answer to a check of ours that
was sent there: who forges a source cuts nobody off.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from aioice import Connection, stun
from aioice.ice import StunProtocol

from server.wire.logs import get_logger

log = get_logger(__name__)

Address = tuple[str, int]

_BUFFER_BYTES = 4 << 20  # of all viewers together; the system gives less where it allows less
_STUN_BELOW = 4  # first byte of a datagram (RFC 7983)
_REQUEST = b"\x00\x01"  # a binding request's first bytes (RFC 8489, section 5)


class SharedPorts:
    """A socket at each address that was ever offered, open until closed."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}
        self._opening = asyncio.Lock()

    async def join(
        self, connection: Connection, at: str, bind: Callable[[], socket.socket], *, max_addresses: int
    ) -> tuple[StunProtocol, socket.socket]:
        """The connection's share of the socket at that address, and that; raises what `bind` raises."""
        async with self._opening:
            endpoint = self._endpoints.get(at)
            if endpoint is None or endpoint.closed:
                loop = asyncio.get_running_loop()
                bound = bind()
                for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    bound.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_BYTES)
                _, endpoint = await loop.create_datagram_endpoint(lambda: _Endpoint(bound), sock=bound)
                self._endpoints[at] = endpoint
        return _Share(endpoint, connection, max_addresses).protocol, endpoint.bound

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            endpoint.transport.close()
        self._endpoints.clear()


class _Endpoint(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self, bound: socket.socket) -> None:
        self.bound = bound
        self.closed = False
        self.by_name: dict[str, _Share] = {}
        self.by_address: dict[Address, _Share] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if exc is not None:
            log.error("port of all viewers lost", reason=str(exc))
        for share in list(self.by_name.values()):
            share.close()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        share = self._share_for(data, (addr[0], addr[1]))
        if share is not None:
            share.protocol.datagram_received(data, addr)

    def _share_for(self, data: bytes, address: Address) -> "_Share | None":
        if not data or data[0] >= _STUN_BELOW:
            return self.by_address.get(address)
        try:
            message = stun.parse_message(data)
        except (ValueError, IndexError, struct.error):
            return None
        if message.message_class == stun.Class.REQUEST:
            share = self.by_name.get(str(message.attributes.get("USERNAME", "")).partition(":")[0])
            if share is not None and address not in self.by_address and share.signs(message):
                share.map(address)
            return share
        for share in self.by_name.values():
            if message.transaction_id in share.protocol.transactions:
                if share.asked.get(message.transaction_id) == address:
                    share.map(address)
                return share
        return None


class _Share(asyncio.DatagramTransport):
    """What one viewer's connection takes for a socket of its own."""

    def __init__(self, endpoint: _Endpoint, connection: Connection, max_addresses: int) -> None:
        super().__init__({"sockname": endpoint.transport.get_extra_info("sockname")})
        self._endpoint = endpoint
        self._name = connection.local_username
        self._password = connection.local_password.encode()
        self._max_addresses = max_addresses
        self._addresses: set[Address] = set()
        self._closed = False
        self.asked: dict[bytes, Address] = {}  # where checks that wait for their answer were sent
        self.protocol = StunProtocol(connection)
        self.protocol.connection_made(self)
        endpoint.by_name[self._name] = self

    def signs(self, message: stun.Message) -> bool:
        return "MESSAGE-INTEGRITY" in message.attributes and message.check_message_integrity(self._password)

    def map(self, address: Address) -> None:
        """What comes from there is this viewer's from now on."""
        if address in self._addresses or len(self._addresses) >= self._max_addresses:
            return
        if (before := self._endpoint.by_address.get(address)) is not None:
            before._addresses.discard(address)
        self._addresses.add(address)
        self._endpoint.by_address[address] = self

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self._closed or addr is None:
            return
        if data[:2] == _REQUEST:
            waiting = self.protocol.transactions
            self.asked = {key: to for key, to in self.asked.items() if key in waiting}
            self.asked[bytes(data[8:20])] = (addr[0], addr[1])
        self._endpoint.transport.sendto(data, addr)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._endpoint.by_name.pop(self._name, None)
        for address in self._addresses:
            self._endpoint.by_address.pop(address, None)
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close
