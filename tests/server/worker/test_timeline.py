from itertools import pairwise

import pytest

from server.worker.ingest.timeline import TOLERANCE_S, Timeline, Track

SECOND_NS = 1_000_000_000


def at(timeline: Timeline, timestamp_s: float | None, arrival_s: float, track: Track = "picture") -> float:
    return timeline.at(track, timestamp_s, round(arrival_s * SECOND_NS))


def test_spacing_is_the_sources_whatever_the_network_does_to_arrivals():
    timeline = Timeline()
    stamps = [0.0, 0.04, 0.047, 0.3, 0.31]
    jitter = [0.0, 0.03, -0.01, 0.12, 0.0]
    out = [at(timeline, 5 + s, 100 + s + j) for s, j in zip(stamps, jitter, strict=True)]
    assert out == pytest.approx([100 + s for s in stamps])


def test_sound_and_picture_share_one_anchor():
    timeline = Timeline()
    assert at(timeline, 7.0, 50.0, "sound") == pytest.approx(50.0)
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
        lead_s = 0.05  # what the first second left
        assert abs(at(timeline, n / 25 * rate, arrival_s) - arrival_s) <= TOLERANCE_S + lead_s


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


def broadcast(timeline: Timeline, *, seconds: float, apart_s: float, jump_s: float = 0.0):
    """(track, source's time, presentation) of packets whose sound arrives `apart_s` after its picture; the
    source's clock jumps in the middle, for each track when its packets of that moment arrive."""
    packets = [("picture", n / 10, n / 10) for n in range(round(seconds * 10))]
    packets += [("sound", n / 50, n / 50 + apart_s) for n in range(round(seconds * 50))]
    for track, moment_s, sent_s in sorted(packets, key=lambda packet: packet[2]):
        jumped_s = jump_s if moment_s >= seconds / 2 else 0.0
        yield track, moment_s, at(timeline, 900 + moment_s + jumped_s, 100 + sent_s, track)


@pytest.mark.parametrize("apart_s", [-1.8, 0.0, 1.5, 3.0])
def test_sound_sent_long_after_its_picture_stays_with_it_and_both_keep_their_pace(apart_s):
    shifts = {
        (track, round(presented_s - moment_s, 3))
        for track, moment_s, presented_s in broadcast(Timeline(), seconds=60, apart_s=apart_s)
        if moment_s > 2
    }
    assert {track for track, _ in shifts} == {"picture", "sound"}
    assert len({shift for _, shift in shifts}) == 1


@pytest.mark.parametrize("jump_s", [-95_443.7, -20.0, 8.0])
def test_a_jump_of_the_clock_keeps_sound_and_picture_together(jump_s):
    packets = list(broadcast(Timeline(), seconds=60, apart_s=1.5, jump_s=jump_s))
    for moments in (range(3, 29), range(33, 60)):
        shifts = [p - m for _, m, p in packets if moments.start <= m < moments.stop]
        assert max(shifts) - min(shifts) < 0.01
    steps = [b - a for a, b in pairwise([p for track, _, p in packets if track == "picture"][10:])]
    assert steps == pytest.approx([0.1] * len(steps), abs=0.001)


def test_sound_on_a_clock_of_its_own_does_not_disturb_the_picture():
    timeline = Timeline()
    for n in range(500):
        assert at(timeline, 7000 + n / 25, 100 + n / 25, "sound") == pytest.approx(100 + n / 25)
        assert at(timeline, n / 25, 100 + n / 25) == pytest.approx(100 + n / 25)


@pytest.mark.parametrize("drift", [100e-6, -100e-6])
def test_a_drifting_clock_is_followed_without_a_step(drift):
    """Six hours of a camera whose crystal is off by 100 ppm."""
    timeline = Timeline()
    arrivals = [100 + n / 5 for n in range(5 * 6 * 3600)]
    out = [at(timeline, (arrival_s - 100) * (1 + drift), arrival_s) for arrival_s in arrivals]
    assert max(abs(b - a - 0.2) for a, b in pairwise(out)) < 0.001
    assert max(abs(o - arrival_s) for o, arrival_s in zip(out, arrivals, strict=True)) < 0.1
