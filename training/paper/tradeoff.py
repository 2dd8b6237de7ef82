"""Figure 1 of the paper: PSNR over Mult-Adds, what was measured here among the systems of table 5."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from training.paper.comparison import Row
from training.report.plots import Axes, Figure, save_plot

# Where a label may stand beside its point, in order of preference: offset in typographic points, alignment.
_PLACES: tuple[tuple[int, int, Literal["left", "right", "center"]], ...] = (
    (5, 3, "left"),
    (5, -9, "left"),
    (-5, 3, "right"),
    (-5, -9, "right"),
    (0, 8, "center"),
    (0, -14, "center"),
)


def plot_tradeoff(measured: Sequence[Row], paper: Sequence[Row], sets: Sequence[str], out: Path) -> None:
    """One panel for each set, as PNG. The paper's own networks are red stars, those of others blue circles,
    ours green diamonds; an interpolation, which has no Mult-Adds, is a dashed line."""
    figure = Figure(figsize=(8 * len(sets), 6), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        _panel(axes, measured, paper, name)
    figure.draw_without_rendering()  # only now it is known where things are
    for axes in panels:
        _part_labels(axes)
    save_plot(figure, out)


def _panel(axes: Axes, measured: Sequence[Row], paper: Sequence[Row], name: str) -> None:
    others = [row for row in paper if not row.name.startswith("AWSRN")]
    family = [row for row in paper if row.name.startswith("AWSRN")]
    _scatter(axes, measured, name, "measured here", "D", 40, "tab:green")
    _scatter(axes, family, name, "AWSRN family, paper", "*", 120, "tab:red")
    _scatter(axes, others, name, "other systems, paper", "o", 30, "tab:blue")
    for row in measured:
        if row.mult_adds is None:
            height = row.scores[name].psnr_db
            axes.axhline(height, color="grey", linestyle="--", linewidth=1)
            _label(axes, row.label, (0.0, height), ("axes fraction", "data"))
    axes.set_xscale("log")
    axes.set_xlabel("Mult-Adds for a 1280×720 result (G)")
    axes.set_ylabel("PSNR-Y (dB)")
    axes.set_title(f"{name} ×{measured[0].scale}")
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    if axes.collections:
        axes.legend(fontsize=8, loc="lower right")


def _scatter(
    axes: Axes, rows: Sequence[Row], name: str, label: str, marker: str, size: int, colour: str
) -> None:
    points = [
        (row.mult_adds / 1e9, row.scores[name].psnr_db, row.label)
        for row in rows
        if row.mult_adds is not None and name in row.scores
    ]
    if points:
        across, up = [x for x, _, _ in points], [y for _, y, _ in points]
        axes.scatter(across, up, s=size, c=colour, marker=marker, label=label)
    for x, y, text in points:
        _label(axes, text, (x, y), "data")


def _label(axes: Axes, text: str, at: tuple[float, float], coordinates: str | tuple[str, str]) -> None:
    axes.annotate(text, at, xycoords=coordinates, xytext=(5, 3), textcoords="offset points", fontsize=7)


def _part_labels(axes: Axes) -> None:
    """Puts each label where it covers none before it, if there is such a place."""
    taken: list[Any] = []
    for text in axes.texts:
        for x, y, side in _PLACES:
            text.set_position((x, y))
            text.set_horizontalalignment(side)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
