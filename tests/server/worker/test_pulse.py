"""The pulse names a thread that hangs, and none where the gateway is slow."""

import threading

from server.wire.messages import Alive
from server.worker.pulse import HANG_S, Pulse

TURNS = round(HANG_S / 0.1)


class Threads:
    def __init__(self) -> None:
        self.steps = {"submit": 1, "encode": 1}
        self.held_up = False
        self.at_work = False
        self.said = []
        self.pulse = Pulse(
            lambda message: not self.said.append(message),
            steps=self.steps.copy,
            held_up=lambda: self.held_up,
            stop=threading.Event(),
            at_work=lambda: self.at_work,
        )

    def turns(self, count: int, *moving: str) -> str:
        for _ in range(count):
            for name in moving:
                self.steps[name] += 1
            self.pulse.turn()
        return self.pulse.hung


def test_a_thread_that_makes_no_step_is_named():
    threads = Threads()
    assert threads.turns(TURNS, "submit") == ""
    assert threads.turns(3, "submit") == "encode"


def test_a_step_in_time_is_enough():
    threads = Threads()
    for _ in range(3):
        assert threads.turns(TURNS - 1, "submit") == ""
        assert threads.turns(1, "submit", "encode") == ""


def test_a_slow_thread_of_a_process_at_work_gets_longer():
    """A large picture on a machine that is busy with other things."""
    threads = Threads()
    threads.at_work = True
    assert threads.turns(3 * TURNS, "submit") == ""
    assert threads.turns(2 * TURNS, "submit") == "encode"


def test_who_waits_for_the_gateway_does_not_hang():
    threads = Threads()
    threads.held_up = True
    assert threads.turns(3 * TURNS) == ""
    threads.held_up = False
    assert threads.turns(TURNS - 1) == ""
    assert threads.turns(3) != ""


def test_it_says_that_it_lives_whatever_the_threads_do():
    threads = Threads()
    threads.pulse.start()
    while len(threads.said) < 3:
        pass
    assert set(map(type, threads.said)) == {Alive}
