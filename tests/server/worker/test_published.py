"""What is published as a source: what the gateway sends, and what becomes of it in the worker."""

import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from server.wire.messages import AwaitPublisher, Published, PublishedData, PublisherGone
from server.worker.ingest.handover import Handover
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.published import PublishedSource
from server.worker.ingest.source import PublisherLost

SECOND_NS = 1_000_000_000


class Gateway:
    """The other end of an inbox."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.drops = 0
        self.inbox = PublisherInbox(send=self.sent.append, on_drop=self._count)
        self.stop = threading.Event()

    def _count(self) -> None:
        self.drops += 1

    def send(self, kind: str, data: bytes, at_s: float = 0.0, opening: int = 1) -> None:
        arrival_ns = round(at_s * SECOND_NS)
        self.inbox.put(PublishedData(opening=opening, kind=kind, data=data, arrival_ns=arrival_ns))

    def taken(self) -> list[bytes]:
        found = []
        while (message := self.inbox.take(0, self.stop)) is not None:
            assert isinstance(message, PublishedData)
            found.append(message.data)
        return found


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_what_was_sent_for_another_opening_is_forgotten(gateway):
    gateway.inbox.await_publisher()
    gateway.send("start", b"old")
    gateway.inbox.await_publisher()
    gateway.send("start", b"late", opening=1)
    gateway.send("start", b"new", opening=2)
    assert gateway.taken() == [b"new"]
    assert gateway.sent == [AwaitPublisher(opening=1), AwaitPublisher(opening=2)]


def test_a_slow_decoder_goes_on_at_a_key_frame_and_knows_the_headers(gateway):
    gateway.inbox.await_publisher()
    for kind, data, at_s in (
        ("start", b"K0", 0),
        ("rest", b"p1", 1),
        ("rest", b"p4", 4),
        ("header", b"H", 4.1),
    ):
        gateway.send(kind, data, at_s)
    gateway.send("start", b"K5", 5)  # K0 still waits
    assert gateway.taken() == [b"K0", b"p1", b"H"]
    gateway.send("rest", b"p6", 6)
    gateway.send("start", b"K7", 7)
    gateway.send("rest", b"p8", 8)
    assert gateway.taken() == [b"K7", b"p8"]
    assert gateway.drops == 3


def test_memory_is_bounded(gateway):
    gateway.inbox.await_publisher()
    for kind in ("start", "header"):
        for _ in range(20):
            gateway.send(kind, bytes(1 << 20))
    assert len(gateway.taken()) == 8
    assert gateway.drops == 32


def source(gateway: Gateway, timeout_s: float = 5.0) -> PublishedSource:
    return PublishedSource(
        "rtmp://127.0.0.1/live/SECRET?listen=1",
        gateway.inbox,
        max_size=(1920, 1080),
        timeout_s=timeout_s,
        stop=gateway.stop,
    )


def lost(source: PublishedSource) -> str:
    with pytest.raises(PublisherLost) as failure:
        source.open()
    source.close()
    assert "SECRET" not in str(failure.value)
    return str(failure.value)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no publisher within 0.3 s"),
        ([PublisherGone(opening=1, reason="port 1935 can't be had")], "port 1935 can't be had"),
        ([Published(opening=1, format="flv")], "nothing arrived within 0.3 s"),
        ([Published(opening=1, format="rtsp", description=b"v=0\r\n")], "it has no video stream"),
        (
            [
                Published(opening=1, format="flv"),
                PublishedData(opening=1, kind="start", data=b"no FLV" * 100, arrival_ns=1),
                PublisherGone(opening=1, reason="the publisher has gone"),
            ],
            "the publisher has gone",
        ),
    ],
)
def test_why_there_is_no_picture_is_said(gateway, messages, reason):
    asked = threading.Thread(target=lambda: _answer(gateway, messages))
    asked.start()
    assert reason in lost(source(gateway, 0.3))
    asked.join()


def _answer(gateway: Gateway, messages) -> None:
    deadline_s = time.monotonic() + 10
    while not gateway.sent and time.monotonic() < deadline_s:
        time.sleep(0.01)
    for message in messages:
        gateway.inbox.put(message)


def test_a_stopped_source_does_not_wait(gateway):
    gateway.stop.set()
    started_s = time.monotonic()
    lost(source(gateway, 60.0))
    assert time.monotonic() - started_s < 30


def test_who_does_not_know_the_secret_gets_no_stream_and_keeps_nobody_out(gateway):
    handover = Handover(gateway.inbox, b"v=0\r\n", timeout_s=30.0)
    try:
        parts = urlsplit(handover.url)
        for path in ("/", "/guess"):
            with socket.create_connection((parts.hostname, parts.port), 10) as stranger:
                stranger.sendall(f"DESCRIBE rtsp://127.0.0.1{path} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
                assert stranger.recv(100) == b""
        with (
            socket.create_connection((parts.hostname, parts.port), 10) as silent,
            socket.create_connection((parts.hostname, parts.port), 10) as libav,
        ):
            assert silent.recv(100) == b""
            libav.sendall(f"DESCRIBE {handover.url} RTSP/1.0\r\nCSeq: 7\r\n\r\n".encode())
            answer = libav.recv(1000)
            assert b"CSeq: 7" in answer
            assert answer.endswith(b"v=0\r\n")
    finally:
        handover.close()
