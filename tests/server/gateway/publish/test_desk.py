"""Worker and publisher come and go without each other: nobody begins where a decoder can't."""

import pytest

from server.gateway.publish.desk import Desk
from server.wire.messages import PublishedData
from tests.server.gateway.publish.handmade import Worker


class Publisher:
    shown = "192.0.2.1"
    format = "flv"
    description = b""

    def __init__(self) -> None:
        self.hung_up = ""
        self.asked = 0

    def hang_up(self, reason: str) -> None:
        self.hung_up = reason

    def request_key_frame(self) -> None:
        self.asked += 1

    def prelude(self) -> bytes:
        return b"<file>"

    def headers(self) -> bytes:
        return b"<headers>"


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("server.gateway.publish.desk.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def worker() -> Worker:
    worker = Worker(None)
    worker.desk = Desk("s", timeout_s=10.0, override=False, send=worker.send, on_drop=worker.count)
    return worker


def push(desk: Desk, publisher: Publisher, *pieces: str) -> None:
    """A picture each: "K" is a key frame, "H" a header."""
    kinds = {"K": "start", "H": "header"}
    for piece in pieces:
        desk.push(
            publisher, piece.encode(), kinds.get(piece[0], "rest"), picture=piece[0] != "H", arrival_ns=5
        )


def test_a_worker_that_waits_gets_everything_from_the_start(worker):
    worker.desk.await_publisher(1)
    publisher = Publisher()
    assert worker.desk.accept(publisher, publisher)
    push(worker.desk, publisher, "H", "K1", "p2")
    assert worker.data == b"<file>HK1p2"


def test_a_new_worker_begins_with_the_headers_and_the_next_key_frame(worker):
    publisher = Publisher()
    assert worker.desk.accept(publisher, publisher)
    worker.desk.await_publisher(1)
    push(worker.desk, publisher, "H", "K1", "p2")
    worker.desk.worker_gone()
    push(worker.desk, publisher, "p3", "H4")
    worker.messages.clear()
    worker.desk.await_publisher(1)
    push(worker.desk, publisher, "p5", "H6", "K7", "p8")
    assert worker.data == b"<file><headers>K7p8"
    assert not publisher.hung_up
    assert worker.drops == 0


def test_a_slow_worker_costs_pictures_until_the_next_key_frame(worker):
    publisher = Publisher()
    worker.desk.await_publisher(1)
    worker.desk.accept(publisher, publisher)
    push(worker.desk, publisher, "K1", "p2")
    worker.slow = True
    push(worker.desk, publisher, "p3", "K4", "H", "p5")
    worker.slow = False
    push(worker.desk, publisher, "p6", "K7", "p8")
    assert worker.data == b"<file>K1p2<headers>K7p8"
    assert worker.drops == 4
    assert publisher.asked > 1, "for a key frame, as it began and when it was slow"


def test_without_key_frames_the_decoder_gets_what_there_is_in_the_end(worker, clock):
    publisher = Publisher()
    worker.desk.accept(publisher, publisher)
    push(worker.desk, publisher, "p1")
    worker.desk.await_publisher(1)
    push(worker.desk, publisher, "p2", "p3")
    clock[0] += 5
    push(worker.desk, publisher, "p4")
    # Meanwhile the worker hears that its publisher is there.
    signs = [m for m in worker.messages if isinstance(m, PublishedData)]
    assert [m.data for m in signs] == [b"", b""]
    clock[0] += 6
    push(worker.desk, publisher, "p5")
    assert worker.data == b"<file><headers>p5"


def test_what_a_publisher_sends_that_was_replaced_is_not_heard(worker, clock):
    first, second = Publisher(), Publisher()
    worker.desk.await_publisher(1)
    assert worker.desk.accept(first, first)
    push(worker.desk, first, "K1")
    assert not worker.desk.accept(second, second)
    clock[0] += 11
    assert worker.desk.accept(second, second)
    assert first.hung_up
    push(worker.desk, first, "K2")
    worker.desk.leave(first, "gone")
    worker.desk.await_publisher(2)
    push(worker.desk, second, "K3")
    assert worker.data == b"<file>K1<file>K3"
    assert len(worker.gone) == 1


def test_nothing_is_sent_to_a_worker_that_does_not_wait(worker):
    publisher = Publisher()
    worker.desk.accept(publisher, publisher)
    push(worker.desk, publisher, "K1")
    worker.desk.leave(publisher, "gone")
    worker.desk.close()
    assert worker.messages == []
