"""What streams save in memory, and lose in latency, where they share one worker process."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.gateway.placement import WorkerHandle
from server.gateway.placement.local import LocalPlacement
from server.gateway.placement.process import LocalWorkerHandle
from server.settings import Settings
from server.wire.messages import Dropped, EngineLoad, Heartbeat, JobImpossible, VideoPacket, Watch, WorkerJob
from server.wire.synthetic import parse_synthetic

_FPS = 25
_SETTLE_S = 1.0  # once every engine is loaded


class StreamFailed(Exception):
    """A stream that was to be measured; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """All streams together: proportional memory (PSS) of their processes in MB, CPU time of a frame, its
    latency from its arrival until it is encoded, frames a second and frames dropped."""

    processes: int
    memory_mb: float
    cpu_ms: float
    p50_ms: float
    p95_ms: float
    frames_per_s: float
    dropped: int


def bench_sharing(
    model: str, *, width: int, height: int, streams: int, seconds: float, rounds: int = 3
) -> list[Sharing]:
    """Each stream in a process of its own, and all in one, in turns: the medians of so many rounds each.
    Raises ValueError for a size that no made picture has, StreamFailed."""
    source = f"synthetic:?size={width}x{height}&fps={_FPS}"
    parse_synthetic(source)
    settings = Settings()
    jobs = [
        settings.stream(id=f"bench-{n}", source=source, model=model, ladder=[]).job(settings.limits)
        for n in range(streams)
    ]
    measured: dict[int, list[Sharing]] = {1: [], streams: []}
    for _ in range(rounds):
        for together, results in measured.items():
            results.append(asyncio.run(_measure(jobs, together, seconds)))
    return [_median(results) for results in measured.values()]


def describe(results: Sequence[Sharing]) -> str:
    lines = [
        f"{'processes':>9}{'memory MB':>11}{'CPU ms':>9}{'p50 ms':>9}{'p95 ms':>9}"
        f"{'frames/s':>10}{'dropped':>9}"
    ]
    for r in results:
        lines.append(
            f"{r.processes:>9}{r.memory_mb:>11.0f}{r.cpu_ms:>9.1f}{r.p50_ms:>9.1f}{r.p95_ms:>9.1f}"
            f"{r.frames_per_s:>10.1f}{r.dropped:>9}"
        )
    return "\n".join(lines)


def to_dicts(results: Sequence[Sharing]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]


class _Heard:
    """What the workers say, while it counts."""

    def __init__(self) -> None:
        self.ready = 0
        self.counts = False
        self.latencies_ms: list[float] = []
        self.dropped = 0
        self.cpu_s: dict[WorkerHandle, float] = {}

    async def listen(self, worker: WorkerHandle) -> None:
        async for message in worker.messages():
            match message:
                case EngineLoad(state="ready"):
                    self.ready += 1
                case VideoPacket() if self.counts:
                    self.latencies_ms.append((message.sent_ns - message.arrival_ns) / 1e6)
                case Dropped(sound=False) if self.counts:
                    self.dropped += message.count
                case Heartbeat():
                    self.cpu_s[worker] = message.cpu_s
                case JobImpossible():
                    raise StreamFailed(message.reason)


async def _measure(jobs: Sequence[WorkerJob], together: int, seconds: float) -> Sharing:
    placement, heard = LocalPlacement(streams_per_worker=together), _Heard()
    workers = [await placement.start(job) for job in jobs]
    try:
        for worker in workers:
            worker.send(Watch(renditions=("upscaled",)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(heard.listen(worker)) for worker in workers]
            while heard.ready < len(jobs):  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.1)
            await asyncio.sleep(_SETTLE_S)
            before_s, heard.counts = sum(heard.cpu_s.values()), True
            await asyncio.sleep(seconds)
            heard.counts = False
            cpu_s = sum(heard.cpu_s.values()) - before_s
            processes = {worker.pid for worker in workers if isinstance(worker, LocalWorkerHandle)}
            memory_mb = sum(map(_pss_mb, processes))
            for task in tasks:
                task.cancel()
    except* StreamFailed as failures:
        raise StreamFailed(str(failures.exceptions[0])) from failures
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
        await placement.close()
    latencies = sorted(heard.latencies_ms)
    if not latencies:
        raise StreamFailed(f"no picture came within {seconds:g} s")
    return Sharing(
        processes=len(processes),
        memory_mb=memory_mb,
        cpu_ms=1e3 * cpu_s / len(latencies),
        p50_ms=latencies[len(latencies) // 2],
        p95_ms=latencies[len(latencies) * 95 // 100],
        frames_per_s=len(latencies) / seconds,
        dropped=heard.dropped,
    )


def _pss_mb(pid: int) -> float:
    """What is mapped in several processes counts for each in part."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def _median(results: Sequence[Sharing]) -> Sharing:
    fields = {name: statistics.median(getattr(r, name) for r in results) for name in Sharing.__slots__}
    return Sharing(**fields | {name: round(fields[name]) for name in ("processes", "dropped")})
