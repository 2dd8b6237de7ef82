"""`livesr-loadtest overload`: a busy machine; do frames still come in time, and how do the networks step?"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise

from loadtest.http import ServerError, base_url, stream_state
from loadtest.metrics import StreamCounts, count_stream
from loadtest.swarm import is_loopback, watch
from loadtest.viewer import ViewerReport, gather_loopback_too

# Viewers join, engines load and the machine is calm again before anything is counted.
CALM_S = 10.0
POLL_S = 0.1
STEPS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One stream under load, and after it."""

    stream: str
    arrived_ratio: float  # frames published of all that came
    in_100_ms_ratio: float  # of those published
    in_150_ms_ratio: float
    viewer_frames_per_s: float
    viewer_longest_gap_s: float
    steps: int
    most_steps_in_10_s: int
    lowest_level: int
    back_after_s: float | None  # of the load's end, on its own network; None: it never was


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/, on this machine")
    parser.add_argument("--stream", required=True, action="append", dest="streams", help="may be repeated")
    parser.add_argument(
        "--busy", type=int, default=os.cpu_count() or 1, help="busy loops (default: one for each core)"
    )
    parser.add_argument("--duration", type=float, default=60, help="of the load, in seconds (default 60)")
    parser.add_argument("--patience", type=float, default=30, help="seconds to get back (default 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit status 0 where every stream was watched and got back to its own network."""
    for name in ("duration", "patience"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name} {getattr(args, name)}: must be greater than 0")
    if args.busy < 0:
        raise ValueError(f"--busy {args.busy}: must be at least 0")
    base = base_url(args.url)
    for stream in args.streams:
        stream_state(base, stream)
    if not is_loopback(base):
        raise ValueError(f"--url {args.url}: must be on this machine, which is made busy")
    gather_loopback_too()
    courses, errors = asyncio.run(overload(base, args.streams, args.busy, args.duration, args.patience))
    if args.json:
        print(json.dumps({"streams": [asdict(course) for course in courses], "errors": errors}))
    else:
        _print(courses, errors)
    return 0 if not errors and all(course.back_after_s is not None for course in courses) else 1


async def overload(
    base: str, streams: Sequence[str], busy: int, duration_s: float, patience_s: float
) -> tuple[list[Course], list[str]]:
    start_s = time.monotonic() + CALM_S
    end_s = start_s + duration_s
    watching = [
        asyncio.create_task(watch(base, stream, start_s - CALM_S, start_s, end_s)) for stream in streams
    ]
    await asyncio.sleep(CALM_S)
    polls = [asyncio.create_task(_poll(base, stream, end_s + patience_s)) for stream in streams]
    before = [await asyncio.to_thread(count_stream, base, stream) for stream in streams]
    with busy_loops(busy):
        await asyncio.sleep(max(0.0, end_s - time.monotonic()))
        after = [await asyncio.to_thread(count_stream, base, stream) for stream in streams]
    # Who watches goes on doing so: an idle stream steps nowhere.
    late = [asyncio.create_task(watch(base, s, end_s, end_s, end_s + patience_s)) for s in streams]
    reports = await asyncio.gather(*watching)
    levels = await asyncio.gather(*polls)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    each = zip(streams, before, after, reports, levels, strict=True)
    courses = [_course(*of_stream, end_s) for of_stream in each]
    return courses, sorted({report.error for report in reports if report.error is not None})


def _course(
    stream: str,
    before: StreamCounts,
    after: StreamCounts,
    report: ViewerReport,
    levels: list[tuple[float, int]],
    end_s: float,
) -> Course:
    frames, dropped = after.frames - before.frames, after.dropped - before.dropped
    if not frames:
        raise ServerError(f"stream {stream} published no frame under load")

    def within(limit_s: float) -> float:
        return (after.within(limit_s) - before.within(limit_s)) / frames

    times = [at_s for (_, earlier), (at_s, later) in pairwise(levels) if later != earlier]
    back = [at_s for at_s, level in levels if at_s >= end_s and level == 0]
    return Course(
        stream=stream,
        arrived_ratio=frames / (frames + dropped),
        in_100_ms_ratio=within(0.1),
        in_150_ms_ratio=within(0.15),
        viewer_frames_per_s=report.frames_per_s,
        viewer_longest_gap_s=report.longest_gap_s,
        steps=len(times),
        most_steps_in_10_s=max(
            (sum(at_s <= other < at_s + STEPS_WITHIN_S for other in times) for at_s in times), default=0
        ),
        lowest_level=max(level for _, level in levels),
        back_after_s=back[0] - end_s if back else None,
    )


async def _poll(base: str, stream: str, until_s: float) -> list[tuple[float, int]]:
    """Levels of the stream's ladder as they are seen."""
    levels = []
    while time.monotonic() < until_s:
        state = await asyncio.to_thread(stream_state, base, stream)
        levels.append((time.monotonic(), int(state["level"])))
        await asyncio.sleep(POLL_S)
    return levels


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _print(courses: Sequence[Course], errors: Sequence[str]) -> None:
    print(
        f"{'stream':<16}{'arrived':>9}{'≤ 100 ms':>10}{'≤ 150 ms':>10}{'viewer':>10}{'gap':>8}{'steps':>7}"
        f"{'in 10 s':>9}{'lowest':>8}{'back after':>12}"
    )
    for c in courses:
        back = "never" if c.back_after_s is None else f"{c.back_after_s:.1f} s"
        print(
            f"{c.stream:<16}{c.arrived_ratio:>9.1%}{c.in_100_ms_ratio:>10.1%}{c.in_150_ms_ratio:>10.1%}"
            f"{c.viewer_frames_per_s:>7.1f}/s{c.viewer_longest_gap_s:>6.2f} s{c.steps:>7}"
            f"{c.most_steps_in_10_s:>9}{c.lowest_level:>8}{back:>12}"
        )
    for error in errors:
        print(f"error: {error}")
