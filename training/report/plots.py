"""Where matplotlib comes in: plots without a display or global state, written in one step."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Axes", "Figure", "save_plot"]


def save_plot(figure: Figure, path: Path) -> None:
    """PNG, whatever the name. The file is whole or not there."""
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=150)
    os.replace(partial, path)
