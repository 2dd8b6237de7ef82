"""What a sender reads of our feedback is what has come, as the reader of others' feedback has it."""

import random

from aiortc.rtp import RTCP_HEADER_LENGTH

from server.gateway.webrtc.feedback import split_feedback
from server.gateway.webrtc.inbound.transport_feedback import TransportFeedback

SECOND_NS = 1_000_000_000


def told(feedback: TransportFeedback) -> dict[int, float | None]:
    """When each packet came, in seconds after the first that did."""
    data = feedback.take(1, 2)
    assert data is not None
    assert len(data) == RTCP_HEADER_LENGTH + 4 * int.from_bytes(data[2:4])
    ((arrivals,), rest) = split_feedback(data)
    assert rest == b""
    first = next(at for at in arrivals.at_s if at is not None)
    return {
        (arrivals.first + i) % (1 << 16): None if at is None else at - first
        for i, at in enumerate(arrivals.at_s)
    }


def test_arrivals_and_losses_are_told():
    feedback, rng = TransportFeedback(), random.Random(1)
    at_ns, came = 5000 * SECOND_NS, {}
    for number in range(65_500, 65_700):
        at_ns += rng.randrange(20_000_000)
        if rng.random() < 0.7:
            came[number % (1 << 16)] = at_ns
            feedback.arrived(number % (1 << 16), at_ns)
    first, first_ns = next(iter(came.items()))
    seen = told(feedback)
    assert next(iter(seen)) == first
    assert {n for n, at in seen.items() if at is not None} == set(came)
    for number, at_ns in came.items():
        assert abs(seen[number] - (at_ns - first_ns) / 1e9) < 0.001
    assert feedback.take(1, 2) is None, "once"


def test_each_feedback_begins_where_the_last_ended():
    feedback = TransportFeedback()
    feedback.arrived(10, 0)
    feedback.arrived(12, 1_000_000)
    assert list(told(feedback)) == [10, 11, 12]
    feedback.arrived(11, 2_000_000)  # it has been said to be lost
    feedback.arrived(15, 3_000_000)
    assert told(feedback) == {13: None, 14: None, 15: 0.0}


def test_a_jump_of_the_numbers_is_no_feedback_about_thousands():
    feedback = TransportFeedback()
    feedback.arrived(10, 0)
    feedback.arrived(30_000, 1_000_000)
    assert list(told(feedback)) == [30_000]
