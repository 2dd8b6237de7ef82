"""`livesr-loadtest soak`: viewers join and leave for minutes; do the server's memory and files stay flat?"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from loadtest.http import ServerError, base_url, stream_state
from loadtest.metrics import GATEWAY_FILES, GATEWAY_RSS, WORKER_RSS, scrape
from loadtest.swarm import is_loopback, watch
from loadtest.viewer import ViewerReport, gather_loopback_too
from loadtest.viewers import Spread

SAMPLE_S = 2.0
STAY_S = (5.0, 20.0)  # how long a viewer watches before it leaves and another one comes
RETRY_S = 2.0  # after a viewer without a picture
WARM_UP = 0.2  # of the run: allocators, caches and pools fill
WINDOW = 0.25  # of the run, at either end of what remains: longer than the garbage collector's own rhythm


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Resident memory as `first_and_last` say it."""

    first_bytes: float
    last_bytes: float

    @property
    def ratio(self) -> float:
        return self.last_bytes / self.first_bytes - 1

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Growth":
        first, last = first_and_last(samples)
        return cls(first_bytes=first, last_bytes=last)


def first_and_last(samples: Sequence[float]) -> tuple[float, float]:
    """After the warm-up and at the end, medians over a quarter of the run each."""
    count = len(samples)
    begin, width = int(count * WARM_UP), max(1, int(count * WINDOW))
    return statistics.median(samples[begin : begin + width]), statistics.median(samples[-width:])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/")
    parser.add_argument("--stream", required=True, help="id of the stream to watch")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--viewers", type=int, default=20, help="how many at any time (default 20)")
    parser.add_argument("--max-growth", type=float, default=0.02, metavar="RATIO", help="allowed (0.02)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit status 0 when memory and open files stayed flat and every viewer saw the stream, else 1."""
    for name in ("minutes", "viewers"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name} {getattr(args, name)}: must be greater than 0")
    base = base_url(args.url)
    stream_state(base, args.stream)
    if is_loopback(base):
        gather_loopback_too()
    rss, files, sessions = asyncio.run(soak(base, args.stream, args.viewers, args.minutes * 60))
    first_files, last_files = first_and_last(files)
    growth = {process: Growth.of(samples) for process, samples in rss.items()}
    joins = [r.join_s for r in sessions if r.error is None and r.join_s is not None]
    errors = sorted({r.error for r in sessions if r.error is not None})
    join = Spread.of(joins) if joins else None
    if args.json:
        report = {
            "growth": {process: asdict(g) | {"ratio": g.ratio} for process, g in growth.items()},
            "gateway_files": {"first": first_files, "last": last_files},
            "sessions": len(sessions),
            "failed": len(sessions) - len(joins),
            "join_s": asdict(join) if join else None,
            "errors": errors,
        }
        print(json.dumps(report))
    else:
        for process, g in growth.items():
            mb = f"{g.first_bytes / 1e6:.1f} → {g.last_bytes / 1e6:.1f} MB"
            print(f"{process:<10}{mb} after warm-up: {g.ratio:+.2%} (allowed {args.max_growth:.2%})")
        print(
            f"{'files':<10}{first_files:.0f} → {last_files:.0f} open in the gateway (allowed +{args.viewers})"
        )
        print(f"{'viewers':<10}{len(sessions)} came and went, {len(sessions) - len(joins)} without a picture")
        if join:
            print(f"{'join':<10}p50 {join.p50:.2f}  p95 {join.p95:.2f}  max {join.max:.2f} s")
        for error in errors:
            print(f"{'error':<10}{error}")
    # A viewer is a socket, and at either end another number of them may just be changing seats.
    flat = (
        all(g.ratio <= args.max_growth for g in growth.values()) and last_files <= first_files + args.viewers
    )
    return 0 if flat and len(joins) == len(sessions) else 1


async def soak(
    base: str, stream: str, viewers: int, duration_s: float
) -> tuple[dict[str, list[float]], list[float], list[ViewerReport]]:
    """Resident bytes of gateway and workers over the run, the gateway's open files, and what every viewer
    saw."""
    until_s = time.monotonic() + duration_s
    rss: dict[str, list[float]] = {"gateway": [], "workers": []}
    files: list[float] = []

    async def seat(number: int) -> list[ViewerReport]:
        """One place in the audience: viewers take it one after the other."""
        chance = random.Random(number)
        seen = []
        while (now := time.monotonic()) < until_s:
            leave_s = min(until_s, now + chance.uniform(*STAY_S))
            report = await watch(base, stream, now, now, leave_s)
            seen.append(report)
            if report.error is not None:
                await asyncio.sleep(RETRY_S)
        return seen

    async def sample() -> None:
        while time.monotonic() < until_s:
            now = await asyncio.to_thread(scrape, base)
            gateway, workers = now[GATEWAY_RSS], now[WORKER_RSS]
            rss["gateway"].append(gateway)
            rss["workers"].append(workers)
            files.append(now[GATEWAY_FILES])
            if sys.stderr.isatty():
                mb = f"gateway {gateway / 1e6:.1f} MB  workers {workers / 1e6:.1f} MB"
                print(f"\r{until_s - now.at_s:5.0f} s left  {mb} ", end="", file=sys.stderr)
            await asyncio.sleep(SAMPLE_S)

    try:
        async with asyncio.TaskGroup() as group:
            seats = [group.create_task(seat(i)) for i in range(viewers)]
            group.create_task(sample())
    except* ServerError as lost:
        raise ServerError(f"the service was lost during the run: {lost.exceptions[0]}") from None
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return rss, files, [report for task in seats for report in task.result()]
