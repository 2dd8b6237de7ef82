"""Where matplotlib comes in: plots without a display or global state, written in one step."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

__all__ = ["Axes", "Figure", "logarithmic", "save_plot"]


def logarithmic(axes: Axes, subs: tuple[float, ...] = (1, 2, 5)) -> None:
    """Makes the x axis logarithmic, labelled in full at these times each power of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def save_plot(figure: Figure, path: Path) -> None:
    """PNG, whatever the name. The file is whole or not there."""
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=150)
    os.replace(partial, path)
