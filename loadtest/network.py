"""`livesr-loadtest network`: what a WebRTC viewer sees through a bad network, which a seeded relay makes."""

import argparse
import asyncio
import itertools
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import av

from loadtest.http import base_url, stream_state
from loadtest.relay import Relay
from loadtest.swarm import is_loopback
from loadtest.viewer import Viewer, gather_loopback_too

_RTP_HZ = 90_000
# As WebRTC's statistics have it: a gap of three usual intervals, or 150 ms more than one.
_FREEZE_INTERVALS, _FREEZE_MORE_S, _USUAL = 3, 0.15, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one viewer saw in a time; `sizes` of pictures in the order in which they came."""

    loss: float
    rtt_s: float
    rate_bps: float
    join_s: float
    frames: int
    frames_sent: int  # by their timestamps
    freezes: int
    frozen_s: float
    sizes: list[tuple[float, str]]  # since when, in seconds after the joining
    received_bps: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/")
    parser.add_argument("--stream", required=True, help="id of the stream to watch")
    parser.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="lost either way (0)")
    parser.add_argument("--rtt", type=float, default=0, metavar="MS", help="round trip added (0)")
    parser.add_argument(
        "--rate", type=parse_rate, default=0.0, metavar="BITS", help="a second, as in 1.5M (0: no limit)"
    )
    parser.add_argument("--heal", type=float, metavar="S", help="after so long nothing is wrong any more")
    parser.add_argument("--duration", type=float, default=30, metavar="S", help="watched (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the losses (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    base = base_url(args.url)
    for name, most in (("loss", 90), ("rtt", 5000), ("duration", 3600)):
        if not 0 <= getattr(args, name) <= most:
            raise ValueError(f"--{name} {getattr(args, name):g}: must be 0 to {most}")
    if is_loopback(base):
        gather_loopback_too()
    stream_state(base, args.stream)
    relay = Relay(loss=args.loss / 100, rtt_s=args.rtt / 1000, rate_bps=args.rate, seed=args.seed)
    with relay:
        report = asyncio.run(_watch(base, args.stream, relay, args.duration, args.heal))
    print(json.dumps(asdict(report)) if args.json else render(report))
    return 0


async def _watch(base: str, stream: str, relay: Relay, duration_s: float, heal_s: float | None) -> Report:
    decoder = av.CodecContext.create("h264", "r")
    shown_s, sizes = list[float](), list[tuple[float, str]]()
    playout = Playout()

    def on_frame(data: bytes, at_s: float) -> None:
        try:
            frames = decoder.decode(av.Packet(data))
        except av.error.InvalidDataError:
            return  # what it refers to was lost
        assert viewer.arrivals is not None
        for frame in frames:
            shown_s.append(playout.shown_s(viewer.timestamps[-1], time.monotonic(), viewer.arrivals.hold_s))
            size = f"{frame.width}x{frame.height}"
            if not sizes or sizes[-1][1] != size:
                sizes.append((shown_s[-1], size))

    known = relay.loss, relay.rtt_s, relay.rate_bps
    viewer = Viewer(base, stream, on_frame, relay=relay)
    try:
        await viewer.join()
        joined_s, taken = time.monotonic(), relay.bytes_in
        if heal_s is not None:
            await asyncio.sleep(heal_s)
            relay.loss = relay.rtt_s = relay.rate_bps = 0.0
        await asyncio.sleep(max(0.0, joined_s + duration_s - time.monotonic()))
        lasted_s = time.monotonic() - joined_s
        received_bps = (relay.bytes_in - taken) * 8 / lasted_s
    finally:
        await viewer.leave()
    gaps_s = freezes(shown_s)
    assert viewer.join_s is not None
    return Report(
        loss=known[0],
        rtt_s=known[1],
        rate_bps=known[2],
        join_s=viewer.join_s,
        frames=len(shown_s),
        frames_sent=frames_sent(viewer.timestamps),
        freezes=len(gaps_s),
        frozen_s=sum(gaps_s),
        sizes=[(round(at_s - joined_s, 1), size) for at_s, size in sizes],
        received_bps=received_bps,
    )


class Playout:
    """When a player shows what comes: at once, or held back for as long as the server asks (playout delay),
    counted from the frame that came quickest."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._quickest_s = math.inf  # between a frame's timestamp and its coming
        self._last_s = -math.inf

    def shown_s(self, timestamp: int, came_s: float, hold_s: float) -> float:
        self._first = timestamp if self._first is None else self._first
        at_s = (timestamp - self._first) % (1 << 32) / _RTP_HZ
        self._quickest_s = min(self._quickest_s, came_s - at_s)
        self._last_s = max(self._last_s, came_s, at_s + self._quickest_s + hold_s)
        return self._last_s


def freezes(shown_s: Sequence[float]) -> list[float]:
    """The gaps that count as such, in seconds."""
    usual, frozen = deque[float](maxlen=_USUAL), []
    for before_s, now_s in itertools.pairwise(shown_s):
        gap_s = now_s - before_s
        if usual:
            mean_s = statistics.fmean(usual)
            if gap_s >= max(_FREEZE_INTERVALS * mean_s, mean_s + _FREEZE_MORE_S):
                frozen.append(gap_s)
        usual.append(gap_s)
    return frozen


def frames_sent(timestamps: Sequence[int]) -> int:
    """How many frames lie between the first and the last, at the usual interval."""
    if len(timestamps) < 2:
        return len(timestamps)
    steps = [(b - a) % (1 << 32) for a, b in itertools.pairwise(timestamps)]
    return 1 + round(sum(steps) / statistics.median(steps))


def parse_rate(text: str) -> float:
    """As in 800k or 1.5M. Raises ValueError, which argparse tells."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("k", "M") else (text, "")
    rate_bps = float(number) * {"": 1, "k": 1e3, "M": 1e6}[unit]
    if not 0 <= rate_bps <= 1e10:
        raise ValueError(f"{text} must be 0 to 10000M")
    return rate_bps


def render(report: Report) -> str:
    r = report
    rate = f", {r.rate_bps / 1e6:g} Mbit/s" if r.rate_bps else ""
    share = r.frames / max(1, r.frames_sent)
    return "\n".join(
        [
            f"{'network':<16}{r.loss:.0%} lost, {1000 * r.rtt_s:g} ms round trip{rate}",
            f"{'join':<16}{r.join_s:.2f} s from POST to the first whole key frame",
            f"{'frames':<16}{r.frames} of {r.frames_sent}, {share:.1%}",
            f"{'freezes':<16}{r.freezes}, {r.frozen_s:.1f} s in all",
            f"{'sizes':<16}" + ", ".join(f"{size} from {at_s:.1f} s" for at_s, size in r.sizes),
            f"{'sent':<16}{r.received_bps / 1e6:.2f} Mbit/s",
        ]
    )
