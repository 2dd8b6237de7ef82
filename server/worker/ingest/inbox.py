"""What the gateway sends of a publication, between the thread that hears the gateway and the source's."""

import threading
import time
from collections import deque
from collections.abc import Callable

from server.wire.messages import (
    AwaitPublisher,
    Message,
    NeedKeyframe,
    Published,
    PublishedData,
    PublisherGone,
)

_MOST_BYTES = 8 << 20
_LONGEST_S = 3.0  # what waits for longer is no longer live
_POLL_S = 0.2


class PublisherInbox:
    """What the gateway sends of one publication, in order. `put` is for the thread that hears the gateway,
    the rest for the source's. When full it drops until a decoder can begin again; `on_drop` hears of each
    piece."""

    def __init__(self, *, send: Callable[[Message], None], on_drop: Callable[[], None]) -> None:
        self._send = send
        self._on_drop = on_drop
        self._changed = threading.Condition()
        self._waiting: deque[Published | PublishedData | PublisherGone] = deque()
        self._opening = 0
        self._bytes = 0
        self._dropping = False

    def await_publisher(self) -> None:
        """Asks for a publication; what was sent of another one is forgotten."""
        with self._changed:
            self._opening += 1
            self._waiting.clear()
            self._bytes, self._dropping = 0, False
            opening = self._opening
        self._send(AwaitPublisher(opening=opening))

    def put(self, message: Published | PublishedData | PublisherGone) -> None:
        with self._changed:
            if message.opening != self._opening:
                return
            if isinstance(message, PublishedData):
                if not self._takes(message):
                    self._on_drop()
                    return
                self._bytes += len(message.data)
            self._waiting.append(message)
            self._changed.notify()

    def take(
        self, timeout_s: float, stop: threading.Event
    ) -> Published | PublishedData | PublisherGone | None:
        """The next message; None where none comes in time, or it was stopped."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not self._waiting:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or stop.is_set():
                    return None
                self._changed.wait(min(left_s, _POLL_S))
            message = self._waiting.popleft()
            if isinstance(message, PublishedData):
                self._bytes -= len(message.data)
            return message

    def _takes(self, message: PublishedData) -> bool:
        first = next((m for m in self._waiting if isinstance(m, PublishedData)), message)
        full = self._bytes + len(message.data) > _MOST_BYTES
        late = message.arrival_ns - first.arrival_ns > _LONGEST_S * 1e9
        before, self._dropping = (
            self._dropping,
            full or late or (self._dropping and message.kind != "start"),
        )
        if self._dropping and not before:
            self._send(NeedKeyframe())
        # What a decoder has to know later costs little, unless somebody makes it.
        return not self._dropping or (message.kind == "header" and not full)
