"""Packets as a publisher's network has them: late, twice, lost, and numbered past the wrap."""

import random

import pytest

from server.gateway.webrtc.inbound.frames import Frames
from server.gateway.webrtc.inbound.order import MOST_WAITING, Lost, Order, Packet

BEGINS, GOES_ON = b"\x10\0\0", b"\x10\1\0"  # of VP8: a key frame, another one


def packet(number: int, time: int = 0, payload: bytes = GOES_ON, marker: bool = True) -> Packet:
    return Packet(number % (1 << 16), time, marker, payload, 1000 + number)


def given(items) -> list[int | str]:
    return ["lost" if isinstance(item, Lost) else item.number for item in items]


@pytest.mark.parametrize("first", [0, 65_530])
def test_packets_come_out_in_order_whatever_order_they_came_in(first):
    order, out = Order(patience_s=1.0), []
    numbers = list(range(first, first + 60))
    shuffled = [numbers[0], *sorted(numbers[1:], key=lambda n: n + random.Random(n).uniform(0, 8))]
    for number in shuffled:
        out += given(order.add(packet(number), 0.0))
        out += given(order.add(packet(number), 0.0))
    assert out == [number % (1 << 16) for number in numbers]


def test_what_is_missing_is_asked_for_again_and_again_until_it_is_given_up():
    order = Order(patience_s=0.2)
    assert given(order.add(packet(65_534), 0.0)) == [65_534]
    assert given(order.add(packet(65_539), 0.0)) == []
    assert order.ask(0.0) == [[65_535], [0, 1, 2]], "a NACK doesn't span the wrap"
    assert order.ask(0.01) == []
    assert given(order.add(packet(65_536), 0.02)) == []
    assert order.ask(0.06) == [[65_535], [1, 2]]
    assert given(order.expire(0.1)) == []
    assert given(order.expire(0.21)) == ["lost", 0, "lost", 3]
    assert order.ask(0.3) == []
    assert given(order.add(packet(65_535), 0.3)) == [], "too late"


def test_a_sender_that_counts_anew_is_followed():
    order = Order(patience_s=0.2)
    list(order.add(packet(1000), 0.0))
    assert given(order.add(packet(1000 + MOST_WAITING), 0.0)) == [], "one more would wait too long"
    assert given(order.add(packet(20_000), 0.0)) == ["lost", 20_000]
    out = [item for number in range(300, 400) for item in given(order.add(packet(number), 0.0))]
    assert out[0] == "lost"
    assert out[1:] == list(range(400 - len(out) + 1, 400))


def test_probes_that_send_old_packets_again_are_no_new_count():
    order = Order(patience_s=0.2)
    list(order.add(packet(1000), 0.0))
    assert not [item for _ in range(200) for item in order.add(packet(900), 0.0, again=True)]
    assert given(order.add(packet(1001), 0.0)) == [1001]


def test_nothing_waits_beyond_its_bound():
    order = Order(patience_s=1e9)
    list(order.add(packet(0), 0.0))
    for number in range(2, 5000):
        list(order.add(packet(number), 0.0))
    assert len(order._waiting) + len(order._missing) <= 2 * MOST_WAITING


def frames(*packets: Packet | None) -> tuple[list[list[int]], Frames]:
    """Numbers of the packets of each frame that is given; None is a loss."""
    made, out = Frames("VP8"), list[list[int]]()
    for one in packets:
        if one is None:
            made.lost()
        else:
            out += [[p.number for p in frame.packets] for frame in made.add(one)]
    return out, made


def test_frames_begin_with_a_key_frame_and_end_with_the_marker_or_the_next_one():
    out, made = frames(
        packet(0, 1),
        packet(1, 2, BEGINS, marker=False),
        packet(2, 2),
        packet(3, 3, marker=False),
        packet(4, 4),
        packet(5, 5, b""),
    )
    assert out == [[1, 2], [3], [4]]
    assert made.dropped == 1


def test_after_a_loss_the_rest_of_a_key_frame_is_none():
    out, made = frames(
        packet(0, 1, BEGINS),
        packet(1, 2, BEGINS, marker=False),
        None,
        packet(3, 2),
        packet(4, 3),
        packet(5, 4, BEGINS),
    )
    assert out == [[0], [5]]
    assert made.dropped == 2
