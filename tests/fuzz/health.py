"""What the gateway of a fuzzed service holds, and how soon it answers meanwhile."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.conftest import ROOT
from tests.fuzz.service import STREAM, TASKS
from tests.peers.service import Service, until

HEALTHZ_MEDIAN_S = 0.1
# asyncio's own pool starts them as they are needed, and keeps them.
_POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What must be given back."""

    files: int  # sockets among them
    threads: int
    processes: int
    tasks: int
    streams: int
    viewers: int

    @classmethod
    def by(cls, service: Service) -> "Held":
        process = Path(f"/proc/{service.process.pid}")
        streams = service.http.get("/api/streams").json()
        return cls(
            files=len(list((process / "fd").iterdir())),
            threads=len(list((process / "task").iterdir())),
            processes=len((process / f"task/{service.process.pid}/children").read_text().split()),
            tasks=_tasks(service),
            streams=len(streams),
            viewers=sum(stream["viewers"]["whep"] for stream in streams),
        )

    def is_within(self, other: "Held") -> bool:
        allowed = replace(other, threads=other.threads + _POOL_THREADS)
        return all(mine <= theirs for mine, theirs in zip(*map(_values, (self, allowed)), strict=True))


def _values(held: Held) -> list[int]:
    return list(asdict(held).values())


def _tasks(service: Service) -> int:
    told = service.log().count(TASKS)
    service.process.send_signal(signal.SIGUSR1)
    until(lambda: service.log().count(TASKS) > told, "the gateway counts its tasks")
    return int(service.log().rpartition(TASKS)[2].split()[0])


@contextmanager
def unharmed(service: Service) -> Iterator[None]:
    """The gateway lives through the block, answers /healthz throughout and gives back what it took."""
    before = Held.by(service)
    with tempfile.NamedTemporaryFile("w+") as polls:
        command = [sys.executable, "-m", "tests.peers.poller", service.url]
        poller = subprocess.Popen(command, cwd=ROOT, stdout=polls)
        try:
            until(lambda: os.path.getsize(polls.name), "/healthz is asked")
            yield
            assert service.process.poll() is None, service.log()[-3000:]
            assert poller.poll() is None, "/healthz did not answer"
        finally:
            poller.terminate()
            poller.wait()
        polls.seek(0)
        took_s = [float(line.split()[1]) for line in polls if line.endswith("\n")]
    assert statistics.median(took_s) < HEALTHZ_MEDIAN_S, (
        f"{statistics.median(took_s)} s, {max(took_s)} at worst"
    )
    after = before

    def given_back() -> bool:
        nonlocal after
        after = Held.by(service)
        return after.is_within(before)

    try:
        until(given_back, "all is given back")
    except AssertionError as exc:
        raise AssertionError(f"{before} became {after}") from exc
    assert service.show(STREAM)["state"] == "running"
    assert "Traceback" not in service.log(), service.log().partition("Traceback")[2][:3000]
