"""The worker's end of the socket to the gateway."""

import socket
from collections.abc import Iterator
from contextlib import suppress

from server.wire.codec import Decoder
from server.wire.messages import Message
from server.worker.outbox import Outbox

_READ_BYTES = 1 << 16


class Connection:
    """`send` is for any thread. Only pictures wait for a slow gateway."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._outbox = Outbox(connection)

    def send(self, message: Message) -> bool:
        """False where sound is dropped because the gateway is slow. Does nothing once the gateway has gone:
        the reader sees it and ends the stream."""
        return self._outbox.put(message)

    @property
    def held_up(self) -> bool:
        """Pictures wait because the gateway is slow."""
        return self._outbox.full

    def finish(self) -> None:
        """Returns once all that was said has left, or the gateway has gone; `messages` ends. The gateway sees
        it as the end of the stream."""
        self._outbox.close()
        with suppress(OSError):  # the gateway was first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """After `finish`, once nobody waits in `messages` any more."""
        self._socket.close()

    def messages(self) -> Iterator[Message]:
        """Messages until the gateway has gone. Raises ProtocolError."""
        decoder = Decoder()
        with suppress(ConnectionResetError):
            while data := self._socket.recv(_READ_BYTES):
                yield from decoder.feed(data)
