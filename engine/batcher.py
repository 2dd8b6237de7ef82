"""Frames of many streams through the lanes of one engine: who goes next, with whom, and when."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal
from weakref import WeakSet

from engine.errors import DeviceFailed
from engine.frame import BatchLane, Slot

# A batch may have so much more room than frames: what is computed for nothing must cost less than another.
_FILLED = 3 / 4
# Nobody waits for a stream that has sent nothing for so long: it is paused, or gone.
_ABSENT_S = 1.0
# Keeping time without anything to keep it for: the thread ends, and the next frame that needs one starts it.
_IDLE_S = 1.0


class Seat:
    """One stream's place at a batcher. Its frames keep their order, and wait for those of others for `wait_s`
    at most."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self.lanes = 0  # frames that the stream may have here at once
        self.inside = 0  # that it has: waiting, computed, or not yet taken
        self.waiting: deque[Ticket] = deque()
        self.last_s = float("-inf")


class Ticket:
    """A frame on its way."""

    def __init__(self, seat: Seat, slot: Slot, since_s: float) -> None:
        self.seat = seat
        self.slot = slot
        self.since_s = since_s
        self.batch: _Batch | None = None
        self.error: BaseException | None = None
        self.alone = False  # because a batch with it failed


class Batcher:
    """Batches of at most the largest of `sizes`. One goes as soon as a lane is free and it is full, or has a
    frame of every stream that may send one, or a frame of it has waited for as long as it may. A frame waits
    for at most one of each other stream's before a batch takes it.

    A batch is formed by whoever makes it possible: the stream that submits its last frame, or the one that
    waited for the batch before. So a stream alone goes through no other thread; only deadlines need one,
    which lives while there are any. For any thread.
    """

    def __init__(
        self,
        lanes: Sequence[BatchLane],
        sizes: Sequence[int],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes, self._sizes = list(lanes), tuple(sizes)
        self._free = list(lanes)
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._sent = threading.Condition(self._lock)
        self._deadline = threading.Condition(self._lock)
        self._clock: Literal["stopped", "idle", "set"] = "stopped"
        self._seats: WeakSet[Seat] = WeakSet()
        self._turns: deque[Seat] = deque()  # those with frames waiting; who is next comes first
        self._flying: deque[_Batch] = deque()

    @property
    def largest(self) -> int:
        return self._sizes[-1]

    @property
    def seats(self) -> int:
        """How many streams there are."""
        return len(self._seats)

    def seat(self, wait_s: float) -> Seat:
        """A place for one more stream, which is left by forgetting it."""
        with self._lock:
            seat = Seat(wait_s)
            self._seats.add(seat)
            return seat

    def replace(self, lanes: Sequence[BatchLane], sizes: Sequence[int]) -> None:
        """Other lanes from now on; what is in flight in the old ones is computed there."""
        with self._lock:
            self._lanes, self._sizes = list(lanes), tuple(sizes)
            self._free = list(lanes)
            self._form()

    def submit(self, seat: Seat, slot: Slot) -> Ticket:
        """Returns at once. The slot is the batcher's until the ticket was waited for."""
        with self._lock:
            ticket = Ticket(seat, slot, self._clock_s())
            seat.last_s = ticket.since_s
            seat.inside += 1
            if not seat.waiting:
                self._turns.append(seat)
            seat.waiting.append(ticket)
            self._form()
            return ticket

    def wait(self, ticket: Ticket) -> None:
        """Blocks until the ticket's slot has its output. Raises what computing it raised."""
        while (batch := self._batch_of(ticket)) is not None:
            self._finish(batch)
            if batch is ticket.batch:
                break
        with self._lock:
            ticket.seat.inside -= 1
        if ticket.error is not None:
            raise ticket.error

    def _batch_of(self, ticket: Ticket) -> "_Batch | None":
        """The ticket's batch, or one to wait for before; None where it failed before it had one."""
        with self._lock:
            while ticket.batch is None and ticket.error is None:
                # No lane is free: the oldest batch's own streams may be gone, and nobody wait for it.
                if not self._free and self._flying:
                    return self._flying[0]
                self._sent.wait()
            return ticket.batch

    def _finish(self, batch: "_Batch") -> None:
        """Waits for a batch, and gives its lane to the next; one thread does so for all that wait for it."""
        with batch.lock:
            if batch.done:
                return
            try:
                batch.lane.wait()
            except BaseException as exc:  # whoever waits here: each stream of the batch raises it by itself
                for ticket in batch.tickets:
                    ticket.error = exc
            batch.done, batch.tickets = True, ()
        with self._lock:
            self._flying.remove(batch)
            if batch.lane in self._lanes:
                self._free.append(batch.lane)
            self._form()

    def _form(self) -> None:
        while self._free and self._turns and self._due_s() <= self._clock_s():
            self._send(self._next())
        if self._turns and self._free:
            self._keep_time()

    def _due_s(self) -> float:
        """When what waits has to go, at the latest."""
        waiting = sum(len(seat.waiting) for seat in self._turns)
        if waiting >= self.largest or not any(self._expected(seat) for seat in self._seats):
            return float("-inf")
        return min(seat.waiting[0].since_s + seat.wait_s for seat in self._turns)

    def _expected(self, seat: Seat) -> bool:
        """It has no frame here that waits, but may send one."""
        present = self._clock_s() - seat.last_s <= _ABSENT_S
        return present and not seat.waiting and seat.inside < seat.lanes

    def _next(self) -> list[Ticket]:
        waiting = sum(len(seat.waiting) for seat in self._turns)
        size = max(size for size in self._sizes if waiting >= _FILLED * size)
        tickets: list[Ticket] = []
        while self._turns and len(tickets) < size:
            if self._turns[0].waiting[0].alone and tickets:
                break
            seat = self._turns.popleft()
            tickets.append(seat.waiting.popleft())
            if seat.waiting:
                self._turns.append(seat)
            if tickets[0].alone:
                break
        return tickets

    def _send(self, tickets: list[Ticket]) -> None:
        lane = self._free.pop()
        try:
            lane.submit([ticket.slot for ticket in tickets])
        except Exception as exc:  # a library's own, of whichever frame it can't take
            self._free.append(lane)
            if len(tickets) == 1 or isinstance(exc, DeviceFailed):
                for ticket in tickets:
                    ticket.error = exc
            else:
                self._take_back(tickets)
        else:
            batch = _Batch(lane, tickets)
            self._flying.append(batch)
            for ticket in tickets:
                ticket.batch = batch
        self._sent.notify_all()

    def _take_back(self, tickets: Sequence[Ticket]) -> None:
        """They go one by one, so that only the one fails that can't be computed."""
        for ticket in reversed(tickets):
            ticket.alone = True
            if ticket.seat.waiting:
                self._turns.remove(ticket.seat)
            ticket.seat.waiting.appendleft(ticket)
            self._turns.appendleft(ticket.seat)

    def _keep_time(self) -> None:
        if self._clock == "stopped":
            threading.Thread(target=self._run_clock, name="batches", daemon=True).start()
        elif self._clock == "idle":
            self._deadline.notify()
        self._clock = "set"

    def _run_clock(self) -> None:
        with self._lock:
            while self._clock == "set":
                if self._turns and self._free:
                    self._deadline.wait(max(0.0, self._due_s() - self._clock_s()))
                    self._form()
                else:
                    self._clock = "idle"
                    self._deadline.wait(_IDLE_S)
            self._clock = "stopped"


class _Batch:
    """Frames that a lane computes together."""

    def __init__(self, lane: BatchLane, tickets: Sequence[Ticket]) -> None:
        self.lane: Any = lane
        self.tickets = tickets
        self.lock = threading.Lock()
        self.done = False
