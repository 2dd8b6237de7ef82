"""`livesr-loadtest faults`: from a worker's fault to the next decoded picture, over the same connection."""

import argparse
import asyncio
import itertools
import json
import os
import secrets
import signal
import time
from dataclasses import asdict, dataclass
from urllib.parse import urljoin

import av

from loadtest.http import ServerError, base_url, request, stream_state
from loadtest.latency import own_stream, parse_size
from loadtest.swarm import is_loopback
from loadtest.viewer import Viewer, gather_loopback_too
from loadtest.viewers import Spread

POLL_S = 0.01
RECOVERY_TIMEOUT_S = 30.0
SETTLED_S = 1.0  # pictures for so long, and the one that ended the longest gap was the first


FAULTS = {
    "killed": signal.SIGKILL,  # as the kernel does where memory runs out
    "stopped": signal.SIGSTOP,
    "crashed": signal.SIGSEGV,  # as a decoder's bug would
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One fault, in seconds since it happened."""

    noticed_s: float  # until the API has counted it
    moving_s: float  # until a picture of the next worker is decoded by the viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    fault: str
    tries: int
    noticed_s: Spread
    moving_s: Spread


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/, on this machine")
    parser.add_argument("--tries", type=int, default=20, metavar="N", help="of each fault (default 20)")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--size", default="640x360", metavar="WxH", help="of the source (default 640x360)")
    parser.add_argument("--fps", type=int, default=25, help="of the source (default 25)")
    parser.add_argument(
        "--pause", type=float, default=5, metavar="S", help="seconds between faults (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    base = base_url(args.url)
    width, height = parse_size(args.size)
    for name, most in (("tries", 1000), ("fps", 120), ("pause", 600)):
        if not 0 < getattr(args, name) <= most:
            raise ValueError(f"--{name} {getattr(args, name)}: must be above 0, at most {most}")
    if not is_loopback(base):
        raise ValueError(f"--url {args.url}: must be this machine, whose processes are hurt")
    gather_loopback_too()
    stream = f"loadtest-{secrets.token_hex(3)}"
    with own_stream(base, stream, f"synthetic:?size={width}x{height}&fps={args.fps}"):
        rows = asyncio.run(measure(base, stream, args.fault or list(FAULTS), args.tries, args.pause))
    load = os.getloadavg()[0]
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "load": load}))
    else:
        print(render(rows))
        print(f"load average {load:.1f} on {os.cpu_count()} cores")
    return 0


def render(rows: list[Row]) -> str:
    lines = [f"{'':<15}{'tries':>5}   noticed: p50   p95  worst   moving again: p50   p95  worst  (seconds)"]
    for row in rows:
        noticed, moving = row.noticed_s, row.moving_s
        lines.append(
            f"{row.fault:<15}{row.tries:>5}{noticed.p50:>15.2f}{noticed.p95:>6.2f}{noticed.max:>7.2f}"
            f"{moving.p50:>20.2f}{moving.p95:>6.2f}{moving.max:>7.2f}"
        )
    return "\n".join(lines)


async def measure(base: str, stream: str, faults: list[str], tries: int, pause_s: float) -> list[Row]:
    """Raises ServerError where the picture doesn't come back."""
    pictures = _Pictures()
    viewer = Viewer(base, stream, pictures.add)
    try:
        await viewer.join()
        rows = []
        for fault in faults:
            recoveries = []
            for _ in range(tries):
                await asyncio.sleep(pause_s)
                recoveries.append(await _hurt(base, stream, fault, pictures))
            rows.append(
                Row(
                    fault=fault,
                    tries=tries,
                    noticed_s=Spread.of([r.noticed_s for r in recoveries]),
                    moving_s=Spread.of([r.moving_s for r in recoveries]),
                )
            )
        return rows
    finally:
        await viewer.leave()


class _Pictures:
    """When the viewer had each picture decoded."""

    def __init__(self) -> None:
        self.decoded_s: list[float] = []
        self._decoder = av.CodecContext.create("h264", "r")

    def add(self, data: bytes, at_s: float) -> None:
        try:
            count = len(self._decoder.decode(av.Packet(data)))
        except av.FFmpegError:  # of a picture that lacks a packet
            return
        self.decoded_s += [time.monotonic()] * count


async def _hurt(base: str, stream: str, fault: str, pictures: _Pictures) -> Recovery:
    # Else the third fault within a minute would stop the stream.
    await asyncio.to_thread(request, "POST", urljoin(base, f"api/streams/{stream}/release"))
    before = (await asyncio.to_thread(stream_state, base, stream))["worker"]
    if before["pid"] is None:
        raise ServerError(f"stream {stream} has no worker to hurt")
    seen = len(pictures.decoded_s)
    hurt_s = time.monotonic()
    try:
        os.kill(before["pid"], FAULTS[fault])
    except OSError as exc:
        raise ServerError(f"worker {before['pid']} must be on this machine, and ours to hurt: {exc}") from exc
    deadline_s = hurt_s + RECOVERY_TIMEOUT_S
    while (await asyncio.to_thread(stream_state, base, stream))["worker"]["restarts"] == before["restarts"]:
        if time.monotonic() > deadline_s:
            raise ServerError(f"nobody noticed for {RECOVERY_TIMEOUT_S:g} s that a worker was {fault}")
        await asyncio.sleep(POLL_S)
    noticed_s = time.monotonic() - hurt_s
    while True:
        decoded_s = pictures.decoded_s[max(0, seen - 1) :]
        since_noticed = [at_s for at_s in decoded_s if at_s > hurt_s + noticed_s]
        if since_noticed and time.monotonic() - since_noticed[0] > SETTLED_S:
            break
        if time.monotonic() > deadline_s:
            raise ServerError(f"no picture for {RECOVERY_TIMEOUT_S:g} s after a worker was {fault}")
        await asyncio.sleep(POLL_S)
    # What the worker had sent before its fault may have come after it.
    gaps = [(later - earlier, later) for earlier, later in itertools.pairwise(decoded_s) if later > hurt_s]
    _, first_s = max(gaps)
    return Recovery(noticed_s=noticed_s, moving_s=first_s - hurt_s)
