"""From one encoder to every reader: a short ring for each, so that none waits for another."""

import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from server.gateway.fanout.budget import Budget

# A key frame costs every viewer of the stream, so each that lags may ask for a few at once, and then this
# seldom; in between there are those that come anyway.
KEYFRAMES_AT_ONCE = 4
KEYFRAME_EVERY_S = 4.0
# Of what the feedback of all viewers may cause, one viewer's may cause half at once and a quarter later.
FEEDBACK_AT_ONCE = 4
_ONE_VIEWER_AT_ONCE = 2
_ONE_VIEWER_SHARE = 0.25
_ASK_AGAIN_S = 0.5  # a request can get lost with its worker


class Packet(Protocol):
    """What is fanned out. Decoding can start at a keyframe; of audio, every packet is one."""

    @property
    def keyframe(self) -> bool: ...


P = TypeVar("P", bound=Packet)


class ReaderClosed(Exception):
    """The stream is gone, or the reader has been closed."""


class Feedback:
    """The key frames that viewers' feedback may cause, of all viewers of a stream together."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._all = Budget(capacity=FEEDBACK_AT_ONCE, per_s=1 / every_s)

    def one_viewer(self) -> Budget:
        return Budget(capacity=_ONE_VIEWER_AT_ONCE, per_s=_ONE_VIEWER_SHARE / self._every_s)

    def take(self, own: Budget, now_s: float) -> bool:
        """Whether both have one left; who finds none here loses none of its own."""
        return own.has(1, now_s) and self._all.take(1, now_s) and own.take(1, now_s)


class Fanout(Generic[P]):
    """`publish` never waits. A reader whose ring is full loses all of it and goes on at the next keyframe."""

    def __init__(
        self,
        *,
        capacity: int,
        feedback: Feedback,
        on_need_keyframe: Callable[[], None] = lambda: None,
        on_drop: Callable[[int], None] = lambda count: None,
        on_readers: Callable[[int], None] = lambda count: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.feedback = feedback
        self._capacity = capacity
        self._on_need_keyframe = on_need_keyframe
        self._on_drop = on_drop
        self._on_readers = on_readers
        self._readers: set[Reader[P]] = set()
        self._closed = False
        self._asked_s = float("-inf")  # of a keyframe that has yet to come

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
        reader.wait_for_keyframe()
        return reader

    def publish(self, packet: P) -> None:
        if packet.keyframe:
            self._asked_s = float("-inf")
        for reader in tuple(self._readers):  # what is told may leave
            if dropped := reader.offer(packet, self._capacity):
                self._on_drop(dropped)
            if reader.waits_for_keyframe:
                reader.wait_for_keyframe()

    def dropped(self, count: int) -> None:
        self._on_drop(count)

    def keyframe_comes(self) -> bool:
        """Whether one was asked for so lately that it may still be on its way."""
        return self.clock() - self._asked_s < _ASK_AGAIN_S

    def need_keyframe(self) -> None:
        self._asked_s = self.clock()
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
    """One sink's ring. Made by `Fanout.join`. `on_ready` is called with each packet, and at the end: it takes
    what there is, and must not raise."""

    def __init__(self, fanout: Fanout[P]) -> None:
        self.on_ready: Callable[[], None] = _nobody
        self._fanout = fanout
        self._ring: deque[P] = deque()
        self._closed = False
        self._started = False
        self._keyframes = Budget(capacity=KEYFRAMES_AT_ONCE, per_s=1 / KEYFRAME_EVERY_S)
        self._feedback = fanout.feedback.one_viewer()
        self._asked_s = float("-inf")
        self._skips = False
        self.waits_for_keyframe = True

    def offer(self, packet: P, capacity: int) -> int:
        """Takes the packet where it can; returns how many packets are lost by it."""
        lost = 0
        if len(self._ring) >= capacity:
            lost = len(self._ring)
            self._ring.clear()
            self.waits_for_keyframe = True
            self._skips = False
        if self.waits_for_keyframe and not packet.keyframe:
            return lost + self._started  # who has just joined loses nothing by waiting
        self.waits_for_keyframe = False
        self._started = True
        self._ring.append(packet)
        self.on_ready()
        return lost

    @property
    def ready(self) -> bool:
        """Whether there is one to take."""
        return bool(self._ring)

    def take(self) -> P | None:
        """The next packet; None where there is none yet. Raises ReaderClosed at the end."""
        if self._ring:
            return self._ring.popleft()
        if self._closed:
            raise ReaderClosed
        return None

    def wait_for_keyframe(self) -> None:
        """Asks for the keyframe that it waits for, as often as one reader may."""
        if self._skips:
            self.ask_keyframe()
            return
        now_s = self._fanout.clock()
        if now_s - self._asked_s >= _ASK_AGAIN_S and self._keyframes.take(1, now_s):
            self._asked_s = now_s
            self._fanout.need_keyframe()

    def ask_keyframe(self) -> None:
        """The viewer's feedback asks for one: it gets the next that comes, or causes one by `Feedback`."""
        now_s = self._fanout.clock()
        if not self._fanout.keyframe_comes() and self._fanout.feedback.take(self._feedback, now_s):
            self._fanout.need_keyframe()

    def skip(self) -> None:
        """Goes on at the next keyframe, as the viewer's feedback says; what the ring holds is lost."""
        if not self.waits_for_keyframe:
            self.waits_for_keyframe = self._skips = True
            if self._ring:
                self._fanout.dropped(len(self._ring))
            self._ring.clear()
            self.ask_keyframe()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ring.clear()
        self._fanout.leave(self)
        self.on_ready()


class SwitchingReader(Generic[P]):
    """One sink's packets of one rendition after the other: the next one from its first keyframe on."""

    def __init__(self, reader: Reader[P]) -> None:
        self._reader = reader
        self._next: Reader[P] | None = None
        self._on_ready: Callable[[], None] = _nobody

    def listen(self, on_ready: Callable[[], None]) -> None:
        """As `Reader.on_ready`."""
        self._on_ready = on_ready
        for reader in (self._reader, self._next):
            if reader is not None:
                reader.on_ready = on_ready

    def switch(self, reader: Reader[P], *, at_once: bool) -> None:
        """Goes on with that one; `at_once`, nothing comes of the present one until then."""
        before, self._next = self._next, reader
        if before is not None:
            _drop(before)
        reader.on_ready = self._on_ready
        if at_once:
            _drop(self._reader)

    def take(self) -> P | None:
        """As `Reader.take`."""
        if self._next is None or not self._next.ready:
            try:
                return self._reader.take()
            except ReaderClosed:
                if self._next is None:
                    raise
        before, self._reader, self._next = self._reader, self._next, None
        _drop(before)
        return self._reader.take()

    def ask_keyframe(self) -> None:
        self._reader.ask_keyframe()

    def skip(self) -> None:
        self._reader.skip()

    def close(self) -> None:
        for reader in (self._reader, self._next):
            if reader is not None:
                _drop(reader)


def _nobody() -> None:
    """Hears of nothing."""


def _drop(reader: Reader[P]) -> None:
    """Its end is nothing to be told of."""
    reader.on_ready = _nobody
    reader.close()
