"""The worker's end of the socket to the gateway."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

from server.wire.codec import Decoder, encode
from server.wire.messages import Message

_READ_BYTES = 1 << 16


class Connection:
    """`send`, for any thread, blocks while the gateway is slow: the mailboxes before the encoder drop then,
    and nothing piles up behind it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Sends, or does nothing once the gateway has gone: the reader sees it and ends the process."""
        data = encode(message)
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def messages(self) -> Iterator[Message]:
        """Messages until the gateway has gone. Raises ProtocolError."""
        decoder = Decoder()
        with suppress(ConnectionResetError):
            while data := self._socket.recv(_READ_BYTES):
                yield from decoder.feed(data)
