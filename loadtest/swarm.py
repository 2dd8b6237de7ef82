"""Many viewers at once, by one timetable, over as many processes as it takes."""

import asyncio
import contextlib
import ipaddress
import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtest.http import ServerError, use_token, used_token
from loadtest.viewer import Viewer, ViewerReport, gather_loopback_too

VIEWERS_PER_PROCESS = 25
START_S = 3.0  # what a spawned process takes to import aiortc on a busy machine
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When each viewer joins and when all are watched, in CLOCK_MONOTONIC, the same for all processes."""

    joins_at_s: tuple[float, ...]
    from_s: float
    until_s: float

    @classmethod
    def plan(cls, count: int, viewers_per_s: float, duration_s: float) -> "Timetable":
        start_s = time.monotonic() + START_S
        joins = tuple(start_s + i / viewers_per_s for i in range(count))
        from_s = joins[-1] + SETTLE_S
        return cls(joins_at_s=joins, from_s=from_s, until_s=from_s + duration_s)


class Swarm:
    """The processes that run a timetable's viewers. A context manager; `reports` waits for them all."""

    def __init__(self, base: str, stream: str, timetable: Timetable) -> None:
        joins = timetable.joins_at_s
        processes = min(os.cpu_count() or 1, -(-len(joins) // VIEWERS_PER_PROCESS))
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=use_token,
            initargs=(used_token(),),
        )
        shares = [joins[i::processes] for i in range(processes)]
        self._shares: list[Future[list[ViewerReport]]] = [
            self._pool.submit(run_viewers, base, stream, share, timetable.from_s, timetable.until_s)
            for share in shares
        ]

    def __enter__(self) -> "Swarm":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def reports(self) -> list[ViewerReport]:
        return [report for share in self._shares for report in share.result()]


def run_viewers(
    base: str, stream: str, joins_at_s: Sequence[float], from_s: float, until_s: float
) -> list[ViewerReport]:
    """Runs this process's share of the viewers to the end of the timetable."""
    if is_loopback(base):
        gather_loopback_too()

    async def run() -> list[ViewerReport]:
        # Joins must wait for the server, not for each other.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max(4, len(joins_at_s))))
        return await asyncio.gather(*(watch(base, stream, at_s, from_s, until_s) for at_s in joins_at_s))

    return asyncio.run(run())


async def watch(base: str, stream: str, at_s: float, from_s: float, until_s: float) -> ViewerReport:
    """One viewer from its joining to the end; its failure is part of the report."""
    await sleep_until(at_s)
    viewer = Viewer(base, stream)
    try:
        await viewer.join()
        await sleep_until(until_s)
        return await viewer.report(from_s, until_s)
    except ServerError as exc:
        return failed(str(exc))
    finally:
        with contextlib.suppress(ServerError):  # where the server has gone, the reports say so better
            await viewer.leave()


def failed(error: str) -> ViewerReport:
    return ViewerReport(
        join_s=None, window_s=0, frames=0, longest_gap_s=0, packets_received=0, packets_lost=0, error=error
    )


async def sleep_until(moment_s: float) -> None:
    await asyncio.sleep(max(0.0, moment_s - time.monotonic()))


def cpu_s() -> float:
    """CPU time of this process and of the children it has waited for."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, who))


def is_loopback(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
