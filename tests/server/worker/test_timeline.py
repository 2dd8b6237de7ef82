import pytest

from server.worker.ingest.timeline import TOLERANCE_S, Timeline

SECOND_NS = 1_000_000_000


def at(timeline: Timeline, timestamp_s: float | None, arrival_s: float) -> float:
    return timeline.at(timestamp_s, round(arrival_s * SECOND_NS))


def test_spacing_is_the_sources_whatever_the_network_does_to_arrivals():
    timeline = Timeline()
    stamps = [0.0, 0.04, 0.047, 0.3, 0.31]
    jitter = [0.0, 0.03, -0.01, 0.12, 0.0]
    out = [at(timeline, 5 + s, 100 + s + j) for s, j in zip(stamps, jitter, strict=True)]
    assert out == pytest.approx([100 + s for s in stamps])


def test_sound_and_picture_share_one_anchor():
    timeline = Timeline()
    assert at(timeline, 7.0, 50.0) == pytest.approx(50.0)  # sound comes first
    assert at(timeline, 7.2, 50.03) == pytest.approx(50.2)


@pytest.mark.parametrize("jump_s", [-3600.0, -5.0, 30.0, 95_443.7])
def test_a_jump_of_the_sources_clock_moves_the_anchor(jump_s):
    timeline = Timeline()
    for n in range(50):
        at(timeline, n / 25, 10 + n / 25)
    assert at(timeline, 2 + jump_s, 12.0) == pytest.approx(12.0)
    assert at(timeline, 2.04 + jump_s, 12.04) == pytest.approx(12.04)


@pytest.mark.parametrize("rate", [0.97, 1.03])
def test_a_clock_of_another_speed_never_leads_or_lags_by_more_than_the_tolerance(rate):
    timeline = Timeline()
    for n in range(25 * 200):
        arrival_s = 1000 + n / 25
        assert abs(at(timeline, n / 25 * rate, arrival_s) - arrival_s) <= TOLERANCE_S


def test_a_burst_at_the_start_is_not_taken_for_the_future():
    timeline = Timeline()
    for n in range(20):  # 0.8 s of pictures that a server had kept, all at once
        at(timeline, n / 25, 30 + n / 10_000)
    live = [at(timeline, (20 + n) / 25, 30.04 + n / 25) - (30.04 + n / 25) for n in range(100)]
    assert max(live) <= 0.25


def test_without_a_timestamp_a_packet_is_presented_as_it_arrives():
    assert at(Timeline(), None, 3.5) == 3.5


def test_after_a_reset_the_next_packet_is_the_anchor():
    timeline = Timeline()
    at(timeline, 0.0, 10.0)
    timeline.reset()
    assert at(timeline, 0.5, 10.2) == pytest.approx(10.2)
