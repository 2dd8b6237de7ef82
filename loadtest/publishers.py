"""`livesr-loadtest publishers`: how many the service carries, each with a stream and a viewer of its own."""

import argparse
import asyncio
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from loadtest.http import ServerError, base_url, stream_state
from loadtest.latency import own_stream, parse_size, wait_until_running, way_of
from loadtest.numbered_source import NumberedSource
from loadtest.swarm import cpu_s, is_loopback, sleep_until
from loadtest.viewer import Viewer, gather_loopback_too
from loadtest.viewers import Spread

WayIn = Literal["whip", "rtmp", "rtsp"]
MOST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What each publisher sends."""

    base: str
    way_in: WayIn
    port: int
    size: tuple[int, int]
    fps: int
    duration_s: float  # measured, of all at once


class Muster:
    """The measured time begins once every publisher has been seen or refused."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._complete = threading.Event()
        self._from_s = 0.0

    def tell(self, stream: str) -> None:
        """That publisher has been seen, or will not be. More than once is as good as once."""
        with self._lock:
            self._known.add(stream)
            if len(self._known) == self._count and not self._complete.is_set():
                self._from_s = time.monotonic()
                self._complete.set()

    def wait(self) -> float:
        """The moment, of the monotonic clock."""
        self._complete.wait()
        return self._from_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One that was taken. Frames are of the measured time."""

    first_frame_s: float  # from the publisher's start to the first whole upscaled frame at its viewer
    frames_sent: int
    frames_seen: int
    level: int  # of the ladder, at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `publishers` prints. CPU is a share of one core."""

    way_in: WayIn
    size: str
    fps: int
    publishers: int
    duration_s: float
    accepted: int
    refused: dict[str, int]  # by the reason
    first_frame_s: Spread | None
    frames_sent: int
    frames_lost: int
    lost_ratio: Spread | None  # of each publisher's frames
    by_smaller_networks: int  # publishers whose stream is upscaled by one at the end, or by bicubic
    loadtest_cpu: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/")
    parser.add_argument("--by", choices=get_args(WayIn), default="whip", help="the protocol (default whip)")
    parser.add_argument("--count", type=int, default=4, help=f"how many, at most {MOST} (default 4)")
    parser.add_argument("--ramp", type=float, default=1, metavar="N", help="starts per second (default 1)")
    parser.add_argument(
        "--duration", type=float, default=15, metavar="S", help="seconds measured (default 15)"
    )
    parser.add_argument("--size", default="320x180", metavar="WxH", help="of the pictures (default 320x180)")
    parser.add_argument("--fps", type=int, default=25, help="frames per second of each (default 25)")
    parser.add_argument(
        "--port", type=int, default=5600, help="where the service gets rtmp and rtsp (default 5600)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit status 0 where every publisher was taken, else 1."""
    base, size = base_url(args.url), parse_size(args.size)
    for name, most in (("count", MOST), ("ramp", 100), ("duration", 3600), ("fps", 120)):
        if not 0 < getattr(args, name) <= most:
            raise ValueError(f"--{name} {getattr(args, name)}: must be above 0, at most {most}")
    if is_loopback(base):
        gather_loopback_too()
    began_s, own_cpu_s = time.monotonic(), cpu_s()
    load = Load(
        base=base,
        way_in=args.by,
        port=args.port,
        size=size,
        fps=args.fps,
        duration_s=args.duration,
    )
    muster = Muster(args.count)
    with ThreadPoolExecutor(args.count) as pool:
        starts_s = [began_s + n / args.ramp for n in range(args.count)]
        ended = list(pool.map(lambda at_s: publish(load, muster, at_s), starts_s))
    cpu = (cpu_s() - own_cpu_s) / (time.monotonic() - began_s)
    summary = summarise(load, ended, cpu)
    print(json.dumps(asdict(summary)) if args.json else render(summary))
    return 0 if summary.accepted == args.count else 1


def publish(load: Load, muster: Muster, at_s: float) -> Published | str:
    """One publisher from its start to the end; the reason where the service does not take it."""
    time.sleep(max(0.0, at_s - time.monotonic()))
    stream = f"loadtest-{secrets.token_hex(4)}"
    make_way, url = way_of(load.way_in, load.base, stream, load.port, load.fps)
    width, height = load.size
    source = NumberedSource(make_way, width=width, height=height, fps=load.fps)
    try:
        with closing(source.way), own_stream(load.base, stream, url(source)):
            began_s = time.monotonic()
            with source:
                wait_until_running(load.base, stream)
                return asyncio.run(_watch(load, muster, stream, source, began_s))
    except ServerError as exc:
        reason = f"{exc}; the publisher heard: {source.error}" if source.error else str(exc)
        return reason.replace(stream, "ID")  # so that they can be counted
    finally:
        muster.tell(stream)


async def _watch(
    load: Load, muster: Muster, stream: str, source: NumberedSource, began_s: float
) -> Published:
    """Its viewer, which keeps the stream awake. Raises ServerError."""
    seen_s: list[float] = []
    viewer = Viewer(load.base, stream, lambda data, at_s: seen_s.append(at_s))
    try:
        await viewer.join()
        muster.tell(stream)
        from_s = await asyncio.to_thread(muster.wait)
        await sleep_until(from_s + load.duration_s)
        state = await asyncio.to_thread(stream_state, load.base, stream)
    finally:
        await viewer.leave()
    until_s = from_s + load.duration_s
    sent_s = source.sent_s.copy()  # the source goes on meanwhile
    return Published(
        first_frame_s=seen_s[0] - began_s,
        frames_sent=sum(from_s <= at_s < until_s for at_s in sent_s.values()),
        frames_seen=sum(from_s <= at_s < until_s for at_s in seen_s),
        level=state["level"],
    )


def summarise(load: Load, ended: Sequence[Published | str], cpu: float) -> Summary:
    taken = [one for one in ended if isinstance(one, Published)]
    # What was sent before the measured time and seen in it stands for what was sent in it and seen later.
    lost = [max(0, one.frames_sent - one.frames_seen) for one in taken]
    ratios = [n / max(1, one.frames_sent) for n, one in zip(lost, taken, strict=True)]
    return Summary(
        way_in=load.way_in,
        size="{}x{}".format(*load.size),
        fps=load.fps,
        publishers=len(ended),
        duration_s=load.duration_s,
        accepted=len(taken),
        refused=dict(Counter(one for one in ended if isinstance(one, str))),
        first_frame_s=Spread.of([one.first_frame_s for one in taken]) if taken else None,
        frames_sent=sum(one.frames_sent for one in taken),
        frames_lost=sum(lost),
        lost_ratio=Spread.of(ratios) if taken else None,
        by_smaller_networks=sum(one.level > 0 for one in taken),
        loadtest_cpu=cpu,
    )


def render(s: Summary) -> str:
    lines = [
        f"{'publishers':<16}{s.accepted} of {s.publishers} taken, by {s.way_in}, {s.size} at {s.fps} fps",
        *(f"{'refused':<16}{count} × {reason}" for reason, count in s.refused.items()),
    ]
    if s.first_frame_s is not None and s.lost_ratio is not None:
        lines += [
            f"{'first frame':<16}p50 {s.first_frame_s.p50:.2f}  p95 {s.first_frame_s.p95:.2f}"
            "  s from a publisher's start to its first upscaled frame at a viewer",
            f"{'frames lost':<16}{s.frames_lost} of {s.frames_sent} in {s.duration_s:g} s;"
            f" of one publisher p50 {s.lost_ratio.p50:.2%}  max {s.lost_ratio.max:.2%}",
            f"{'smaller network':<16}{s.by_smaller_networks} of {s.accepted} at the end",
        ]
    return "\n".join((*lines, f"{'load test CPU':<16}{s.loadtest_cpu:.1%} of a core"))
