"""A bounded queue between two threads: when full, it drops the oldest or makes the sender wait."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nothing is left in the mailbox and nothing will come; or nobody will take it."""


class Mailbox(Generic[T]):
    """A queue of at most `capacity` items. With `on_drop`, a full mailbox gives it the oldest item; without,
    `put` waits for room."""

    def __init__(self, capacity: int, *, on_drop: Callable[[T], None] | None) -> None:
        if capacity < 1:
            raise ValueError(f"{capacity = } must be at least 1")
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._on_drop = on_drop
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Raises Closed where the receiver has ended."""
        dropped: T | None = None
        with self._changed:
            if self._on_drop is None:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._closed)
            if self._closed:
                raise Closed
            if len(self._items) == self._capacity:
                dropped = self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
        if dropped is not None and self._on_drop is not None:
            self._on_drop(dropped)

    def take(self, timeout_s: float | None = None) -> T | None:
        """The oldest item; None after `timeout_s`. Raises Closed at the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._items:
                if self._closed:
                    raise Closed
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """The sender's word that nothing follows; what is in the mailbox can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Ends both sides at once."""
        with self._changed:
            self._items.clear()
            self._closed = True
            self._changed.notify_all()
