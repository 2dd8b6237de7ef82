"""A service on a Ray cluster of several nodes, all on this machine: `make cluster-check`."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.peers.service import FOR_PEERS, Service, running, until

MEGAPIXELS = "livesr_megapixels"
ONE = 1.5  # what a source takes that has not been opened yet
SOURCE = "synthetic:?size=160x90&fps=8"
LIGHT = {
    "ladder": ["bicubic"],
    "model": "awsrn-live-tiny-x2",
    "lanes": 1,
    "renditions": ["upscaled"],
    "engine_patience_s": 2.0,  # as it is by default
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("CLUSTER_CHECK") != "1":
        for item in items:
            if Path(item.fspath).parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="make cluster-check runs it: it needs Ray"))


class Nodes:
    """The cluster, and what is done to its nodes."""

    def __init__(self, count: int, streams_each: int) -> None:
        # Ray's own default is 15: anything else on this machine goes first.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it
        from ray.cluster_utils import Cluster  # may be absent: these tests are skipped then

        head = {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add(streams_each) for _ in range(count)]

    def add(self, streams: int, **resources: float) -> Any:
        return self.cluster.add_node(num_cpus=0, resources={MEGAPIXELS: int(streams * ONE)} | resources)

    @property
    def address(self) -> str:
        return self.cluster.address

    def kill(self, node: Any) -> None:
        """As a machine that loses power: nothing of it says goodbye."""
        (raylet,) = [info.process.pid for info in node.all_processes["raylet"]]
        for pid in (raylet, *_children(raylet)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def kill_actor(self, name: str) -> None:
        """The process of the actor of that class."""
        raylets = [info.process.pid for info in self.cluster.head_node.all_processes["raylet"]]
        title = f"ray::{name}".encode()
        (actor,) = [
            child
            for raylet in raylets
            for child in _children(raylet)
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(title)
        ]
        os.kill(actor, signal.SIGKILL)

    def close(self) -> None:
        self.cluster.shutdown()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    children = [int(child) for child in listed]
    return [*children, *(further for child in children for further in _children(child))]


@contextmanager
def cluster(count: int, streams_each: int) -> Iterator[Nodes]:
    nodes = Nodes(count, streams_each)
    try:
        yield nodes
    finally:
        nodes.close()


@contextmanager
def serving(
    folder: Path, nodes: Nodes, *, standby: int = 0, limits: str = "", server: str = ""
) -> Iterator[Service]:
    base = FOR_PEERS.replace(
        "[limits]", f"[limits]\nmax_streams = 64\nassumed_pixels_per_s = {ONE * 1e6}\n{limits}"
    )
    options = ("--cluster", nodes.address)
    with running(folder, base=base, standby=standby, server=server, options=options) as service:
        yield service


class Viewers:
    """One for each stream, over one connection each."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def frames(self, stream: str) -> list[tuple[int, float]]:
        """Numbers of the frames seen so far, and when they came."""
        whole = self._log.read_text().rpartition("\n")[0].splitlines()
        rows = [line.split() for line in whole]
        return [(int(number), float(at_s)) for name, number, at_s in rows if name == stream]

    def longest_gap(self, stream: str, from_s: float, until_s: float) -> float:
        """Without a frame, in seconds."""
        arrivals = [at_s for _, at_s in self.frames(stream) if from_s <= at_s <= until_s]
        return max(b - a for a, b in itertools.pairwise([from_s, *arrivals, until_s]))

    def count_after(self, stream: str, at_s: float) -> int:
        return sum(arrived_s > at_s for _, arrived_s in self.frames(stream))

    @property
    def stay(self) -> bool:
        return self._process.poll() is None


@contextmanager
def viewing(service: Service, streams: list[str], folder: Path) -> Iterator[Viewers]:
    log = folder / "frames"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.cluster.viewers", service.url, *streams]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output)
    viewers = Viewers(process, log)
    try:
        until(lambda: all(viewers.frames(stream) for stream in streams), "the viewers see a picture", 120)
        yield viewers
    finally:
        process.kill()
        process.wait()


def nodes_of(service: Service) -> dict[str, str]:
    """Where each stream's worker is."""
    streams = service.http.get("/api/streams").json()
    return {stream["id"]: stream["worker"]["node"] for stream in streams}


def all_running(service: Service, timeout_s: float = 120.0) -> None:
    def there() -> bool:
        return all(stream["state"] == "running" for stream in service.http.get("/api/streams").json())

    until(there, "every stream runs", timeout_s)
