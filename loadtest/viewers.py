"""`livesr-loadtest viewers`: how fast N viewers join, what they see, and what each costs the server."""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.http import base_url, stream_state
from loadtest.metrics import cpu_share, scrape
from loadtest.swarm import START_S, Swarm, Timetable, cpu_s
from loadtest.viewer import ViewerReport

BASELINE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How one figure spreads over the viewers."""

    min: float
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        ranked = sorted(values)
        p95 = ranked[min(len(ranked) - 1, round(0.95 * (len(ranked) - 1)))]
        return cls(min=ranked[0], p50=statistics.median(ranked), p95=p95, max=ranked[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `viewers` prints. CPU figures are shares of one core; the server's are its gateway process."""

    url: str
    stream: str
    viewers: int
    joined: int
    duration_s: float
    join_s: Spread | None
    frames_per_s: Spread | None
    longest_gap_s: Spread | None
    packets_received: int
    packets_lost: int
    loss_ratio: float
    server_cpu_before: float
    server_cpu_during: float
    server_cpu_per_viewer: float
    loadtest_cpu: float
    errors: dict[str, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/")
    parser.add_argument("--stream", required=True, help="id of the stream to watch")
    parser.add_argument("--count", type=int, default=10, help="how many viewers (default 10)")
    parser.add_argument(
        "--duration", type=float, default=15, metavar="S", help="seconds measured (default 15)"
    )
    parser.add_argument("--ramp", type=float, default=10, metavar="N", help="joins per second (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit status 0 when every viewer saw the stream, else 1."""
    for name in ("count", "duration", "ramp"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name} {getattr(args, name)}: must be greater than 0")
    summary = measure(base_url(args.url), args.stream, args.count, args.ramp, args.duration)
    print(json.dumps(asdict(summary)) if args.json else render(summary))
    return 0 if summary.joined == summary.viewers else 1


def measure(base: str, stream: str, count: int, viewers_per_s: float, duration_s: float) -> Summary:
    """Runs the test; raises ServerError where the service or the stream isn't there."""
    stream_state(base, stream)
    idle = scrape(base)
    time.sleep(BASELINE_S)
    cpu_before = cpu_share(idle, scrape(base))
    own_cpu_s, began_s = cpu_s(), time.monotonic()
    timetable = Timetable.plan(count, viewers_per_s, duration_s)
    with Swarm(base, stream, timetable) as swarm:
        time.sleep(max(0.0, timetable.from_s - time.monotonic()))
        start = scrape(base)
        time.sleep(max(0.0, timetable.until_s - time.monotonic()))
        cpu_during = cpu_share(start, scrape(base))
        reports = swarm.reports()
    watched_s = time.monotonic() - began_s - START_S
    return summarise(
        reports,
        url=base,
        stream=stream,
        duration_s=duration_s,
        server_cpu_before=cpu_before,
        server_cpu_during=cpu_during,
        loadtest_cpu=(cpu_s() - own_cpu_s) / watched_s,
    )


def summarise(reports: Sequence[ViewerReport], **known: Any) -> Summary:
    seen = [r for r in reports if r.error is None]
    received = sum(r.packets_received for r in seen)
    lost = sum(r.packets_lost for r in seen)
    errors: dict[str, int] = {}
    for report in reports:
        if report.error is not None:
            errors[report.error] = errors.get(report.error, 0) + 1
    extra_cpu = known["server_cpu_during"] - known["server_cpu_before"]
    return Summary(
        viewers=len(reports),
        joined=len(seen),
        join_s=Spread.of([r.join_s for r in seen if r.join_s is not None]) if seen else None,
        frames_per_s=Spread.of([r.frames_per_s for r in seen]) if seen else None,
        longest_gap_s=Spread.of([r.longest_gap_s for r in seen]) if seen else None,
        packets_received=received,
        packets_lost=lost,
        loss_ratio=lost / max(1, lost + received),
        server_cpu_per_viewer=extra_cpu / max(1, len(seen)),
        errors=errors,
        **known,
    )


def render(summary: Summary) -> str:
    def row(name: str, spread: Spread | None, unit: str, digits: int) -> str:
        if spread is None:
            return f"{name:<16}none"
        figures = (f"{k} {getattr(spread, k):.{digits}f}" for k in ("min", "p50", "p95", "max"))
        return f"{name:<16}" + "  ".join(figures) + f"  {unit}"

    s = summary
    lines = [
        f"{'viewers':<16}{s.joined} of {s.viewers} see {s.stream}, measured for {s.duration_s:g} s",
        row("join", s.join_s, "s from POST to the first whole key frame", 2),
        row("frame rate", s.frames_per_s, "frames/s", 1),
        row("longest gap", s.longest_gap_s, "s between two frames", 2),
        f"{'loss':<16}{s.loss_ratio:.3%} of {s.packets_lost + s.packets_received} packets",
        f"{'server CPU':<16}{s.server_cpu_per_viewer:.2%} of a core per viewer"
        f" ({s.server_cpu_before:.1%} before, {s.server_cpu_during:.1%} with {s.joined})",
        f"{'load test CPU':<16}{s.loadtest_cpu:.1%} of a core",
    ]
    lines += [f"{'error':<16}{count} × {error}" for error, count in s.errors.items()]
    return "\n".join(lines)
