"""What sharing an engine costs a stream alone, and what batches gain several: all in one run, in turns."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle
from operator import attrgetter
from typing import Any

from engine.batches import BATCHES
from engine.frame import BatchEngine, Colour, Engine, EngineSpec, HostSlot, Lane, Precision, YuvFrame
from engine.load import CPU_LANES, artifact_of, choose, load_engine
from engine.share import SharedEngine
from engine.trials import noise_frame, percentile

_ROUND_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """So many streams as fast as they go, and how long a frame takes from `submit` to the end of `wait`; of
    p95 the worst stream's. `cpu_ms_per_frame` is the time of all cores together. Medians over the rounds."""

    name: str
    streams: int
    frames_per_s: float
    cpu_ms_per_frame: float
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingBench:
    """`sharing`: rate of one stream through the shared engine against that of the engine's own lanes;
    `batching`: rate of all streams in batches against that of all in turns. `batching_cpu`: their CPU time a
    frame, which says more where the machine has other work. Medians over the rounds."""

    spec: EngineSpec
    batches: tuple[int, ...]
    rounds: int
    rows: tuple[Streams, ...]
    sharing: float
    batching: float
    batching_cpu: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench_batching(
    model: str,
    *,
    streams: int,
    width: int,
    height: int,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
    wait_s: float,
    seconds: float,
) -> BatchingBench:
    """On a CPU with batches that its service has none of. Raises ValueError for an engine that takes none,
    EngineError."""
    engine = _load(model, width, height, backend, precision, threads)
    if not isinstance(engine, BatchEngine):
        raise ValueError(f"backend={engine.spec.backend!r} takes one frame at a time")
    alone, turns, batches = SharedEngine(engine), SharedEngine(_InTurns(engine)), SharedEngine(engine)
    runs: dict[tuple[str, int], Sequence[Engine]] = {
        ("engine's own lanes", 1): [engine],
        ("shared", 1): [alone.join(wait_s)],
        ("in turns", streams): [turns.join(wait_s) for _ in range(streams)],
        ("in batches", streams): [batches.join(wait_s) for _ in range(streams)],
    }
    rounds = max(1, round(seconds / _ROUND_S / len(runs)))
    tries = [
        [_try(name, engines, seconds=min(seconds, _ROUND_S)) for (name, _), engines in runs.items()]
        for _ in range(1 + rounds)
    ][1:]  # the first is to warm up
    own, shared, one_by_one, together = zip(*tries, strict=True)
    return BatchingBench(
        spec=engine.spec,
        batches=engine.batches,
        rounds=rounds,
        rows=tuple(_median(column) for column in (own, shared, one_by_one, together)),
        sharing=_ratio(shared, own, attrgetter("frames_per_s")),
        batching=_ratio(together, one_by_one, attrgetter("frames_per_s")),
        batching_cpu=_ratio(together, one_by_one, attrgetter("cpu_ms_per_frame")),
    )


def describe(bench: BatchingBench) -> str:
    spec = bench.spec
    lines = [
        f"{spec.model} · {spec.backend} {spec.precision} · {spec.width}×{spec.height} · "
        f"{bench.rounds} rounds, {spec.lanes} lanes, batches of {', '.join(map(str, bench.batches))}"
    ]
    for row in bench.rows:
        lines.append(
            f"  {row.streams:2} × {row.name:<19}{row.frames_per_s:7.1f} frames/s, "
            f"{row.cpu_ms_per_frame:.1f} ms CPU a frame, p50 {1e3 * row.p50_s:.1f} ms, "
            f"p95 {1e3 * row.p95_s:.1f} ms"
        )
    lines.append(f"  shared / own lanes   {bench.sharing:.2f}")
    lines.append(
        f"  batches / turns      {bench.batching:.2f} ({bench.batching_cpu:.2f} in CPU time a frame)"
    )
    return "\n".join(lines)


class _InTurns:
    """An engine without its batches."""

    batches = (1,)

    def __init__(self, engine: BatchEngine) -> None:
        self.spec: EngineSpec = engine.spec
        self.lane: Callable[[], Any] = engine.lane
        self.slot: Callable[[], HostSlot] = engine.slot
        self.batch_lane: Callable[[int], Any] = engine.batch_lane


def _load(
    model: str, width: int, height: int, backend: str | None, precision: Precision | None, threads: int
) -> Engine:
    choice = choose(model, backend, precision)
    if choice.backend != "openvino":
        return load_engine(
            model, width=width, height=height, backend=backend, precision=precision, threads=threads, lanes=0
        )
    # OpenVINO: a GPU's batches are measured without it.
    from engine.backends.openvino.engine import OpenVinoEngine

    spec = replace(choice.spec(width, height), lanes=CPU_LANES)
    with artifact_of(choice) as artifact:
        return OpenVinoEngine(artifact, Colour(), spec, threads=threads, lanes=spec.lanes, batches=BATCHES)


def _try(name: str, engines: Sequence[Engine], *, seconds: float) -> Streams:
    frame = noise_frame(engines[0])
    lanes = [[engine.lane() for _ in range(engine.spec.lanes)] for engine in engines]
    with ThreadPoolExecutor(len(engines)) as pool:
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        latencies_s = list(pool.map(partial(_drive, frame=frame, seconds=seconds), lanes))
        elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    frames = sum(map(len, latencies_s))
    return Streams(
        name=name,
        streams=len(engines),
        frames_per_s=frames / elapsed_s,
        cpu_ms_per_frame=1e3 * cpu_s / frames,
        p50_s=percentile([latency for of_stream in latencies_s for latency in of_stream], 50),
        p95_s=max(percentile(of_stream, 95) for of_stream in latencies_s),
    )


def _drive(lanes: Sequence[Lane], *, frame: YuvFrame, seconds: float) -> list[float]:
    """Latencies of a stream's frames, its lanes in turns and all in flight."""
    flying: deque[tuple[Lane, float]] = deque()
    latencies_s: list[float] = []
    end_s = time.perf_counter() + seconds
    for lane in cycle(lanes):
        if len(flying) == len(lanes) or (flying and time.perf_counter() > end_s):
            waited_for, submitted_s = flying.popleft()
            waited_for.wait()
            latencies_s.append(time.perf_counter() - submitted_s)
        if time.perf_counter() < end_s or not latencies_s:
            flying.append((lane, time.perf_counter()))
            lane.submit(frame)
        elif not flying:
            break
    return latencies_s


def _median(column: Sequence[Streams]) -> Streams:
    values = {
        name: statistics.median(getattr(row, name) for row in column)
        for name in ("frames_per_s", "cpu_ms_per_frame", "p50_s", "p95_s")
    }
    return replace(column[0], **values)


def _ratio(ours: Sequence[Streams], theirs: Sequence[Streams], figure: Callable[[Streams], float]) -> float:
    return statistics.median(figure(a) / figure(b) for a, b in zip(ours, theirs, strict=True))
