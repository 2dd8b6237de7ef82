"""The ring of lanes by itself: what it takes while every lane is busy, and that no thread of it is silent."""

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from server.wire.clock import now_ns
from server.wire.logs import get_logger
from server.worker.process.ladder import Ladder
from server.worker.process.mailbox import Closed, Mailbox
from server.worker.process.picture import Picture
from server.worker.process.ring import Ring, Upscaled
from server.worker.process.supply import LoadEngine
from tests.server.worker.small_engine import DoublingEngine
from tests.server.worker.test_pipeline import picture

LOG = get_logger("test")
TIMEOUT_S = 30.0


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Turning:
    """A ring with one lane, its threads running. Who holds `engine.busy` keeps the lane from finishing."""

    def __init__(self, load: LoadEngine | None = None) -> None:
        self.engine = DoublingEngine(160, 96)
        self.dropped: list[Picture] = []
        self.inbox: Mailbox[Picture] = Mailbox(1, on_drop=self.dropped.append)
        self.outbox: Mailbox[Upscaled] = Mailbox(4, on_drop=None)
        self.ends: dict[str, BaseException | None] = {}
        self._beats: Counter[str] = Counter()
        self.ring = Ring(
            Ladder(load or (lambda *_: self.engine), (), level=lambda: 0, lanes=1, stand_in=None, log=LOG),
            inbox=self.inbox,
            outbox=self.outbox,
            beat=lambda name: self._beats.update([name]),
        )
        self._threads = [
            threading.Thread(target=self._run, args=(part,), daemon=True)
            for part in (self.ring.submit_all, self.ring.collect_all)
        ]

    def _run(self, part: Callable[[], None]) -> None:
        try:
            part()
            self.ends[part.__name__] = None
        except BaseException as exc:
            self.ends[part.__name__] = exc

    def __enter__(self) -> "Turning":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.abort()
        self.inbox.abort()
        self.outbox.abort()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()

    def until_it_beats(self, name: str, times: int = 1) -> None:
        enough = self._beats[name] + times
        until(lambda: self._beats[name] >= enough)

    def next(self) -> Upscaled:
        upscaled = self.outbox.take(TIMEOUT_S)
        assert upscaled is not None
        return upscaled


def test_a_picture_that_finds_every_lane_busy_waits_where_a_newer_one_replaces_it():
    pictures = [picture(number) for number in range(4)]
    with Turning() as turning:
        with turning.engine.busy:
            turning.inbox.put(pictures[0])
            until(lambda: len(turning.inbox) == 0)
            for waiting in pictures[1:3]:
                turning.inbox.put(waiting)
                turning.until_it_beats("submit")
            assert [dropped.pts for dropped in turning.dropped] == [pictures[1].pts]
            released_ns = now_ns()
        first, second = turning.next(), turning.next()
        assert [first.picture.pts, second.picture.pts] == [pictures[0].pts, pictures[2].pts]
        assert first.taken_ns <= released_ns <= min(first.upscaled_ns, second.taken_ns)
        turning.until_it_beats("submit", 2)  # a turn without a picture costs no lane
        turning.inbox.put(pictures[3])
        assert turning.next().picture is pictures[3]


def test_an_idle_ring_says_that_it_lives():
    with Turning() as turning:
        turning.until_it_beats("submit", 2)
        turning.until_it_beats("collect", 2)


def test_a_ring_that_waits_for_its_engine_says_that_it_lives():
    loaded = threading.Event()

    def load(width, height, colour):
        assert loaded.wait(TIMEOUT_S)
        return DoublingEngine(width, height)

    with Turning(load) as turning:
        turning.inbox.put(picture(0))
        until(lambda: len(turning.inbox) == 0)
        turning.until_it_beats("submit", 2)
        assert turning.ring.loading
        loaded.set()
        turning.next()
        assert not turning.ring.loading


def test_where_nobody_takes_what_comes_out_both_threads_end():
    with Turning() as turning:
        turning.outbox.abort()
        while len(turning.ends) < 2:
            turning.inbox.put(picture(0))
            time.sleep(0.01)
    for end in turning.ends.values():
        with pytest.raises(Closed):
            raise end
