"""Who may step up, and when."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from server.gateway.placement.cpu import IdleCores
from server.gateway.streams.room import Room, Wish

BORN = datetime(2026, 1, 1, tzinfo=UTC)


def wish(
    stream: str = "a", *, level: int = 1, priority: int = 0, age_s: float = 0.0, costs=(0.04, 0.01)
) -> Wish:
    return Wish(
        stream=stream,
        priority=priority,
        created=BORN - timedelta(seconds=age_s),
        level=level,
        fps=25.0,
        frame_cpu_s=costs,
    )


def test_a_step_needs_what_it_costs_and_something_to_spare():
    assert Room(lambda: 1.0).grant([wish()], 0.0) == ("a", 0)
    assert Room(lambda: 0.9).grant([wish()], 0.0) is None  # 0.75 cores more, and 0.2 to spare


def test_the_largest_network_that_fits_is_granted_at_once():
    costs = (0.08, 0.03, 0.01)
    assert Room(lambda: 2.0).grant([wish(level=2, costs=costs)], 0.0) == ("a", 0)
    assert Room(lambda: 1.0).grant([wish(level=2, costs=costs)], 0.0) == ("a", 1)


def test_a_busy_machine_grants_nothing_even_where_no_cost_is_known():
    assert Room(lambda: 0.0).grant([wish(costs=())], 0.0) is None
    assert Room(lambda: 1.1).grant([wish(costs=())], 0.0) is None
    assert Room(lambda: 1.3).grant([wish(costs=())], 0.0) == ("a", 0)


def test_priority_first_then_age_and_one_at_a_time():
    room = Room(lambda: 10.0)
    wishes = [wish("young"), wish("old", age_s=60), wish("dear", priority=5)]
    assert room.grant(wishes, 0.0) == ("dear", 0)
    assert room.grant(wishes[:2], 0.5) is None, "what the first takes is not measured yet"
    assert room.grant(wishes[:2], 3.0) == ("old", 0)
    assert room.grant(wishes[:1], 6.0) == ("young", 0)


def test_a_step_that_was_taken_back_is_tried_ever_less_often():
    room = Room(lambda: 10.0)
    granted = [float(at) for at in range(1000) if room.grant([wish()], float(at))]
    gaps = [later - earlier for earlier, later in pairwise(granted)]
    assert gaps[:5] == [10, 20, 40, 80, 160]
    assert set(gaps[5:]) <= {160.0}


def test_idle_cores_are_measured():
    idle = IdleCores()
    assert idle() >= 0.0
