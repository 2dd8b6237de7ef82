"""`livesr bench --control … --plot FILE`: the only file of the server that imports matplotlib."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from server.offline.bench_control import ControlCost

Line = tuple[str, Callable[[ControlCost], float]]

_PANELS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    (
        "CPU of a stream, % of a core",
        (
            ("gateway", lambda cost: 100 * cost.gateway_share / cost.streams),
            ("hosts", lambda cost: 100 * cost.hosts_share / cost.streams),
        ),
    ),
    ("messages of a stream, a second", (("", lambda cost: cost.messages_per_s),)),
    ("until all have a worker, s", (("", lambda cost: cost.placed_s),)),
    ("gateway's memory for a stream, KB", (("", lambda cost: cost.kb_per_stream),)),
    (
        "the event loop comes late by, ms",
        (
            ("p95", lambda cost: cost.late_ms),
            ("most, in a list of all", lambda cost: cost.list_late_ms),
            ("most, in a scrape", lambda cost: cost.scrape_late_ms),
        ),
    ),
    (
        "CPU time of one request, ms",
        (
            ("GET /api/streams", lambda cost: cost.list_ms),
            ("GET /metrics", lambda cost: cost.scrape_ms),
        ),
    ),
)


def plot_control(costs: Sequence[ControlCost], path: Path) -> None:
    """Over the number of streams; SVG or PNG, as the name says. The file is whole or not there."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        _draw(axes, title, lines, costs)
    partial = path.with_name(path.name + ".partial")
    # Text stays text, with one font to look for, and the file is the same for the same figures.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "livesr", "font.sans-serif": ["DejaVu Sans"]}
    ):
        figure.savefig(partial, format=path.suffix[1:], metadata={"Date": None} if _is_svg(path) else None)
    os.replace(partial, path)


def check_name(path: Path) -> None:
    """Raises ValueError for one that can't be drawn to."""
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"--plot {path}: must end in .svg or .png")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")


def _is_svg(path: Path) -> bool:
    return path.suffix == ".svg"


def _draw(axes: Axes, title: str, lines: Sequence[Line], costs: Sequence[ControlCost]) -> None:
    streams = [cost.streams for cost in costs]
    for label, value in lines:
        axes.plot(streams, [value(cost) for cost in costs], marker="o", label=label)
    axes.set_title(title, fontsize="medium")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(streams))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("streams")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize="small")
