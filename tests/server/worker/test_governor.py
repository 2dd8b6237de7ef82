"""When the governor steps, and when it leaves a stream alone."""

import pytest

from server.worker.process.governor import Governor, usual_budget_s

FRAME_S = 0.04
GOOD_S, LATE_S = 0.03, 0.2


class Course:
    """A governor fed a frame each 40 ms of a clock of its own."""

    def __init__(self, levels: int = 3, **options) -> None:
        self.now_s = 100.0
        self.steps: list[tuple[float, int]] = []
        self.governor = Governor(
            levels=levels,
            on_step=lambda level, reason: self.steps.append((round(self.now_s, 2), level)),
            clock_s=lambda: self.now_s,
            **options,
        )

    def run(self, duration_s: float, latency_s: float, *, every: int = 1) -> "Course":
        """`every`: only each such frame is that late."""
        for number in range(round(duration_s / FRAME_S)):
            self.now_s += FRAME_S
            late = number % every == every - 1
            self.governor.frame(self.governor.level, latency_s if late else GOOD_S, FRAME_S)
        return self

    @property
    def levels(self) -> list[int]:
        return [level for _, level in self.steps]


def test_the_budget_is_three_intervals_and_at_most_150_ms():
    assert usual_budget_s(1 / 30) == pytest.approx(0.1)
    assert usual_budget_s(1 / 5) == pytest.approx(0.15)


def test_frames_in_time_change_nothing():
    assert Course().run(60, GOOD_S).steps == []


def test_it_steps_down_within_a_few_frames_and_to_the_last_level_where_that_does_not_help():
    course = Course(levels=5).run(5, GOOD_S)
    began_s = course.now_s
    course.run(5, LATE_S)
    assert course.levels == [1, 4]
    assert course.steps[0][0] - began_s < 0.2
    assert course.steps[1][0] - began_s < 1.0


def test_one_late_frame_a_second_is_no_reason():
    assert Course().run(30, LATE_S, every=26).steps == []


def test_two_drops_are_a_reason():
    course = Course().run(5, GOOD_S)
    course.governor.dropped()
    course.governor.dropped()
    assert course.levels == [1]


def test_no_more_than_two_steps_in_ten_seconds():
    course = Course(levels=3).run(5, GOOD_S)
    for _ in range(60):
        course.run(1, LATE_S).run(4, GOOD_S)
        course.governor.step_up(0)
    times = [at for at, _ in course.steps]
    assert len(times) > 10
    assert all(third - first >= 10.0 - 1e-6 for first, third in zip(times, times[2:], strict=False))


def test_up_it_goes_only_when_told():
    course = Course().run(5, GOOD_S).run(1, LATE_S)
    assert course.governor.level > 0
    level = course.governor.level
    course.run(60, GOOD_S)
    assert course.governor.level == level
    assert course.governor.steady
    course.governor.step_up(0)
    assert course.governor.level == 0
    assert not course.governor.steady, "there is nothing above"


def test_late_frames_are_not_steady():
    course = Course(levels=2).run(5, GOOD_S).run(20, LATE_S)
    assert course.governor.level == 1
    assert not course.governor.steady
    course.run(2, GOOD_S)
    assert not course.governor.steady, "not for long enough"


def test_what_was_on_its_way_at_a_step_does_not_count():
    course = Course(levels=3).run(5, GOOD_S)
    course.run(0.2, LATE_S)
    assert course.levels == [1]
    for _ in range(20):
        course.governor.frame(0, LATE_S, FRAME_S)
    course.run(0.3, LATE_S)
    course.run(5, GOOD_S)
    assert course.levels == [1]


def test_a_source_that_has_just_been_opened_may_burst():
    course = Course().run(5, GOOD_S)
    course.governor.rest()
    assert course.run(1.8, LATE_S).steps == []


def test_a_budget_of_the_operators_own():
    assert Course(budget_s=0.5).run(20, LATE_S).steps == []
    with pytest.raises(ValueError, match="level = 3"):
        Governor(levels=3, level=3)
