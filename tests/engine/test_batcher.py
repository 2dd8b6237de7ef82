"""Who goes with whom, and when: every schedule of streams that hypothesis thinks of, and batchers that are
broken in one way each."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batcher import Batcher, Seat, Ticket
from engine.batches import batch_sizes
from engine.errors import DeviceFailed

TIMEOUT_S = 20.0


@dataclass
class Frame:
    """A slot that knows whose frame it holds."""

    stream: int
    number: int
    poisonous: bool = False

    def put(self, frame: object) -> None:
        raise AssertionError("these tests hand over slots, not what is in them")


@dataclass
class RecordingLane:
    """Computes in no time, and remembers what with what. `held`: not before this is set."""

    log: list[list[Frame]]
    held: threading.Event = field(default_factory=threading.Event)

    def submit(self, slots: Sequence[Frame]) -> None:
        if any(slot.poisonous for slot in slots):
            raise ValueError("a surface of no kind")
        self.log.append(list(slots))

    def wait(self) -> None:
        assert self.held.wait(TIMEOUT_S)


class Bench:
    """A batcher whose lanes are free again when the test says so."""

    def __init__(
        self,
        streams: int = 2,
        *,
        kind: type[Batcher] = Batcher,
        lanes: int = 1,
        sizes: Sequence[int] = (1, 2, 4),
        wait_s: float = 0.0,
        frames_each: int = 4,
    ) -> None:
        self.log: list[list[Frame]] = []
        self.lanes = [RecordingLane(self.log) for _ in range(lanes)]
        self.batcher = kind(self.lanes, sizes)
        self.seats = [self.batcher.seat(wait_s) for _ in range(streams)]
        for seat in self.seats:
            seat.lanes = frames_each
        self.tickets: list[Ticket] = []
        self._numbers = [0] * streams

    def submit(self, stream: int, *, poisonous: bool = False) -> Ticket:
        frame = Frame(stream, self._numbers[stream], poisonous)
        self._numbers[stream] += 1
        self.tickets.append(self.batcher.submit(self.seats[stream], frame))
        return self.tickets[-1]

    def finish(self) -> None:
        """The lanes compute what they have."""
        for lane in self.lanes:
            lane.held.set()

    def names(self) -> list[str]:
        return ["".join(f"{'abcdefgh'[frame.stream]}{frame.number}" for frame in batch) for batch in self.log]


# What must hold of every schedule.


def check(submitted: Sequence[tuple[int, Frame]], log: Sequence[Sequence[Frame]], largest: int) -> None:
    """`submitted`: each frame with how many batches had gone when it came."""
    assert all(1 <= len(batch) <= largest for batch in log)
    served = [(number, frame) for number, batch in enumerate(log) for frame in batch]
    assert sorted((f.stream, f.number) for _, f in served) == sorted(
        (f.stream, f.number) for _, f in submitted
    ), "a frame is lost, or was computed twice"
    for stream in {frame.stream for _, frame in submitted}:
        numbers = [frame.number for _, frame in served if frame.stream == stream]
        assert numbers == sorted(numbers), "frames of a stream went out of order"
    for since, frame in submitted:
        place = next(i for i, (_, other) in enumerate(served) if other is frame)
        before = served[:place]
        first = max((i + 1 for i, (_, other) in enumerate(before) if other.stream == frame.stream), default=0)
        start = max(first, sum(len(batch) for batch in log[:since]))
        others = [other.stream for _, other in before[start:] if other.stream != frame.stream]
        assert len(others) == len(set(others)), "a stream was served twice while another waited"


def run_schedule(kind: type[Batcher], steps: Sequence[int], *, streams: int, lanes: int) -> None:
    """Steps are submissions of a stream, or, where negative, a wait for the oldest frame that nobody waited
    for."""
    bench = Bench(streams, kind=kind, lanes=lanes)
    bench.finish()
    submitted: list[tuple[int, Frame]] = []
    waiting: list[Ticket] = []

    def wait_for_oldest() -> None:
        thread = threading.Thread(target=bench.batcher.wait, args=(waiting.pop(0),), daemon=True)
        thread.start()
        thread.join(0.5 if kind is not Batcher else TIMEOUT_S)
        assert not thread.is_alive(), "a frame never comes out"

    for step in steps:
        if step >= 0:
            since = len(bench.log)
            ticket = bench.submit(step)
            submitted.append((since, ticket.slot))
            waiting.append(ticket)
        elif waiting:
            wait_for_oldest()
    while waiting:
        wait_for_oldest()
    check(submitted, bench.log, bench.batcher.largest)


schedules = st.lists(st.integers(-2, 3), max_size=40)


@settings(max_examples=100)
@given(steps=schedules, lanes=st.integers(1, 3))
def test_every_frame_goes_once_in_order_and_in_turn(steps: list[int], lanes: int) -> None:
    run_schedule(Batcher, steps, streams=4, lanes=lanes)


class _Loses(Batcher):
    """Forgets one frame of a full batch."""

    def _send(self, tickets: list[Ticket]) -> None:
        super()._send(tickets[:3])


class _Reorders(Batcher):
    """Takes a stream's newest frame first."""

    def _next(self) -> list[Ticket]:
        for seat in self._turns:
            seat.waiting.reverse()
        return super()._next()


class _Starves(Batcher):
    """Serves whoever has most to do, as often as it likes."""

    def _next(self) -> list[Ticket]:
        busiest = max(self._turns, key=lambda seat: len(seat.waiting))
        ticket = busiest.waiting.popleft()
        if not busiest.waiting:
            self._turns.remove(busiest)
        return [ticket]


class _Repeats(Batcher):
    """Computes a frame again."""

    def _send(self, tickets: list[Ticket]) -> None:
        super()._send([*tickets, tickets[0]] if 1 < len(tickets) < 4 else tickets)


BUSY = [0, 1, 2, -1, -1, -1, 0, 0, 0, 0, 1, 2, 3, -1, 0, -1, 0, 0, 1, -1, -1, 0, 2, 3, 1, -1, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (_Loses, "never comes out"),
        (_Reorders, "out of order"),
        (_Starves, "served twice"),
        (_Repeats, "computed twice"),
    ],
)
def test_the_check_sees_a_broken_batcher(kind: type[Batcher], said: str) -> None:
    run_schedule(Batcher, BUSY, streams=4, lanes=1)
    with pytest.raises(AssertionError, match=said):
        run_schedule(kind, BUSY, streams=4, lanes=1)


# When a batch goes.


def test_a_stream_alone_waits_for_nobody_and_for_no_thread() -> None:
    bench = Bench(streams=1, wait_s=TIMEOUT_S)
    threads = threading.active_count()
    bench.submit(0)
    assert bench.names() == ["a0"]
    bench.submit(0)  # behind it
    bench.finish()
    for ticket in bench.tickets:
        bench.batcher.wait(ticket)
    assert bench.names() == ["a0", "a1"]
    assert threading.active_count() == threads


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def both_present(bench: Bench) -> None:
    """Each stream has sent something of late."""
    bench.finish()
    for seat in bench.seats:
        seat.last_s = bench.batcher._clock_s()


def test_frames_of_two_streams_go_together() -> None:
    bench = Bench(wait_s=TIMEOUT_S)
    both_present(bench)
    bench.submit(0)
    assert bench.names() == [], "the other stream may send one, and then they go together"
    bench.submit(1)
    assert bench.names() == ["a0b0"]


def test_a_frame_waits_for_others_no_longer_than_it_may() -> None:
    bench = Bench(wait_s=0.01)
    both_present(bench)
    start_s = time.monotonic()
    bench.submit(0)
    until(bench.names)
    assert time.monotonic() - start_s >= 0.01
    assert bench.names() == ["a0"]


def test_who_can_send_nothing_now_is_not_waited_for() -> None:
    bench = Bench(wait_s=TIMEOUT_S, lanes=2, frames_each=1)
    both_present(bench)
    bench.submit(0)
    bench.submit(1)
    assert bench.names() == ["a0b0"]
    bench.seats[0].lanes = 2
    bench.submit(0)  # all that the other may have in flight is
    assert bench.names() == ["a0b0", "a1"]


def test_who_has_been_silent_or_is_gone_is_not_waited_for() -> None:
    now = [100.0]
    bench = Bench(wait_s=TIMEOUT_S)
    bench.batcher._clock_s = lambda: now[0]
    both_present(bench)
    now[0] += 1.5
    bench.submit(0)
    assert bench.names() == ["a0"]
    bench.batcher.wait(bench.tickets.pop())
    bench.submit(1)
    bench.submit(0)
    assert bench.names() == ["a0", "b0a1"], "here again"
    while bench.tickets:
        bench.batcher.wait(bench.tickets.pop())
    del bench.seats[1]
    bench.submit(0)
    assert bench.names()[2:] == ["a2"]


def test_what_waited_for_a_lane_goes_together() -> None:
    bench = Bench(streams=5, sizes=(1, 2, 4))
    first = bench.submit(0)
    for stream in range(5):
        bench.submit(stream)
    assert bench.names() == ["a0"]
    bench.finish()
    bench.batcher.wait(first)
    assert bench.names() == ["a0", "a1b0c0d0"]


@pytest.mark.parametrize(("frames", "sizes"), [(3, [3]), (5, [4, 1]), (6, [6]), (7, [7]), (1, [1])])
def test_a_batch_has_little_room_left(frames: int, sizes: list[int]) -> None:
    """A graph for 8 is not run for 5: one for 4, and one more."""
    bench = Bench(streams=8, lanes=3, sizes=(1, 2, 4, 8))
    blocked = [bench.submit(0) for _ in range(3)]
    for stream in range(frames):
        bench.submit(stream)
    bench.finish()
    for ticket in blocked:
        bench.batcher.wait(ticket)
    for ticket in bench.tickets[3:]:
        bench.batcher.wait(ticket)
    assert [len(batch) for batch in bench.log[3:]] == sizes


# Who goes takes nobody along.


def test_a_stream_that_leaves_its_frames_behind_holds_nobody_up() -> None:
    bench = Bench(streams=2)
    bench.finish()
    bench.submit(0)
    bench.submit(0)  # nobody will wait for either
    other = bench.submit(1)
    bench.batcher.wait(other)
    assert bench.names() == ["a0", "a1b0"]


def test_a_frame_that_nobody_can_compute_fails_alone() -> None:
    bench = Bench(streams=4)
    blocking = bench.submit(0)
    good, bad, also_good = bench.submit(1), bench.submit(2, poisonous=True), bench.submit(3)
    bench.finish()
    bench.batcher.wait(blocking)
    for ticket in (good, also_good):
        bench.batcher.wait(ticket)
    with pytest.raises(ValueError, match="a surface of no kind"):
        bench.batcher.wait(bad)
    assert bench.names() == ["a0", "b0", "d0"]
    bench.batcher.wait(bench.submit(2))


@pytest.mark.parametrize("late", [False, True])
def test_a_device_that_fails_says_so_to_each_stream(late: bool) -> None:
    def fail(*_: object) -> None:
        raise DeviceFailed("illegal address")

    bench = Bench(streams=2)
    first = bench.submit(0)
    tickets = [bench.submit(0), bench.submit(1)]
    bench.finish()
    setattr(bench.lanes[0], "wait" if late else "submit", fail)
    waits: list[Callable[[], None]] = [lambda t=ticket: bench.batcher.wait(t) for ticket in tickets]
    if not late:
        bench.batcher.wait(first)
    for wait in waits:
        with pytest.raises(DeviceFailed, match="illegal address"):
            wait()


def test_the_thread_that_keeps_time_ends_when_it_has_none_to_keep() -> None:
    bench = Bench(wait_s=0.01)
    both_present(bench)
    before = set(threading.enumerate())
    first = bench.submit(0)
    until(bench.names)
    (clock,) = set(threading.enumerate()) - before
    clock.join(TIMEOUT_S)
    assert not clock.is_alive()
    bench.batcher.wait(first)
    both_present(bench)
    bench.submit(0)
    until(lambda: len(bench.names()) == 2)


def test_a_seat_is_left_by_forgetting_it() -> None:
    batcher = Batcher([RecordingLane([])], (1,))
    seats = [batcher.seat(0.0), batcher.seat(0.0)]
    assert isinstance(seats[0], Seat)
    assert batcher.seats == 2
    del seats[0]
    assert batcher.seats == 1


@pytest.mark.parametrize(
    ("size", "batches"),
    [
        ((320, 180), (1, 2, 4, 8)),
        ((640, 360), (1, 2, 4, 8)),
        ((360, 640), (1, 2, 4, 8)),
        ((854, 480), (1, 2, 4)),
        ((1280, 720), (1, 2)),
        ((1920, 1080), (1,)),
    ],
)
def test_large_frames_go_in_smaller_batches(size: tuple[int, int], batches: tuple[int, ...]) -> None:
    assert batch_sizes(*size) == batches
