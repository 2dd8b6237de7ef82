"""What a worker says, sent in order by a thread of its own: a slow gateway doesn't hold up the source."""

import socket
import threading
from collections import Counter, deque
from contextlib import suppress
from typing import Literal

from server.wire.codec import encode
from server.wire.messages import Alive, AudioPacket, Message, VideoPacket

Kind = Literal["picture", "sound", "word", "sign"]
# One picture in both renditions; two seconds of sound in both codecs; words for a minute, at some a second;
# one sign of life, as two would say the same.
_CAPACITY: dict[Kind, int] = {"picture": 2, "sound": 200, "word": 1000, "sign": 1}


class Outbox:
    """When full, it drops sound and signs of life, and makes pictures wait, so that the mailboxes before the
    encoder drop them. Words wait, too, where the gateway has heard none for a minute."""

    def __init__(self, gateway: socket.socket) -> None:
        self._gateway = gateway
        self._waiting: deque[tuple[Kind, bytearray]] = deque()
        self._lengths: Counter[Kind] = Counter()
        self._closed = False  # nothing follows, or nobody hears it
        self._changed = threading.Condition()
        # A daemon: a process that was told to stop doesn't wait until a slow gateway has heard it out.
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> bool:
        """False where the message is dropped; once the gateway has gone, there is nobody to miss it."""
        kind = _kind(message)
        data = encode(message)
        with self._changed:
            if kind in ("sound", "sign") and not self._has_room(kind):
                return False
            self._changed.wait_for(lambda: self._has_room(kind))
            if not self._closed:
                self._waiting.append((kind, data))
                self._lengths[kind] += 1
                self._changed.notify_all()
        return True

    def close(self) -> None:
        """Returns once everything is sent, or the gateway has gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def full(self) -> bool:
        """Pictures wait for a gateway that is slow."""
        return not self._has_room("picture")

    def _has_room(self, kind: Kind) -> bool:
        return self._closed or self._lengths[kind] < _CAPACITY[kind]

    def _send_all(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            while (data := self._next()) is not None:
                self._gateway.sendall(data)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> bytearray | None:
        """The oldest message; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            kind, data = self._waiting.popleft()
            self._lengths[kind] -= 1
            self._changed.notify_all()
            return data


def _kind(message: Message) -> Kind:
    match message:
        case VideoPacket():
            return "picture"
        case AudioPacket():
            return "sound"
        case Alive():
            return "sign"
        case _:
            return "word"
