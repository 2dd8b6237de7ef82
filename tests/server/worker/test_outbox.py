"""A gateway that reads nothing for a while: who waits, who drops, and that the order is kept."""

import socket
import threading
from collections.abc import Iterator

import pytest

from server.wire.codec import Decoder
from server.wire.messages import Alive, AudioPacket, Heartbeat, Message, Reconnecting, Trace, VideoPacket
from server.worker.connection import Connection


def sound(number: int) -> AudioPacket:
    return AudioPacket(codec="opus", pts=number, duration=960, payload=bytes(4000))


def picture(number: int) -> VideoPacket:
    return VideoPacket(
        rendition="upscaled",
        pts=number,
        duration=3600,
        keyframe=True,
        arrival_ns=0,
        sent_ns=0,
        trace=Trace(demux=0, decode=0, queue=0, upscale=0, encode=0),
        payload=bytes(1 << 20),
    )


class Gateway:
    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self._theirs = theirs
        self.connection = Connection(theirs)
        self._decoder = Decoder()
        self._heard: list[Message] = []

    def read(self, count: int) -> list[Message]:
        """The next messages."""
        while len(self._heard) < count:
            self._heard += self._decoder.feed(self.socket.recv(1 << 16))
        messages, self._heard = self._heard[:count], self._heard[count:]
        return messages

    def close(self) -> None:
        self.socket.close()
        self.connection.finish()
        self.connection.close()
        self._theirs.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    one = Gateway()
    yield one
    one.close()


def in_a_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_sound_and_words_do_not_wait_for_a_stalled_gateway(gateway):
    taken: list[bool] = []

    def talk() -> None:
        taken.extend(gateway.connection.send(sound(number)) for number in range(1000))
        gateway.connection.send(Reconnecting(reason="lost", retry_in_s=1))

    talking = in_a_thread(talk)
    talking.join(20)
    assert not talking.is_alive(), "the source's thread waits for the gateway"
    sent = [number for number, was_taken in enumerate(taken) if was_taken]
    assert 200 <= len(sent) < 1000
    *sounds, last = gateway.read(len(sent) + 1)
    assert [packet.pts for packet in sounds] == sent
    assert isinstance(last, Reconnecting)


def test_one_sign_of_life_waits_for_a_stalled_gateway(gateway):
    """For an hour of them there is no room, and no need."""
    fills = in_a_thread(lambda: [gateway.connection.send(picture(number)) for number in range(3)])
    while not gateway.connection.held_up:
        pass
    assert gateway.connection.send(Alive())
    assert not gateway.connection.send(Alive())
    word = Reconnecting(reason="lost", retry_in_s=1.0)
    assert gateway.connection.send(word), "words have room of their own"
    heard = gateway.read(5)
    fills.join()
    assert [type(message) for message in heard].count(Alive) == 1
    assert word in heard


def test_pictures_wait_so_that_the_mailboxes_drop(gateway):
    done: list[int] = []

    def talk() -> None:
        for number in range(10):
            gateway.connection.send(picture(number))
            done.append(number)

    talking = in_a_thread(talk)
    gateway.read(1)
    gateway.connection.send(Heartbeat(queues={}, rss_bytes=1, cpu_s=0))  # goes past what waits for room
    assert len(done) < 10
    messages = gateway.read(10)
    talking.join(20)
    assert len(done) == 10
    assert any(isinstance(message, Heartbeat) for message in messages)


def test_the_last_word_leaves_the_process(gateway):
    for number in range(2):
        gateway.connection.send(picture(number))
    gateway.connection.send(Reconnecting(reason="last", retry_in_s=0))
    closing = in_a_thread(gateway.connection.finish)
    assert gateway.read(3)[-1] == Reconnecting(reason="last", retry_in_s=0)
    closing.join(20)
    assert not closing.is_alive()


def test_a_gateway_that_has_gone_holds_nobody_up(gateway):
    talking = in_a_thread(lambda: [gateway.connection.send(picture(number)) for number in range(10)])
    gateway.socket.close()
    talking.join(20)
    assert not talking.is_alive()
