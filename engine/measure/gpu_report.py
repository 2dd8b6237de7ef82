"""What a GPU was measured to do, as a page of Markdown; and the figures that are made of measured times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.trials import BUDGET_S, FPS, Trial

Stage = Literal["copy in", "compute", "copy out"]
FramesOn = Literal["host", "surface"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stage of one frame on the GPU, between two events of its stream."""

    stage: Stage
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine with so many lanes, whose frames lie on the host or are surfaces of the GPU, in and out.
    `streams`: how many at 30 fps, their frames due all at once, keep p99 within the budget, for the number of
    lanes that a service would run, None for others; `overlap`: the share of the copies' time in which a
    network computed."""

    backend: str
    frames: FramesOn
    trial: Trial
    streams: int | None
    overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model at one size, in LR pixels. The baselines take and give tensors on the GPU; a text instead of
    milliseconds says why there are none. `parity_db` and `failures` are by backend."""

    model: str
    random_weights: bool
    width: int
    height: int
    scale: int
    eager_ms: float | str
    compiled_ms: float | str
    parity_db: dict[str, float]
    rows: tuple[Row, ...]
    failures: dict[str, str]

    @property
    def best(self) -> Row | None:
        """What a service with NVDEC and NVENC runs: surfaces, on the engine that carries the most streams,
        then frames."""
        return max(
            (row for row in self.rows if row.frames == "surface" and row.streams is not None),
            key=lambda row: (row.streams, row.trial.frames_per_s),
            default=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    gpu: str
    versions: dict[str, str]
    date: str
    cases: tuple[Case, ...]


def overlap(spans: Sequence[Span]) -> float:
    """The share of the time of all copies in which something is computed; 0 where nothing is copied."""
    copies = [span for span in spans if span.stage != "compute"]
    total = sum(span.end_ms - span.start_ms for span in copies)
    busy = list(_union(span for span in spans if span.stage == "compute"))
    hidden = sum(
        max(0.0, min(copy.end_ms, end) - max(copy.start_ms, start)) for copy in copies for start, end in busy
    )
    return hidden / total if total else 0.0


def _union(spans: Iterator[Span]) -> Iterator[tuple[float, float]]:
    """Stretches without a gap, in order."""
    stretch: tuple[float, float] | None = None
    for span in sorted(spans, key=lambda span: span.start_ms):
        if stretch is not None and span.start_ms <= stretch[1]:
            stretch = stretch[0], max(stretch[1], span.end_ms)
            continue
        if stretch is not None:
            yield stretch
        stretch = span.start_ms, span.end_ms
    if stretch is not None:
        yield stretch


def render(report: GpuReport) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        f"# livesr on {report.gpu}",
        "",
        f"Measured {report.date} by `make gpu-check` with {versions}.",
        "",
        "Frames lie on the host, or are NV12 surfaces of the GPU, as with NVDEC and NVENC; in and out alike. "
        "p50 and p99: from handing a frame to a lane until it is back, all lanes in flight. Engine's "
        f"streams: how many at {FPS:.0f} fps keep p99 within {1e3 * BUDGET_S:.1f} ms although their frames "
        "are due all at once, with as many lanes as a service runs. A service carries no more than that: its "
        "decoders and encoders aren't in it; `livesr bench --pipeline` measures one of each around it. "
        "Overlap: the share of the copies' time in which a network computes. Eager: the authors' network in "
        "float32; compiled: the folded FP16 frame graph by `torch.compile`; both on the GPU alone, without "
        "copies.",
        "",
        "## Surfaces, as a service runs them",
        "",
        *_table(
            (
                "model",
                "size",
                "engine",
                "lanes",
                "frames/s",
                "p99 ms",
                "engine's streams",
                "× eager",
                "× compiled",
            ),
            [_best(case) for case in report.cases],
        ),
    ]
    for case in report.cases:
        lines += ["", f"## {_name(case)}, {_size(case)}", "", *_details(case)]
    return "\n".join(lines) + "\n"


def _best(case: Case) -> tuple[str, ...]:
    row = case.best
    if row is None:
        return (_name(case), _size(case), "none runs", *["–"] * 6)
    return (
        _name(case),
        _size(case),
        row.backend,
        str(row.trial.lanes),
        f"{row.trial.frames_per_s:.1f}",
        f"{1e3 * row.trial.p99_s:.2f}",
        str(row.streams),
        _times(case.eager_ms, row),
        _times(case.compiled_ms, row),
    )


def _details(case: Case) -> Iterator[str]:
    for name, time_ms in (("Eager", case.eager_ms), ("Compiled", case.compiled_ms)):
        yield f"- {name}: {time_ms if isinstance(time_ms, str) else f'{time_ms:.2f} ms a frame'}"
    for backend, parity_db in case.parity_db.items():
        yield f"- {backend}: {parity_db:.1f} dB from the float32 reference"
    for backend, failure in case.failures.items():
        yield f"- {backend} does not run: {failure}"
    if case.rows:
        yield ""
        yield from _table(
            ("engine", "frames", "lanes", "p50 ms", "p99 ms", "frames/s", "engine's streams", "overlap"),
            [
                (
                    row.backend,
                    row.frames,
                    str(row.trial.lanes),
                    f"{1e3 * row.trial.p50_s:.2f}",
                    f"{1e3 * row.trial.p99_s:.2f}",
                    f"{row.trial.frames_per_s:.1f}",
                    "–" if row.streams is None else str(row.streams),
                    f"{row.overlap:.0%}",
                )
                for row in case.rows
            ],
        )


def _times(baseline_ms: float | str, row: Row) -> str:
    """How many times as many frames a second."""
    return "–" if isinstance(baseline_ms, str) else f"{baseline_ms * row.trial.frames_per_s / 1e3:.1f}"


def _name(case: Case) -> str:
    return case.model + (" (random weights)" if case.random_weights else "")


def _size(case: Case) -> str:
    return f"{case.width}×{case.height} → {case.scale * case.width}×{case.scale * case.height}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(row) + " |"
