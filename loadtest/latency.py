"""`livesr-loadtest latency`: glass to glass, from the numbers in the picture of a live source of its own."""

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import urljoin, urlsplit

import av

from loadtest.http import ServerError, base_url, request, stream_state
from loadtest.numbered_source import Luma, NumberedSource, read
from loadtest.swarm import is_loopback, sleep_until
from loadtest.viewer import Viewer, stay_on_loopback
from loadtest.viewers import Spread

START_TIMEOUT_S = 30.0
SETTLE_S = 2.0
LAST_FRAME_S = 1.0  # what the last frame measured is given to come through


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `latency` prints: from a picture's making to its decoding by the viewer, seconds."""

    latency_s: Spread
    frames_made: int
    frames_seen: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/")
    parser.add_argument("--duration", type=float, default=15, metavar="S", help="seconds measured (15)")
    parser.add_argument("--size", default="320x180", metavar="WxH", help="of the source (default 320x180)")
    parser.add_argument("--fps", type=int, default=25, help="of the source (default 25)")
    parser.add_argument("--udp-port", type=int, default=5600, help="where the service gets it (default 5600)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    base = base_url(args.url)
    width, height = parse_size(args.size)
    for name, most in (("duration", 600), ("fps", 120)):
        if not 0 < getattr(args, name) <= most:
            raise ValueError(f"--{name} {getattr(args, name)}: must be above 0, at most {most}")
    if is_loopback(base):
        stay_on_loopback()
    host = urlsplit(base).hostname or ""
    there = host if is_loopback(base) else "0.0.0.0"
    source = NumberedSource(
        f"udp://{host}:{args.udp_port}?pkt_size=1316", width=width, height=height, fps=args.fps
    )
    with source, own_stream(base, f"udp://{there}:{args.udp_port}") as stream:
        report = asyncio.run(measure(base, stream, source, args.duration))
    if args.json:
        print(json.dumps(asdict(report)))
    else:
        s = report.latency_s
        print(f"glass to glass  p50 {s.p50:.3f}  p95 {s.p95:.3f}  max {s.max:.3f} s")
        print(f"frames          {report.frames_seen} of {report.frames_made} seen")
    return 0


@contextmanager
def own_stream(base: str, source: str) -> Iterator[str]:
    """A stream of the load test's own on the service, running; deleted afterwards."""
    stream = f"loadtest-{secrets.token_hex(3)}"
    body = json.dumps({"id": stream, "source": source}).encode()
    answer = request("POST", urljoin(base, "api/streams"), body, "application/json")
    if answer.status != 201:
        raise ServerError(f"{base} refuses the stream: {answer.reason()}")
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (state := stream_state(base, stream))["state"] not in ("running", "idle"):
            if state["state"] == "failed" or time.monotonic() > deadline_s:
                raise ServerError(f"stream {stream} is {state['state']}: {state['reason']}")
            time.sleep(0.1)
        yield stream
    finally:
        request("DELETE", urljoin(base, f"api/streams/{stream}"))


async def measure(base: str, stream: str, source: NumberedSource, duration_s: float) -> Report:
    decoder = av.CodecContext.create("h264", "r")
    seen: dict[int, float] = {}  # number → latency

    def on_frame(data: bytes, at_s: float) -> None:
        begin_s = time.monotonic()
        for frame in decoder.decode(av.Packet(data)):
            number = read(cast(Luma, frame.to_ndarray(format="gray")))
            if number is not None and number in source.made_s:
                seen[number] = at_s + time.monotonic() - begin_s - source.made_s[number]

    viewer = Viewer(base, stream, on_frame)
    try:
        await viewer.join()
        from_s = time.monotonic() + SETTLE_S
        await sleep_until(from_s + duration_s + LAST_FRAME_S)
    finally:
        await viewer.leave()
    made_s = source.made_s.copy()  # the source goes on meanwhile
    made = [number for number, at_s in made_s.items() if from_s <= at_s < from_s + duration_s]
    latencies = [seen[number] for number in made if number in seen]
    if not latencies:
        raise ServerError(f"no picture of stream {stream} shows a number of the source's")
    return Report(latency_s=Spread.of(latencies), frames_made=len(made), frames_seen=len(latencies))


def parse_size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise ValueError(f"--size {text}: must look like 320x180") from None
    if width % 2 or height % 2 or not (64 <= width <= 3840 and 64 <= height <= 2160):
        raise ValueError(f"--size {text}: must be even, from 64x64 to 3840x2160")
    return width, height
