"""`livesr-loadtest latency`: how late each frame is at a viewer, beside what the service says of itself.

A picture carries its number. True is the time from the sending of a frame's last byte until a viewer has the
last byte of what became of it: by WebRTC the frame, by low-latency HLS its part.
"""

import argparse
import asyncio
import io
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, cast, get_args
from urllib.parse import urljoin, urlsplit

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext

from loadtest.hls_viewer import HlsViewer
from loadtest.http import ServerError, base_url, request, stream_state
from loadtest.numbered_source import Luma, NumberedSource, OnSent, Way, read
from loadtest.srt import LATENCY_MS, Srt
from loadtest.srt import ffmpeg as ffmpeg_with_srt
from loadtest.swarm import is_loopback, sleep_until
from loadtest.viewer import Viewer, gather_loopback_too
from loadtest.viewers import Spread
from loadtest.ways import WAYS_IN, HlsOrigin, Published, Udp, WayIn
from loadtest.whip import Whip

WayOut = Literal["whep", "hls"]
WAYS_OUT: tuple[WayOut, ...] = get_args(WayOut)

START_TIMEOUT_S = 30.0
SETTLE_S = 3.0
LAST_FRAME_S = 1.0  # what the last frame measured is given to come through
# The service's quantiles are of so many frames: over fewer than that it remembers some from before.
SERVICE_FRAMES = 512
_ALONE = ("decode", "upscale", "encode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One way in and one way out; seconds."""

    way_in: WayIn
    way_out: WayOut
    frames_sent: int
    frames_seen: int
    true_s: Spread
    service_s: dict[str, float]  # p50, p95 and p99, as the API says
    difference_s: dict[str, float]  # true above the service's, p50 and p95
    alone_s: float  # decoding, upscaling and encoding of a frame, medians
    above_alone_s: float  # the true median above that


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    size: str
    fps: int
    pairs: list[Pair]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the service, http://HOST:PORT/")
    parser.add_argument(
        "--duration", type=float, default=21, metavar="S", help="seconds measured of each (21)"
    )
    parser.add_argument("--size", default="320x180", metavar="WxH", help="of the source (default 320x180)")
    parser.add_argument("--fps", type=int, default=25, help="of the source (default 25)")
    parser.add_argument(
        "--in", dest="ways_in", default=",".join(WAYS_IN), metavar="WAYS", help="of " + ", ".join(WAYS_IN)
    )
    parser.add_argument(
        "--out", dest="ways_out", default=",".join(WAYS_OUT), metavar="WAYS", help="of " + ", ".join(WAYS_OUT)
    )
    parser.add_argument(
        "--port", type=int, default=5600, help="where the service gets udp, srt, rtmp and rtsp (default 5600)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    base = base_url(args.url)
    width, height = parse_size(args.size)
    for name, most in (("duration", 600), ("fps", 120)):
        if not 0 < getattr(args, name) <= most:
            raise ValueError(f"--{name} {getattr(args, name)}: must be above 0, at most {most}")
    ways_in = cast(list[WayIn], _ways("in", args.ways_in, WAYS_IN))
    if "srt" in ways_in:
        ffmpeg_with_srt()  # before anything is measured
    ways_out = cast(list[WayOut], _ways("out", args.ways_out, WAYS_OUT))
    if is_loopback(base):
        gather_loopback_too()
    pairs: list[Pair] = []
    for way_in in ways_in:
        stream = f"loadtest-{secrets.token_hex(3)}"
        make_way, url = way_of(way_in, base, stream, args.port, args.fps)
        source = NumberedSource(make_way, width=width, height=height, fps=args.fps)
        with closing(source.way), own_stream(base, stream, url(source)), source:
            wait_until_running(base, stream)
            pairs += asyncio.run(measure(base, stream, source, way_in, ways_out, args.duration))
    report = Report(size=args.size, fps=args.fps, pairs=pairs)
    print(json.dumps(asdict(report)) if args.json else render(report))
    return 0


def way_of(
    way_in: WayIn, base: str, stream: str, port: int, fps: int
) -> tuple[Callable[[OnSent], Way], Callable[[NumberedSource], str]]:
    """How to send, and what the service is to open for it."""
    host = urlsplit(base).hostname or ""
    there = host if is_loopback(base) else "0.0.0.0"
    netloc = f"[{there}]:{port}" if ":" in there else f"{there}:{port}"
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    key = secrets.token_hex(8)
    match way_in:
        case "udp":
            return partial(Udp, host, port), lambda source: f"udp://{netloc}"
        case "srt":
            keys = f"streamid={key}&passphrase={key}"
            url = f"srt://{netloc}?mode=listener&{keys}&latency={LATENCY_MS}"
            there = f"srt://{target}?mode=caller&{keys}&latency={LATENCY_MS * 1000}"  # ffmpeg's microseconds
            return partial(Srt, there), lambda source: url
        case "rtmp" | "rtsp":
            path = f"live/{key}"
            url = f"{way_in}://{netloc}/{path}?listen=1"
            return partial(Published, f"{way_in}://{target}/{path}"), lambda source: url
        case "whip":
            return partial(Whip, urljoin(base, f"whip/{stream}")), lambda source: "whip:"
        case "hls":
            ours = _own_address(base)
            origin = partial(HlsOrigin, ours, fps)
            return origin, lambda source: f"http://{ours}:{cast(HlsOrigin, source.way).port}/live.m3u8"


def _own_address(base: str) -> str:
    """This machine's address, as the service sees it."""
    parts = urlsplit(base)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as connection:
        return str(connection.getsockname()[0])


@contextmanager
def own_stream(base: str, stream: str, source: str) -> Iterator[None]:
    """A stream of the load test's own on the service; deleted afterwards."""
    body = json.dumps({"id": stream, "source": source}).encode()
    answer = request("POST", urljoin(base, "api/streams"), body, "application/json")
    if answer.status != 201:
        raise ServerError(f"{base} refuses the stream: {answer.reason()}")
    try:
        yield
    finally:
        request("DELETE", urljoin(base, f"api/streams/{stream}"))


def wait_until_running(base: str, stream: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while (state := stream_state(base, stream))["state"] not in ("running", "idle"):
        if state["state"] == "failed" or time.monotonic() > deadline_s:
            raise ServerError(f"stream {stream} is {state['state']}: {state['reason']}")
        time.sleep(0.1)


class _Seen:
    """Latencies by number, of pictures that were read."""

    def __init__(self, source: NumberedSource) -> None:
        self._sent_s = source.sent_s
        self.latencies_s: dict[int, float] = {}

    def add(self, frame: av.VideoFrame, at_s: float) -> None:
        number = read(cast(Luma, frame.to_ndarray(format="gray")))
        if number is not None and number in self._sent_s:
            self.latencies_s.setdefault(number, at_s - self._sent_s[number])


class _PartDecoder:
    """Pictures of parts, most of which begin in the middle of a group."""

    def __init__(self) -> None:
        self._decoder: VideoCodecContext | None = None

    def decode(self, data: bytes) -> Iterator[av.VideoFrame]:
        """Of an init segment and a part; none before the first key frame."""
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            for packet in cast(InputContainer, container).demux(stream):
                if packet.is_keyframe:  # its parameter sets are in the init segment, which may be another one
                    self._decoder = av.CodecContext.create("h264", "r")
                    self._decoder.extradata = stream.codec_context.extradata
                if self._decoder is not None and packet.size:
                    yield from self._decoder.decode(packet)


async def measure(
    base: str,
    stream: str,
    source: NumberedSource,
    way_in: WayIn,
    ways_out: Sequence[WayOut],
    duration_s: float,
) -> list[Pair]:
    """All ways out at once. A viewer by WebRTC is always there: one keeps the stream awake."""
    seen: dict[WayOut, _Seen] = {way: _Seen(source) for way in ways_out}
    decoder, parts = av.CodecContext.create("h264", "r"), _PartDecoder()

    def on_frame(data: bytes, at_s: float) -> None:
        for frame in decoder.decode(av.Packet(data)):
            if "whep" in seen:
                seen["whep"].add(frame, at_s)

    def on_part(data: bytes, at_s: float) -> None:
        for frame in parts.decode(data):
            seen["hls"].add(frame, at_s)

    viewer, player = Viewer(base, stream, on_frame), HlsViewer(base, stream, on_part)
    playing = asyncio.create_task(player.watch()) if "hls" in ways_out else None
    try:
        await viewer.join()
        from_s = time.monotonic() + SETTLE_S
        until_s = from_s + duration_s
        await sleep_until(until_s)
        state = await asyncio.to_thread(stream_state, base, stream)
        await sleep_until(until_s + LAST_FRAME_S)
        player.leave()
        if playing is not None:
            await playing
    finally:
        player.leave()
        await viewer.leave()
    sent_s = source.sent_s.copy()  # the source goes on meanwhile
    sent = [number for number, at_s in sent_s.items() if from_s <= at_s < until_s]
    return [_pair(way_in, way_out, sent, seen[way_out], state, stream) for way_out in ways_out]


def _pair(
    way_in: WayIn, way_out: WayOut, sent: Sequence[int], seen: _Seen, state: dict[str, Any], stream: str
) -> Pair:
    latencies_s = [seen.latencies_s[number] for number in sent if number in seen.latencies_s]
    service_s = state["hls_latency_s" if way_out == "hls" else "latency_s"]
    if not latencies_s or service_s is None:
        raise ServerError(f"by {way_out} no picture of stream {stream} shows a number of the source's")
    true_s = Spread.of(latencies_s)
    alone_s = sum(state["stages_s"][stage]["p50"] for stage in _ALONE)
    return Pair(
        way_in=way_in,
        way_out=way_out,
        frames_sent=len(sent),
        frames_seen=len(latencies_s),
        true_s=true_s,
        service_s=service_s,
        difference_s={"p50": true_s.p50 - service_s["p50"], "p95": true_s.p95 - service_s["p95"]},
        alone_s=alone_s,
        above_alone_s=true_s.p50 - alone_s,
    )


def render(report: Report) -> str:
    lines = [
        f"{report.size} at {report.fps} frames/s, milliseconds; a frame lasts {1000 / report.fps:.0f}",
        "in    out   frames seen   true p50   p95   service p50   p95   difference p50   p95   above alone",
    ]
    for pair in report.pairs:
        ms = [
            *(pair.true_s.p50, pair.true_s.p95, pair.service_s["p50"], pair.service_s["p95"]),
            *(pair.difference_s["p50"], pair.difference_s["p95"], pair.above_alone_s),
        ]
        widths = (11, 6, 14, 6, 17, 6, 14)
        figures = "".join(f"{value * 1000:{width}.1f}" for value, width in zip(ms, widths, strict=True))
        counts = f"{pair.frames_seen} of {pair.frames_sent}"
        lines.append(f"{pair.way_in:<6}{pair.way_out:<6}{counts:<11}{figures}")
    return "\n".join(lines)


def _ways(name: str, text: str, known: Sequence[str]) -> list[str]:
    ways = text.split(",")
    for way in ways:
        if way not in known:
            raise ValueError(f"--{name} {text}: {way!r} must be one of {', '.join(known)}")
    return ways


def parse_size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise ValueError(f"--size {text}: must look like 320x180") from None
    if width % 2 or height % 2 or not (64 <= width <= 3840 and 64 <= height <= 2160):
        raise ValueError(f"--size {text}: must be even, from 64x64 to 3840x2160")
    return width, height
