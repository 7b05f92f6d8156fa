"""One style for all plots: fits a column or a full page, and is readable in print and by colour-blind people.

The first colours are Okabe & Ito's (2008), and no two rows share one; a row differs from the others in marker and line
too, for printers without colour.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAGE = 6.75  # inches: the width of a two-column page
PANEL = 2.0  # inches high
PANELS_ABREAST = 3
MOST_PANELS = 6  # datasets in a figure; more would be too small to read
DOTS_PER_INCH = 300

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)), (0, (6, 1, 2, 1)))
GOLDEN_RATIO = (5**0.5 - 1) / 2
LIGHTNESS = (0.3, 0.55, 0.7)
GREY = "#767676"

STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # embed TrueType fonts: journals refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "ragcun",  # the same plot gives the same bytes
}


@dataclass(frozen=True)
class Look:
    """How a row is drawn, the same in every figure."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """Assign looks in the order of the table's rows. The line shifts by one after every eight, so that no two of 64
    share marker and line.
    """
    return {
        name: Look(_colour(number), MARKERS[number % 8], LINES[(number + number // 8) % 8])
        for number, name in enumerate(names)
    }


def _colour(number: int) -> str:
    """A row's colour; after the first eight, hues step by the golden ratio to stay far apart, dark and light."""
    if number < len(COLOURS):
        return COLOURS[number]
    step = number - len(COLOURS)
    red, green, blue = colorsys.hls_to_rgb((step * GOLDEN_RATIO) % 1, LIGHTNESS[step % len(LIGHTNESS)], 0.55)
    return f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}"


def styled() -> AbstractContextManager[None]:
    """A context with the style, in which to make and save a figure."""
    return matplotlib.rc_context(STYLE)


def panels(count: int, height: float = PANEL) -> tuple[Figure, list[Axes]]:
    """Make a figure with this many panels, and return both."""
    abreast = min(count, PANELS_ABREAST)
    down = -(-count // abreast)
    figure = Figure(figsize=(PAGE, height * down + 0.4))
    grid = figure.subplots(down, abreast, squeeze=False)
    for empty in grid.flat[count:]:
        empty.set_axis_off()
    return figure, list(grid.flat[:count])


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Draw one legend for all panels, since any of them may lack a row."""
    drawn: dict[str, Artist] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(len(drawn), 4))


def saved(figure: Figure, kind: str) -> bytes:
    """The file's content, without the date so that the same figure gives the same bytes."""
    stream = io.BytesIO()
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    with styled():
        figure.savefig(stream, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
    return stream.getvalue()
