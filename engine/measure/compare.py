"""Two models in one interleaved run. On a machine that others use, only the ratio of such a run means
anything, and of the two clocks the processor's more than that on the wall."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.frame import EngineSpec, Precision
from engine.load import load_engine
from engine.measure.bench import frame_runner

_WARM_UP_FRAMES = 5
_ROUND_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Of the model to the other, round by round: the median, and the quartiles as its spread."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Medians over the rounds, in each of which both ran for as many frames, planes in to planes out. `cpu`
    is the time of all cores together."""

    spec: EngineSpec
    other: EngineSpec
    rounds: int
    frames_per_round: int
    ms_per_frame: float
    other_ms_per_frame: float
    cpu_ms_per_frame: float
    other_cpu_ms_per_frame: float
    wall: Ratio
    cpu: Ratio

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    wall_ms: float
    cpu_ms: float


def compare(
    model: str,
    other: str,
    *,
    width: int,
    height: int,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int = 0,
    seconds: float = 5.0,
) -> Comparison:
    """Alternates for `seconds`, at least three rounds. Names, sizes and errors as for `load_engine`; backend
    and precision are the model's, the other one runs as it would by itself."""
    ours = load_engine(
        model, width=width, height=height, backend=backend, precision=precision, threads=threads
    )
    theirs = load_engine(other, width=width, height=height, threads=threads)
    runs = frame_runner(ours), frame_runner(theirs)
    for run in runs:
        _measure(run, _WARM_UP_FRAMES)
    slower_ms = max(_measure(run, _WARM_UP_FRAMES).wall_ms for run in runs)
    frames = max(1, round(1e3 * _ROUND_S / slower_ms))
    rounds = list[tuple[_Taken, ...]]()
    end_s = time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end_s:
        # Each goes first in every other round: what one leaves in the caches falls on both alike.
        order = (0, 1) if len(rounds) % 2 == 0 else (1, 0)
        taken = {which: _measure(runs[which], frames) for which in order}
        rounds.append((taken[0], taken[1]))
    return Comparison(
        spec=ours.spec,
        other=theirs.spec,
        rounds=len(rounds),
        frames_per_round=frames,
        ms_per_frame=statistics.median(a.wall_ms for a, _ in rounds),
        other_ms_per_frame=statistics.median(b.wall_ms for _, b in rounds),
        cpu_ms_per_frame=statistics.median(a.cpu_ms for a, _ in rounds),
        other_cpu_ms_per_frame=statistics.median(b.cpu_ms for _, b in rounds),
        wall=_ratio([a.wall_ms / b.wall_ms for a, b in rounds]),
        cpu=_ratio([a.cpu_ms / b.cpu_ms for a, b in rounds]),
    )


def describe(comparison: Comparison) -> str:
    ours, theirs = comparison.spec, comparison.other
    return "\n".join(
        [
            f"{ours.model} ({ours.backend} {ours.precision}) against {theirs.model} ({theirs.backend} "
            f"{theirs.precision}) · {ours.width}×{ours.height} · {comparison.rounds} rounds of "
            f"{comparison.frames_per_round} frames each",
            f"  CPU   {comparison.cpu_ms_per_frame:7.2f} ms a frame against "
            f"{comparison.other_cpu_ms_per_frame:7.2f}: {comparison.cpu}",
            f"  wall  {comparison.ms_per_frame:7.2f} ms a frame against "
            f"{comparison.other_ms_per_frame:7.2f}: {comparison.wall}",
        ]
    )


def _measure(run: Callable[[], None], frames: int) -> _Taken:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for _ in range(frames):
        run()
    cpu_s, wall_s = time.process_time() - start_cpu_s, time.perf_counter() - start_s
    return _Taken(wall_ms=1e3 * wall_s / frames, cpu_ms=1e3 * cpu_s / frames)


def _ratio(ratios: Sequence[float]) -> Ratio:
    low, median, high = statistics.quantiles(ratios, n=4)
    return Ratio(median=median, low=low, high=high)
