"""From one encoder to every reader: a short ring for each, so that none waits for another."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from server.gateway.fanout.budget import Budget

# A key frame costs every viewer of the stream, so each may ask for a few at once, and then this seldom; in
# between there are those that come anyway.
KEYFRAMES_AT_ONCE = 4
KEYFRAME_EVERY_S = 4.0
_ASK_AGAIN_S = 0.5  # a request can get lost with its worker


class Packet(Protocol):
    """What is fanned out. Decoding can start at a keyframe; of audio, every packet is one."""

    @property
    def keyframe(self) -> bool: ...


P = TypeVar("P", bound=Packet)


class ReaderClosed(Exception):
    """The stream is gone, or the reader has been closed."""


class Fanout(Generic[P]):
    """`publish` never waits. A reader whose ring is full loses all of it and goes on at the next keyframe."""

    def __init__(
        self,
        *,
        capacity: int,
        on_need_keyframe: Callable[[], None] = lambda: None,
        on_drop: Callable[[int], None] = lambda count: None,
        on_readers: Callable[[int], None] = lambda count: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._capacity = capacity
        self._on_need_keyframe = on_need_keyframe
        self._on_drop = on_drop
        self._on_readers = on_readers
        self._readers: set[Reader[P]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._readers)

    def join(self) -> "Reader[P]":
        """A new reader, which starts at the keyframe that is asked for here; closed if this is."""
        reader = Reader(self)
        if self._closed:
            reader.close()
            return reader
        self._readers.add(reader)
        self._on_readers(len(self._readers))
        reader.ask_keyframe()
        return reader

    def publish(self, packet: P) -> None:
        for reader in self._readers:
            if dropped := reader.offer(packet, self._capacity):
                self._on_drop(dropped)
            if reader.waits_for_keyframe:
                reader.ask_keyframe()

    def dropped(self, count: int) -> None:
        self._on_drop(count)

    def need_keyframe(self) -> None:
        self._on_need_keyframe()

    def leave(self, reader: "Reader[P]") -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self._on_readers(len(self._readers))

    def close(self) -> None:
        """Ends every reader, and those to come."""
        self._closed = True
        for reader in list(self._readers):
            reader.close()


class Reader(Generic[P]):
    """One sink's ring. Made by `Fanout.join`, read by one task."""

    def __init__(self, fanout: Fanout[P]) -> None:
        self._fanout = fanout
        self._ring: deque[P] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._started = False
        self._keyframes = Budget(capacity=KEYFRAMES_AT_ONCE, per_s=1 / KEYFRAME_EVERY_S)
        self._asked_s = float("-inf")
        self.waits_for_keyframe = True

    def offer(self, packet: P, capacity: int) -> int:
        """Takes the packet where it can; returns how many packets are lost by it."""
        lost = 0
        if len(self._ring) >= capacity:
            lost = len(self._ring)
            self._ring.clear()
            self.waits_for_keyframe = True
        if self.waits_for_keyframe and not packet.keyframe:
            return lost + self._started  # who has just joined loses nothing by waiting
        self.waits_for_keyframe = False
        self._started = True
        self._ring.append(packet)
        self._changed.set()
        return lost

    async def next(self) -> P:
        """Raises ReaderClosed at the end."""
        while not self._ring:
            if self._closed:
                raise ReaderClosed
            self._changed.clear()
            await self._changed.wait()
        return self._ring.popleft()

    def ask_keyframe(self) -> None:
        """Passes the wish on, as often as one reader may."""
        now_s = self._fanout.clock()
        if now_s - self._asked_s >= _ASK_AGAIN_S and self._keyframes.take(1, now_s):
            self._asked_s = now_s
            self._fanout.need_keyframe()

    def skip(self) -> None:
        """Goes on at the next keyframe; what the ring holds is lost."""
        if not self.waits_for_keyframe:
            self.waits_for_keyframe = True
            if self._ring:
                self._fanout.dropped(len(self._ring))
            self._ring.clear()
            self.ask_keyframe()

    def close(self) -> None:
        self._closed = True
        self._ring.clear()
        self._changed.set()
        self._fanout.leave(self)
