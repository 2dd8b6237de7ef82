"""What a stream costs its gateway beside its packets: many streams, whose workers on hosts do nothing."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from starlette.types import ASGIApp, Message

from server.gateway.app import create_app
from server.offline.bench_homes import HomesCost, bench_homes
from server.offline.idle_hosts import IdleHosts, idle_hosts
from server.settings import Settings
from server.wire.logs import log_to_stderr

_WINDOWS = 3  # the median of which counts
TURNS = _WINDOWS + 1  # of the seconds asked for, for each number of streams
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCost:
    """Of so many streams at once. Messages are those between gateway and hosts, a second and stream; shares
    are of one core; `load` is that of the machine over the last minute. `placed_s`: from the gateway's start
    until all have a worker; `late_ms`: how much later than it should a turn of the event loop comes, at p95.
    CPU times of a list of all streams and of a scrape, and how late a turn came at most meanwhile.
    """

    streams: int
    load: float
    placed_s: float
    restarts: int
    gateway_share: float
    hosts_share: float
    messages_per_s: float
    late_ms: float
    kb_per_stream: float
    list_ms: float
    list_late_ms: float
    list_bytes: int
    scrape_ms: float
    scrape_late_ms: float
    scrape_bytes: int
    homes: HomesCost


def bench_control(counts: Sequence[int], seconds: float) -> list[ControlCost]:
    """Each in a process that has served nobody before. Raises OSError where it can't be started."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        return [pool.submit(_bench, count, seconds).result() for count in counts]


def _bench(count: int, seconds: float) -> ControlCost:
    log_to_stderr(level="warning")
    return asyncio.run(_measure(count, seconds))


async def _measure(count: int, seconds: float) -> ControlCost:
    streams = [{"id": f"s{number}", "source": "synthetic:"} for number in range(count)]
    settings = Settings.model_validate({"limits": {"max_streams": count}, "streams": streams})
    async with idle_hosts() as hosts:
        app = create_app(settings, hosts)
        before_kb, began_s = _rss_kb(), time.monotonic()
        async with _running(app):
            # No event tells when all of them have one.
            while hosts.started < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            placed_s = time.monotonic() - began_s
            gc.collect()
            gc.freeze()  # as `livesr serve` does
            await asyncio.sleep(seconds)
            kb_per_stream = (_rss_kb() - before_kb) / count
            windows = [await _watch(hosts, count, seconds) for _ in range(_WINDOWS)]
            share, hosts_share, messages_per_s, late_ms = (median(of) for of in zip(*windows, strict=True))
            lists = [await _get(app, "/api/streams") for _ in range(_WINDOWS)]
            scrapes = [await _get(app, "/metrics") for _ in range(_WINDOWS)]
            return ControlCost(
                streams=count,
                load=os.getloadavg()[0],
                placed_s=placed_s,
                restarts=hosts.started - count,
                gateway_share=share,
                hosts_share=hosts_share,
                messages_per_s=messages_per_s,
                late_ms=late_ms,
                kb_per_stream=kb_per_stream,
                list_ms=median(cpu_ms for cpu_ms, _, _ in lists),
                list_late_ms=median(late_ms for _, late_ms, _ in lists),
                list_bytes=lists[0][2],
                scrape_ms=median(cpu_ms for cpu_ms, _, _ in scrapes),
                scrape_late_ms=median(late_ms for _, late_ms, _ in scrapes),
                scrape_bytes=scrapes[0][2],
                homes=bench_homes(count),
            )


@contextlib.asynccontextmanager
async def _running(app: ASGIApp) -> AsyncIterator[None]:
    """Within the application's lifespan."""
    words: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def live() -> None:
        await app(scope, words.get, answers.put)

    life = asyncio.create_task(live())
    await words.put({"type": "lifespan.startup"})
    await answers.get()
    try:
        yield
    finally:
        await words.put({"type": "lifespan.shutdown"})
        await life


@contextlib.asynccontextmanager
async def _lateness() -> AsyncIterator[Callable[[], list[float]]]:
    """Gives how late turns of the event loop came since, in seconds."""
    late_s: list[float] = []

    async def look() -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(_LOOK_S)
            late_s.append(time.perf_counter() - began_s - _LOOK_S)

    task = asyncio.create_task(look())
    try:
        yield lambda: sorted(late_s)
    finally:
        task.cancel()


async def _watch(hosts: IdleHosts, count: int, seconds: float) -> tuple[float, float, float, float]:
    """Shares of gateway and hosts, messages a second and stream, lateness in milliseconds at p95."""
    async with _lateness() as late_s:
        before, cpu_s, at_s = await hosts.ask("figures"), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu_s, after = time.process_time() - cpu_s, await hosts.ask("figures")
        took_s = time.monotonic() - at_s
        seen = late_s()
        return (
            cpu_s / took_s,
            (after["cpu_s"] - before["cpu_s"]) / took_s,
            (after["messages"] - before["messages"]) / took_s / count,
            1e3 * seen[int(0.95 * len(seen))],
        )


class _Steps:
    """Awaits a call, and counts the CPU time of its own steps."""

    def __init__(self, call: Awaitable[None]) -> None:
        self._call = call
        self.cpu_s = 0.0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._call.__await__()
        while True:
            began_s = time.process_time()
            try:
                pending = next(steps)
            except StopIteration:
                return
            finally:
                self.cpu_s += time.process_time() - began_s
            yield pending


async def _get(app: ASGIApp, path: str) -> tuple[float, float, int]:
    """CPU time in milliseconds; the longest that the event loop was late, in milliseconds; bytes of the
    answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    async with _lateness() as late_s:
        await asyncio.sleep(2 * _LOOK_S)
        steps = _Steps(app(scope, receive, send))
        await steps
        await asyncio.sleep(2 * _LOOK_S)
        assert sent[0]["status"] == 200
        return 1e3 * steps.cpu_s, 1e3 * late_s()[-1], sum(len(part.get("body", b"")) for part in sent)


def describe(costs: Sequence[ControlCost]) -> str:
    """A table, with a bar for the gateway's share of a core."""
    lines = [
        f"{'streams':>8}{'load':>6}{'placed s':>10}{'restarts':>10}{'gateway':>9}{'a stream':>10}{'hosts':>8}"
        f"{'messages/s':>12}{'late ms':>9}{'KB/stream':>11}"
    ]
    for cost in costs:
        lines.append(
            f"{cost.streams:>8}{cost.load:>6.1f}{cost.placed_s:>10.1f}{cost.restarts:>10}"
            f"{cost.gateway_share:>9.1%}{cost.gateway_share / cost.streams:>10.3%}{cost.hosts_share:>8.1%}"
            f"{cost.messages_per_s * cost.streams:>12.0f}{cost.late_ms:>9.1f}{cost.kb_per_stream:>11.0f}"
            f"  {'█' * round(40 * min(cost.gateway_share, 1.5))}"
        )
    lines += [
        "",
        f"{'':>8}{'GET /api/streams':>30}{'GET /metrics':>30}{'record of homes, 10 gateways':>40}",
        f"{'streams':>8}{'ms':>10}{'late ms':>10}{'KB':>10}{'ms':>10}{'late ms':>10}{'KB':>10}"
        f"{'renewal ms':>12}{'view ms':>9}{'KB':>6}{'loss ms':>13}",
    ]
    for cost in costs:
        homes = cost.homes
        lines.append(
            f"{cost.streams:>8}{cost.list_ms:>10.1f}{cost.list_late_ms:>10.1f}{cost.list_bytes / 1e3:>10.0f}"
            f"{cost.scrape_ms:>10.1f}{cost.scrape_late_ms:>10.1f}{cost.scrape_bytes / 1e3:>10.0f}"
            f"{homes.renew_ms:>12.3f}{homes.view_ms:>9.2f}{homes.view_bytes / 1e3:>6.0f}"
            f"{homes.loss_ms:>13.2f}"
        )
    return "\n".join(lines)


def to_dicts(costs: Sequence[ControlCost]) -> list[dict[str, Any]]:
    return [asdict(cost) for cost in costs]


def _rss_kb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e3
