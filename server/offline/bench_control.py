"""What a stream costs its gateway beside its packets: many streams, whose workers on hosts do nothing.

The hosts are in another process, reached over TLS on the loopback: connections, signs of life, heartbeats and
clocks are as they are between machines.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.gateway.events import Events
from server.gateway.figures.metrics import Metrics
from server.gateway.limits.refusals import Refusals
from server.gateway.placement import SlotUse
from server.gateway.placement.remote import RemoteWorkerHandle, connect
from server.gateway.publish.doors import Doors
from server.gateway.streams.show import show
from server.gateway.streams.streams import Streams
from server.node.door import Door
from server.settings import Settings, StreamSettings
from server.wire.hello import Ticket
from server.wire.messages import Alive, Heartbeat, Message, Stop, WorkerJob

_ALIVE_S, _BEATS = 0.1, 5  # as a worker says it: a heartbeat with each fifth sign of life
_PLACED_AT_ONCE = 16
_ASKS_PER_S = 10 / 3  # for the host's time, each with its answer


class IdleWorker:
    """Says what a worker says while nobody watches."""

    isolated = False
    elsewhere = None
    lost = False

    def __init__(self, host: "IdleHost") -> None:
        self._host = host
        self._stopped = asyncio.Event()

    async def messages(self) -> AsyncIterator[Message]:
        turn = 0
        while not self._stopped.is_set():
            await asyncio.sleep(_ALIVE_S)
            turn += 1
            self._host.said += 1
            yield Alive()
            if turn % _BEATS == 0:
                self._host.said += 1
                yield Heartbeat(queues={"upscale": 0, "encode": 0}, rss_bytes=1 << 28, cpu_s=float(turn))

    def send(self, message: Message) -> bool:
        if isinstance(message, Stop):
            self._stopped.set()
        return True

    def at_work(self) -> bool:
        return False

    async def stop(self, *, at_once: bool = False) -> str:
        self._stopped.set()
        return "the worker ended"


class IdleHost:
    """A `Placement` of such workers."""

    def __init__(self) -> None:
        self.said = 0

    async def start(self, job: WorkerJob) -> IdleWorker:
        return IdleWorker(self)

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> Sequence[SlotUse]:
        return ()


class _HostProcess:
    """The process of the hosts, as the gateway's `Placement`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._asking = asyncio.Lock()
        self._starting = asyncio.Semaphore(_PLACED_AT_ONCE)

    async def ask(self, words: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._asking:
            self.process.stdin.write(f"{words}\n".encode())
            answer: dict[str, Any] = json.loads(await self.process.stdout.readline())
            return answer

    async def start(self, job: WorkerJob) -> RemoteWorkerHandle:
        async with self._starting:
            fields = await self.ask(f"admit {job.stream}")
            return await connect(Ticket(**fields | {"secret": bytes.fromhex(fields["secret"])}), job)

    async def close(self) -> None:
        pass

    def gpu_slots(self) -> Sequence[SlotUse]:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCost:
    """Of so many streams at once. Messages are those between gateway and hosts, a second and stream; shares
    are of one core."""

    streams: int
    placed_s: float
    gateway_share: float
    hosts_share: float
    messages_per_s: float
    list_ms: float
    rss_mb: float
    restarts: int


async def bench_control(counts: Sequence[int], seconds: float) -> list[ControlCost]:
    """Raises OSError where the hosts can't be started."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.offline.bench_control"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    hosts = _HostProcess(process)
    try:
        return [await _measure(hosts, count, seconds) for count in counts]
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _measure(hosts: _HostProcess, count: int, seconds: float) -> ControlCost:
    settings = Settings.model_validate({"limits": {"max_streams": count}})
    metrics = Metrics()
    refusals = Refusals(metrics.count_refusal)
    streams = Streams(
        settings,
        hosts,
        Doors(settings.limits, refusals),
        metrics,
        Events(settings.limits, refusals),
    )
    began_s = time.monotonic()
    for number in range(count):
        streams.create(StreamSettings(id=f"s{number}", source="synthetic:"))
    try:
        # No event tells when all of them have been heard.
        while not all(stream.figures.last_heartbeat for stream in streams.all()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        placed_s = time.monotonic() - began_s
        before, cpu_s, at_s = await hosts.ask("said"), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu_s, after = time.process_time() - cpu_s, await hosts.ask("said")
        took_s = time.monotonic() - at_s
        began_s = time.perf_counter()
        listed = [show(stream).model_dump_json() for stream in streams.all()]
        list_ms = 1e3 * (time.perf_counter() - began_s)
        assert len(listed) == count
        return ControlCost(
            streams=count,
            placed_s=placed_s,
            gateway_share=cpu_s / took_s,
            hosts_share=(after["cpu_s"] - before["cpu_s"]) / took_s,
            messages_per_s=(after["said"] - before["said"]) / took_s / count + 2 * _ASKS_PER_S,
            list_ms=list_ms,
            rss_mb=_rss_mb(),
            restarts=sum(stream.figures.restarts for stream in streams.all()),
        )
    finally:
        await streams.close()


def describe(costs: Sequence[ControlCost]) -> str:
    """A table, with a bar for the gateway's share of a core."""
    lines = [
        f"{'streams':>8}{'placed s':>10}{'gateway':>9}{'a stream':>10}{'hosts':>8}{'messages/s':>12}"
        f"{'list ms':>9}{'MB':>6}{'restarts':>10}"
    ]
    for cost in costs:
        lines.append(
            f"{cost.streams:>8}{cost.placed_s:>10.1f}{cost.gateway_share:>9.1%}"
            f"{cost.gateway_share / cost.streams:>10.3%}{cost.hosts_share:>8.1%}"
            f"{cost.messages_per_s * cost.streams:>12.0f}{cost.list_ms:>9.1f}{cost.rss_mb:>6.0f}"
            f"{cost.restarts:>10}  {'█' * round(40 * min(cost.gateway_share, 1.5))}"
        )
    return "\n".join(lines)


def to_dicts(costs: Sequence[ControlCost]) -> list[dict[str, Any]]:
    return [asdict(cost) for cost in costs]


def _rss_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _hosts() -> None:
    """Answers `admit STREAM` and `said`, a line each, until standard input ends."""
    host = IdleHost()
    door = Door(host, node="here")
    await door.open("127.0.0.1")
    reader, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "admit":
            ticket = door.admit(line[1])
            print(json.dumps(asdict(ticket) | {"secret": ticket.secret.hex()}), flush=True)
        else:
            print(json.dumps({"said": host.said, "cpu_s": time.process_time()}), flush=True)


if __name__ == "__main__":
    asyncio.run(_hosts())
