"""When packets are due, on a clock that goes on only by what is waited."""

import threading

import pytest

from server.worker.ingest import container
from server.worker.ingest.container import Pacer


class Clock(threading.Event):
    """As an event that is never set, it lets the time go by at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def wait(self, timeout: float | None = None) -> bool:
        self.now_s += timeout
        return False


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(container, "time", made)
    return made


@pytest.mark.parametrize(("stall_s", "waits_s"), [(5.0, 0.0), (0.25, 0.5)])
def test_after_a_late_packet_the_next_is_at_its_pace_or_hurries(clock, stall_s, waits_s):
    pacer = Pacer(clock, stall_s=stall_s)
    pacer.hold(0.0, video=True)
    clock.now_s += 1.5  # the packet of 0.5 s comes at 1.5 s
    pacer.hold(0.5, video=True)
    before_s = clock.now_s
    pacer.hold(1.0, video=True)
    assert clock.now_s - before_s == pytest.approx(waits_s)


@pytest.mark.parametrize("behind_s", [-1.5, -0.2, 0.0, 0.5, 3.0])
@pytest.mark.parametrize("each", [1, 5])
def test_sound_anywhere_beside_its_picture_changes_no_pace(clock, behind_s, each):
    pacer, start_s = Pacer(clock, stall_s=0.1, skip_s=1.0), clock.now_s
    for picture in range(250):  # ten seconds
        pacer.hold(picture / 25, video=True)
        assert clock.now_s - start_s == pytest.approx(picture / 25)
        for sound in range(2 * each) if picture % each == 0 else ():
            pacer.hold(picture / 25 + sound / 50 - behind_s, video=False)


def test_sound_between_rare_pictures_is_paced(clock):
    pacer, start_s = Pacer(clock), clock.now_s
    pacer.hold(0.0, video=True)
    for sound in range(250):
        pacer.hold(sound / 50, video=False)
        assert sound / 50 - 2 <= clock.now_s - start_s <= sound / 50
    assert clock.now_s - start_s > 2.5


@pytest.mark.parametrize("first", ["picture", "sound"])
def test_segments_that_were_skipped_are_not_waited_for(clock, first):
    pacer = Pacer(clock, stall_s=0.1, skip_s=1.0)
    for picture in range(25):
        pacer.hold(picture / 25, video=True)
        pacer.hold(picture / 25, video=False)
    before_s = clock.now_s
    pacer.hold(7.0, video=first == "picture")
    pacer.hold(7.0, video=first != "picture")
    assert clock.now_s == before_s
    pacer.hold(7.04, video=True)
    assert clock.now_s - before_s == pytest.approx(0.04)


def test_pictures_that_are_always_rare_are_all_waited_for(clock):
    pacer = Pacer(clock, stall_s=0.1, skip_s=1.0)
    pacer.hold(0.0, video=True)
    pacer.hold(5.0, video=True)
    before_s = clock.now_s
    pacer.hold(10.0, video=True)
    pacer.hold(15.0, video=True)
    assert clock.now_s - before_s == pytest.approx(10.0)


@pytest.mark.parametrize("skip_s", [1.0, 10.0])
def test_sound_of_the_time_before_a_jump_delays_nothing(clock, skip_s):
    pacer, start_s = Pacer(clock, skip_s=skip_s), clock.now_s
    for step in range(150):
        pacer.hold(step / 25, video=True)
        pacer.hold(step / 25 - 0.2, video=False)
    for step in range(50):  # the sound follows the picture back after a second
        pacer.hold(step / 25, video=True)
        pacer.hold(step / 25 + (5.8 if step < 25 else -0.2), video=False)
    assert clock.now_s - start_s == pytest.approx(200 / 25, abs=0.1)
