"""Two streams in one worker process, both watched: its death costs both the time of a failover, and a stream
that kills its workers costs the other no third one."""

import itertools
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.conftest import HURT, OTHER
from tests.peers.service import FOR_PEERS, Service, running, until
from tests.peers.watcher import Watcher, watching

WATCHED = {"poisonous": HURT, "harmless": OTHER}


def pid_of(service: Service, name: str) -> int:
    return until(lambda: service.show(name)["worker"]["pid"], f"{name} has told its process")


def restarts(service: Service) -> list[int]:
    return [service.show(name)["worker"]["restarts"] for name in WATCHED]


def test_streams_of_one_worker(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with ExitStack() as stack:
        enter = stack.enter_context
        service = enter(running(tmp_path, base=FOR_PEERS, standby=1, streams_per_worker=2))
        watchers: list[Watcher] = []
        for name, source in WATCHED.items():
            enter(service.stream(name, source))
            service.wait_for(name, "running")
            watchers.append(enter(watching(service.url, name, "-", tmp_path_factory.mktemp(name))))
        for deaths in (1, 2):
            until(lambda: len(service.workers()) == 2, "a standby waits beside the one worker")
            (pid,) = {pid_of(service, name) for name in WATCHED}
            os.kill(pid, signal.SIGKILL)
            until(lambda n=deaths: restarts(service) == [n, n], "both have another worker")
            for watcher in watchers:
                until(moves(watcher), "the viewer who stayed sees it move")
        assert service.log().count("standby takes over") >= 2
        pids = [pid_of(service, name) for name in WATCHED]
        assert pids[0] != pids[1], "each is kept from the other"
        assert all(service.show(name)["worker"]["isolated"] for name in WATCHED)
        assert 'livesr_worker_isolated{stream="harmless"} 1.0' in service.http.get("/metrics").text
        assert "stream=harmless reason='it was in two workers that died'" in service.log()

        seen = watchers[1].latest()
        os.kill(pids[0], signal.SIGKILL)
        service.wait_for("poisonous", "quarantined")
        until(moves(watchers[1]), "the other one goes on")
        assert restarts(service) == [2, 2]
        shown = sorted(number for number in watchers[1].numbers() if number >= seen)
        assert all(b - a == 1 for a, b in itertools.pairwise(shown)), "it lost no frame"


def moves(watcher: Watcher) -> Callable[[], bool]:
    """Whether its picture has gone on for two seconds from here."""
    goal = watcher.latest() + 16
    return lambda: watcher.latest() > goal
