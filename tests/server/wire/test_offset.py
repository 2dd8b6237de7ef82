"""Another machine's clock, estimated over round trips of any length, and what is no drift any more."""

import random

import pytest

from server.wire.offset import ClockJumped, ClockOffset

OFFSET_NS = 7_000_000_000_000  # that machine is up for so much longer


def round_trip(clock: ClockOffset, now_ns: int, there_ns: int, back_ns: int, offset_ns: int) -> None:
    heard_ns = now_ns + there_ns + offset_ns
    clock.add(
        asked_ns=now_ns,
        heard_ns=heard_ns,
        told_ns=heard_ns + 20_000,
        answered_ns=now_ns + there_ns + 20_000 + back_ns,
    )


def test_the_error_is_bounded_however_long_each_way_takes():
    chance, clock, worst_ns = random.Random(7), ClockOffset(), 0
    for number in range(400):
        there_ns, back_ns = (200_000 + int(chance.expovariate(1 / 5e6)) for _ in range(2))
        drifted_ns = OFFSET_NS + number * 200_000_000 * 20 // 1_000_000  # 20 ppm
        round_trip(clock, number * 200_000_000, there_ns, back_ns, drifted_ns)
        error_ns = abs(clock.offset_ns - drifted_ns)
        assert error_ns <= clock.error_ns
        if number > 8:
            worst_ns = max(worst_ns, clock.error_ns)
    assert worst_ns < 6_000_000, "the shortest of eight round trips is what counts"


@pytest.mark.parametrize("jump_s", [0.2, -0.2, 3600.0])
def test_a_clock_that_jumps_is_noticed_by_the_next_round_trip(jump_s: float):
    clock = ClockOffset()
    for number in range(10):
        round_trip(clock, number * 200_000_000, 1_000_000, 9_000_000, OFFSET_NS)
    with pytest.raises(ClockJumped, match=r"jumped by -?[\d.]+ s"):
        round_trip(clock, 2_000_000_000, 1_000_000, 1_000_000, OFFSET_NS + round(jump_s * 1e9))


def test_a_slow_network_is_no_jump():
    clock = ClockOffset()
    for there_ns, back_ns in ((1_000_000, 1_000_000), (800_000_000, 1_000_000), (1_000_000, 900_000_000)):
        round_trip(clock, 1_000_000_000, there_ns, back_ns, OFFSET_NS)
    assert abs(clock.offset_ns - OFFSET_NS) <= 1_000_001


def test_an_answer_from_before_the_question_is_refused():
    with pytest.raises(ValueError, match="delay_ns=-5"):
        ClockOffset().add(asked_ns=10, heard_ns=0, told_ns=0, answered_ns=5)
