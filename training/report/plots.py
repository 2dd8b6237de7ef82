"""Where matplotlib comes in: plots without a display or global state, written in one step."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter
from PIL import Image

from engine.files import replace_file

__all__ = ["Axes", "Figure", "logarithmic", "save_plot"]


def logarithmic(axes: Axes, subs: tuple[float, ...] = (1, 2, 5)) -> None:
    """Makes the x axis logarithmic, labelled in full at these times each power of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def save_plot(figure: Figure, path: Path, *, dpi: int = 150, greys: int | None = None) -> None:
    """PNG, whatever the name, in so many levels of grey where a repository is to keep it small. The file is
    whole or not there."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    if greys is not None:
        with Image.open(drawn) as picture:
            palette = picture.convert("L").quantize(greys)
        drawn = io.BytesIO()
        palette.save(drawn, "PNG", optimize=True)
    replace_file(path, drawn.getvalue())
