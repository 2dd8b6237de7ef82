"""The ring of each reader: nobody waits, who lags skips to a keyframe, and what is lost is counted."""

import asyncio
from dataclasses import dataclass

import pytest

from server.gateway.fanout.fanout import FEEDBACK_AT_ONCE, Fanout, Feedback, ReaderClosed
from server.gateway.fanout.keyframes import MIN_INTERVAL_S, KeyframeRequests
from tests.server.gateway.scripted_gateway import until

EVERY_S = 2.0


@dataclass(frozen=True)
class Frame:
    number: int
    keyframe: bool = False


class Encoder:
    """What a fan-out asks and tells."""

    def __init__(self, capacity: int) -> None:
        self.asked = 0
        self.lost = 0
        self.readers: list[int] = []
        self.now_s = 0.0
        self.fanout: Fanout[Frame] = Fanout(
            capacity=capacity,
            feedback=Feedback(EVERY_S),
            on_need_keyframe=self._ask,
            on_drop=self._lose,
            on_readers=self.readers.append,
            clock=lambda: self.now_s,
        )

    def _ask(self) -> None:
        self.asked += 1

    def _lose(self, count: int) -> None:
        self.lost += count

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.now_s += 0.5
            self.fanout.publish(frame)


async def test_a_reader_starts_at_a_keyframe_it_asked_for():
    encoder = Encoder(capacity=8)
    reader = encoder.fanout.join()
    assert encoder.asked == 1
    encoder.send(Frame(1), Frame(2), Frame(3, keyframe=True), Frame(4))
    assert [reader.take().number for _ in range(2)] == [3, 4]
    assert encoder.lost == 0
    assert encoder.asked == 3  # again while it waits: a request can get lost with its worker


async def test_a_slow_reader_skips_to_the_next_keyframe_while_another_sees_all():
    encoder = Encoder(capacity=3)
    slow, quick = encoder.fanout.join(), encoder.fanout.join()
    seen = []
    for number in range(12):
        encoder.send(Frame(number, keyframe=number in (0, 9)))
        seen.append(quick.take().number)
    assert seen == list(range(12))
    assert [slow.take().number for _ in range(3)] == [9, 10, 11]
    assert encoder.lost == 9  # 0, 1 and 2 with the ring, then all up to the keyframe
    assert encoder.asked > 2  # both joined, the slow one again


def feedback_of(encoder: Encoder, readers: list, frames: int, *, every: int = 10) -> int:
    """Keyframes that the readers cause by what they say at each frame of a stream."""
    before = encoder.asked
    for number in range(frames):
        encoder.send(Frame(number, keyframe=number % every == 0))
        for reader in readers:
            reader.skip()
            reader.ask_keyframe()
    return encoder.asked - before


async def test_viewers_that_keep_losing_cause_few_keyframes_together():
    encoder = Encoder(capacity=3)
    readers = [encoder.fanout.join() for _ in range(50)]
    caused = feedback_of(encoder, readers, 400)
    assert caused <= FEEDBACK_AT_ONCE + encoder.now_s / EVERY_S
    assert caused > 50


async def test_one_viewer_does_not_use_up_what_another_may_ask_for():
    encoder = Encoder(capacity=3)
    alone = feedback_of(encoder, [encoder.fanout.join()], 400)
    assert 0.2 < alone / (encoder.now_s / EVERY_S) < 0.3
    honest = encoder.fanout.join()
    encoder.send(Frame(400, keyframe=True))
    before = encoder.asked
    honest.ask_keyframe()
    assert encoder.asked == before + 1


async def test_a_viewer_joins_at_once_whatever_the_others_say():
    encoder = Encoder(capacity=3)
    feedback_of(encoder, [encoder.fanout.join() for _ in range(50)], 100)
    before = encoder.asked
    encoder.fanout.join()
    assert encoder.asked == before + 1


async def test_what_all_lose_together_costs_one_keyframe():
    encoder = Encoder(capacity=100)
    readers = [encoder.fanout.join() for _ in range(50)]
    for number in range(3 * FEEDBACK_AT_ONCE):
        encoder.send(*(Frame(number, keyframe=step == 0) for step in range(4)))
        before = encoder.asked
        for reader in readers:
            reader.ask_keyframe()
        assert encoder.asked == before + 1


async def test_a_reader_is_told_of_each_packet_and_of_the_end():
    encoder = Encoder(capacity=2)
    reader, taken = encoder.fanout.join(), []
    reader.on_ready = lambda: taken.append(reader.take())
    for number in range(3):
        assert reader.take() is None
        encoder.send(Frame(number, keyframe=True))
    assert [frame.number for frame in taken] == [0, 1, 2]
    reader.on_ready = lambda: taken.append("over")
    encoder.fanout.close()
    assert taken[3:] == ["over"]


async def test_who_leaves_when_told_costs_no_other_a_packet():
    encoder = Encoder(capacity=2)
    readers = [encoder.fanout.join() for _ in range(5)]
    for reader in readers[::2]:
        reader.on_ready = reader.close
    encoder.send(Frame(0, keyframe=True))
    assert [reader.take().number for reader in readers[1::2]] == [0, 0]
    assert len(encoder.fanout) == 2


async def test_a_full_ring_is_lost_to_the_next_packet_and_counted():
    encoder = Encoder(capacity=2)
    reader = encoder.fanout.join()
    encoder.send(Frame(0, keyframe=True), Frame(1))
    assert encoder.lost == 0
    encoder.send(Frame(2, keyframe=True))
    assert encoder.lost == 2
    encoder.send(Frame(3), Frame(4))
    assert encoder.lost == 2 + 3
    encoder.send(Frame(5, keyframe=True))
    assert encoder.lost == 5
    assert reader.take().number == 5


async def test_a_closed_reader_gives_nothing_more():
    encoder = Encoder(capacity=2)
    reader = encoder.fanout.join()
    encoder.send(Frame(0, keyframe=True))
    reader.close()
    with pytest.raises(ReaderClosed):
        reader.take()
    assert encoder.readers == [1, 0]


async def test_closing_ends_readers_and_those_to_come():
    encoder = Encoder(capacity=2)
    reader = encoder.fanout.join()
    encoder.fanout.close()
    with pytest.raises(ReaderClosed):
        reader.take()
    with pytest.raises(ReaderClosed):
        encoder.fanout.join().take()
    assert encoder.readers == [1, 0]
    assert len(encoder.fanout) == 0


async def test_requests_are_passed_on_at_once_and_then_at_most_twice_a_second():
    loop = asyncio.get_running_loop()
    times: list[float] = []
    requests = KeyframeRequests(lambda: times.append(loop.time()))
    for _ in range(50):
        requests.ask()
    assert len(times) == 1
    await until(lambda: len(times) == 2, "the second request")
    assert times[1] - times[0] >= MIN_INTERVAL_S - 0.01


async def test_a_keyframe_that_came_anyway_settles_a_waiting_request():
    times: list[float] = []
    requests = KeyframeRequests(lambda: times.append(0.0))
    requests.ask()
    requests.ask()
    requests.satisfied()
    await asyncio.sleep(MIN_INTERVAL_S + 0.1)
    assert len(times) == 1
