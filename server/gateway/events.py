"""What happens to streams, told as it happens to whoever listens."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from server.gateway.errors import AddressLimitReached, LimitReached
from server.gateway.limits.rates import origin
from server.gateway.limits.refusals import Refusals
from server.settings import Limits

Kind = Literal["created", "changed", "deleted", "state", "step", "restart", "moved", "recording", "push"]
QUEUE = 256  # at least so many events may wait for one listener


class ListenerEnded(Exception):
    """Nothing more is told."""


class Listener:
    """Whoever hears of the streams that it may view."""

    def __init__(self, client: str, may_view: Callable[[str], bool], room: int) -> None:
        """`room`: for so many events that wait."""
        self.client = client
        self.may_view = may_view
        self._room = room
        self._waiting: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._ended = False

    def offer(self, text: bytes) -> bool:
        """False where it is too slow; then it is over."""
        if len(self._waiting) >= self._room:
            self.end()
            return False
        self._waiting.append(text)
        self._changed.set()
        return True

    async def next(self) -> bytes:
        """The next event's text; raises ListenerEnded."""
        while not self._waiting:
            if self._ended:
                raise ListenerEnded
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def end(self) -> None:
        """Nothing is told after what waits already."""
        self._ended = True
        self._changed.set()


class Events:
    """`tell` never waits: a listener that is too slow is cut off, and may come again."""

    def __init__(self, limits: Limits, refusals: Refusals) -> None:
        self.limits = limits
        self.elsewhere: set[str] = set()  # streams that another gateway is home to, and tells of
        self._refusals = refusals
        self._listeners: set[Listener] = set()
        self._of_address: Counter[str] = Counter()

    def join(self, client: str, may_view: Callable[[str], bool]) -> Listener:
        """Raises LimitReached or AddressLimitReached."""
        limits, who = self.limits, origin(client)
        if len(self._listeners) >= limits.max_listeners:
            raise LimitReached(f"{len(self._listeners)} listen; limits.max_listeners={limits.max_listeners}")
        if self._of_address[who] >= limits.max_listeners_per_address:
            raise AddressLimitReached(
                f"{who} has {self._of_address[who]} listeners; "
                f"limits.max_listeners_per_address={limits.max_listeners_per_address}"
            )
        # What befalls every stream, as the end of the service does, is told in one go.
        listener = Listener(client, may_view, max(QUEUE, 2 * limits.max_streams))
        self._listeners.add(listener)
        self._of_address[who] += 1
        return listener

    def leave(self, listener: Listener) -> None:
        """Safe more than once."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            who = origin(listener.client)
            self._of_address[who] -= 1
            if not self._of_address[who]:
                del self._of_address[who]

    def tell(self, kind: Kind, stream: str, **facts: object) -> None:
        if not self._listeners or stream in self.elsewhere:
            return
        text = event_text(kind, stream, **facts)
        for listener in list(self._listeners):
            if listener.may_view(stream) and not listener.offer(text):
                self.leave(listener)
                self._refusals.add("slow_client", listener.client)

    def end_all(self) -> None:
        """Everyone has to ask anew whether they may listen."""
        for listener in self._listeners:
            listener.end()


def event_text(kind: Kind, stream: str, **facts: object) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2)."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"event: {kind}\ndata: {json.dumps({'stream': stream, 'at': at, **facts})}\n\n".encode()
