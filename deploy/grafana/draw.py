"""Draws a dashboard, by the queries of its panels."""

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.gridspec import GridSpec

_STEPS = 240  # points of a line
_ROW_INCHES, _WIDTH_INCHES, _COLUMNS = 0.32, 16.0, 24
_INK, _BOX, _BACK = "#ccccdc", "#181b1f", "#111217"
_COLOURS = {
    "dark-red": "#8f1d1d",
    "gray": "#6e6e6e",
    "green": "#56a64b",
    "orange": "#ff780a",
    "blue": "#5794f2",
}
# Grafana's units: by what the figure is multiplied, and what is written behind it.
_UNITS = {"s": (1e3, "ms"), "percentunit": (100, "%"), "bytes": (2**-20, "MiB"), "fps": (1, "/s")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`values` at `times_s`, NaN where there are none."""

    labels: Mapping[str, str]
    legend: str
    times_s: np.ndarray
    values: np.ndarray


class Prometheus:
    """Its HTTP API, over one span of time."""

    def __init__(self, url: str, *, start_s: float, end_s: float) -> None:
        self._url = url.rstrip("/")
        self.start_s, self.end_s = start_s, end_s
        self.step_s = max(1.0, round((end_s - start_s) / _STEPS))

    def ask(self, query: str, legend: str) -> list[Series]:
        """Every series that answers."""
        times_s = np.arange(self.start_s, self.end_s + self.step_s / 2, self.step_s)
        words = {"query": query, "start": times_s[0], "end": times_s[-1], "step": self.step_s}
        # The operator's own Prometheus, named on the command line.
        with urllib.request.urlopen(  # noqa: S310
            f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(words)}", timeout=30
        ) as answer:
            found = json.load(answer)["data"]["result"]
        return [self._series(one, legend, times_s) for one in found]

    def _series(self, one: dict[str, Any], legend: str, times_s: np.ndarray) -> Series:
        values = np.full(len(times_s), math.nan)
        for at_s, value in one["values"]:
            values[round((float(at_s) - times_s[0]) / self.step_s)] = float(value)
        labels = one["metric"]
        words = re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), legend)
        return Series(labels=labels, legend=words, times_s=times_s, values=values)


def draw(path: Path, prometheus: Prometheus, variables: Mapping[str, str], output: Path) -> None:
    """One dashboard's file as a picture."""
    panels = json.loads(path.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(_WIDTH_INCHES, height * _ROW_INCHES), facecolor=_BACK)
    grid = GridSpec(height, _COLUMNS, figure=figure, left=0, right=1, top=1, bottom=0, wspace=0, hspace=0)
    for panel in panels:
        place = panel["gridPos"]
        cell = grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]]
        box = cell.get_position(figure)
        _draw_panel(figure, panel, (box.x0, box.y0, box.width, box.height), prometheus, variables)
    figure.savefig(output, dpi=70, facecolor=_BACK)
    plt.close(figure)


def _draw_panel(
    figure: Any,
    panel: dict[str, Any],
    box: tuple[float, float, float, float],
    prometheus: Prometheus,
    variables: Mapping[str, str],
) -> None:
    left, bottom, width, height = box
    inch = 1 / figure.get_figheight()
    top = bottom + height - 0.06 * inch
    title = figure.text(left + 0.006, top, panel["title"], color=_INK, fontsize=9, va="top")
    if panel["type"] == "row":
        title.set_fontweight("bold")
        return
    axes = figure.add_axes(
        (left + 0.032, bottom + 0.42 * inch, width - 0.042, height - 0.72 * inch), facecolor=_BOX
    )
    series = [
        one
        for target in panel["targets"]
        for one in prometheus.ask(_filled(target["expr"], variables), target["legendFormat"])
    ]
    factor, unit = _UNITS.get(panel["fieldConfig"]["defaults"].get("unit", ""), (1, ""))
    match panel["type"]:
        case "stat":
            _number(axes, series, factor, unit)
        case "heatmap":
            _heat(axes, series)
        case "state-timeline":
            _states(axes, series, panel["fieldConfig"]["defaults"]["mappings"][0]["options"])
        case _:
            stacked = "stacking" in panel["fieldConfig"]["defaults"].get("custom", {})
            _lines(axes, series, factor, unit, stacked=stacked)
    axes.tick_params(colors=_INK, labelsize=7, length=2)
    for spine in axes.spines.values():
        spine.set_color("#2c3235")
    if panel["type"] == "stat":
        axes.set_xticks([])
    axes.set_xlim(0, prometheus.end_s - prometheus.start_s)
    axes.xaxis.set_major_formatter(lambda at_s, _: f"{int(at_s) // 60}:{int(at_s) % 60:02d}")


def _lines(axes: Axes, series: list[Series], factor: float, unit: str, *, stacked: bool) -> None:
    if stacked and series:
        values = [np.nan_to_num(one.values) * factor for one in series]
        axes.stackplot(_since(series[0]), values, labels=[one.legend for one in series], alpha=0.7)
    else:
        for one in series:
            axes.plot(_since(one), one.values * factor, linewidth=1, label=one.legend)
    axes.set_ylim(bottom=0)
    axes.grid(color="#2c3235", linewidth=0.5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} {unit}".strip())
    if series:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.08),
            ncols=4,
            fontsize=6.5,
            frameon=False,
            labelcolor=_INK,
        )


def _number(axes: Axes, series: list[Series], factor: float, unit: str) -> None:
    known = [one.values[np.isfinite(one.values)] for one in series]
    if known and len(known[0]):
        axes.fill_between(_since(series[0]), np.nan_to_num(series[0].values), color="#56a64b", alpha=0.25)
        text = f"{known[0][-1] * factor:.3g} {unit}"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, color=_INK, fontsize=22, ha="center", va="center")
    axes.set_ylim(bottom=0)
    axes.set_yticks([])


def _heat(axes: Axes, series: list[Series]) -> None:
    if not series:
        return
    buckets = sorted(series, key=lambda one: float(one.labels["le"]))
    counts = np.diff(np.nan_to_num([one.values for one in buckets]), axis=0, prepend=0)
    axes.pcolormesh(
        _since(buckets[0]),
        np.arange(len(buckets)),
        np.clip(counts, 0, None),
        cmap="magma",
        norm=PowerNorm(0.5),
    )
    places = range(0, len(buckets), 3)
    axes.set_yticks(list(places), [f"{float(buckets[n].labels['le']) * 1e3:g} ms" for n in places])


def _states(axes: Axes, series: list[Series], words: Mapping[str, Mapping[str, str]]) -> None:
    for place, one in enumerate(series):
        times_s = _since(one)
        step_s = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 1.0
        for value in np.unique(one.values[np.isfinite(one.values)]):
            colour = words[f"{value:g}"]["color"]
            spans = [(float(at_s), step_s) for at_s in times_s[one.values == value]]
            axes.broken_barh(spans, (place - 0.4, 0.8), color=_COLOURS.get(colour, colour))
    axes.set_yticks(range(len(series)), [one.legend[:28] for one in series])
    axes.tick_params(axis="y", direction="in", pad=-4)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")


def _since(one: Series) -> np.ndarray:
    return np.asarray(one.times_s - one.times_s[0])


def _filled(query: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        query = query.replace(f"${name}", value)
    return query
