"""A real service with two streams, both watched; one of them is hurt."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.fragile_worker import FOLDER
from tests.peers.service import FOR_PEERS, Service, running, until
from tests.peers.watcher import Watcher, watching

# Slow enough that a busy machine keeps up: what is missing is then missing for the fault's sake.
HURT, OTHER = "synthetic:?size=160x90&fps=25", "synthetic:?size=160x90&fps=8"
MEMORY_BYTES = 1 << 29  # the least that the settings take


class Scene:
    """What the tests do to the worker of the stream "hurt", and what they see."""

    def __init__(self, service: Service, hurt: Watcher, other: Watcher, flaws: Path) -> None:
        self.service = service
        self.hurt = hurt
        self.other = other
        self._flaws = flaws

    @property
    def worker(self) -> int:
        """The process id of its worker."""
        pid = until(lambda: self.service.show("hurt")["worker"]["pid"], "the worker has told its process id")
        assert isinstance(pid, int)
        return pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.worker, number)

    def flaw(self, name: str) -> None:
        """One that `fragile_worker` knows."""
        (self._flaws / str(self.worker)).write_text(name)

    def restarts(self) -> int:
        return int(self.service.show("hurt")["worker"]["restarts"])

    def other_lost_none(self, first: int, last: int) -> None:
        """Of the other stream's frames, but those that its own worker had no time for on a busy machine."""
        lost = set(range(first, last + 1)) - self.other.numbers()
        dropped = self.service.show("other")["frames"]["dropped"]
        busy = sum(count for why, count in dropped.items() if why.endswith("/overload"))
        assert len(lost) <= busy, f"another stream lost {sorted(lost)}; dropped: {dropped}"

    def breaks(self) -> int:
        """Discontinuities of HLS so far."""
        lines = self.service.http.get("/hls/hurt/media.m3u8").text.splitlines()
        gone = next(line for line in lines if line.startswith("#EXT-X-DISCONTINUITY-SEQUENCE:"))
        return int(gone.partition(":")[2]) + lines.count("#EXT-X-DISCONTINUITY")

    def segments(self) -> list[str]:
        playlist = self.service.http.get("/hls/hurt/media.m3u8").text.splitlines()
        return [line for line in playlist if line.endswith(".m4s")]


@pytest.fixture(scope="module")
def flaws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("flaws")
    os.environ[FOLDER] = str(folder)
    yield folder
    del os.environ[FOLDER]


@pytest.fixture(scope="module")
def whole_scene(tmp_path_factory: pytest.TempPathFactory, flaws: Path) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("service")
    base = FOR_PEERS.replace("[limits]", f"[limits]\nworker_memory_bytes = {MEMORY_BYTES}")
    with ExitStack() as stack:
        enter = stack.enter_context
        service = enter(running(folder, base=base, standby=1, module="tests.faults.fragile_service"))
        watchers = []
        for name, source in (("hurt", HURT), ("other", OTHER)):
            enter(service.stream(name, source))
            service.wait_for(name, "running")
            place = tmp_path_factory.mktemp(name)
            watchers.append(enter(watching(service.url, name, "-", place)))
        yield Scene(service, *watchers, flaws)


@pytest.fixture
def scene(whole_scene: Scene) -> Scene:
    """As if nothing had happened before."""
    whole_scene.service.http.post("/api/streams/hurt/release")
    whole_scene.service.wait_for("hurt", "running")
    until(whole_scene.segments, "HLS has begun")
    until(lambda: len(whole_scene.service.workers()) == 3, "a standby waits")
    return whole_scene
