"""A body is taken as it comes, however slowly it is read."""

import threading
import time

from server.worker.ingest.ahead import Ahead

_FULL = (8 << 20) // (1 << 15) + 1  # parts


class SlowBody:
    """Gives a part each time it is told to; ends when it is aborted."""

    def __init__(self) -> None:
        self._more = threading.Semaphore(0)
        self._aborted = False
        self.given_ns: list[int] = []
        self.closed = False

    def let(self, parts: int = 1) -> None:
        for _ in range(parts):
            self._more.release()

    def read(self, size: int, /) -> bytes:
        self._more.acquire()
        if self._aborted:
            return b""
        self.given_ns.append(time.monotonic_ns())
        return bytes([len(self.given_ns) % 256]) * size

    def abort(self) -> None:
        self._aborted = True
        self._more.release()

    def close(self) -> None:
        self.closed = True


def until(done) -> None:
    deadline_s = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_what_is_read_late_is_known_to_have_come_early():
    body, arrivals = SlowBody(), []
    ahead = Ahead(body, on_read=lambda data, arrival_ns: arrivals.append(arrival_ns))
    body.let(2)
    until(lambda: len(body.given_ns) == 2)
    late_ns = time.monotonic_ns() + 300_000_000
    until(lambda: time.monotonic_ns() > late_ns)
    assert ahead.read(4) == b"\1\1\1\1"
    while (data := ahead.read(1 << 20))[:1] == b"\1":
        pass
    assert data[:1] == b"\2"
    assert len(arrivals) == 2
    assert body.given_ns[1] <= arrivals[1] < late_ns
    ahead.close()
    assert body.closed


def test_no_more_is_taken_than_there_is_room_for():
    body = SlowBody()
    ahead = Ahead(body, on_read=lambda data, arrival_ns: None)
    body.let(1000)
    until(lambda: len(body.given_ns) == _FULL)
    ahead.read(1)
    until(lambda: len(body.given_ns) == _FULL + 1)
    ahead.close()


def test_who_waits_for_a_body_can_let_it_go():
    ahead = Ahead(SlowBody(), on_read=lambda data, arrival_ns: None)
    ahead.close()
    assert ahead.read(1) == b""
