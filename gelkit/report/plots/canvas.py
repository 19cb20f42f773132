"""The canvas: how all plots look, and how a drawing becomes a picture; the door of Matplotlib."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from gelkit.own_output import PNG_TEXT
from gelkit.report.plots.svg import INK, portable_svg
from gelkit.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7a6f00",
    "#8c8c8c",
    "#5e3c99",
    "#a6611a",
)
"""Told apart by the colour blind: those of Okabe and Ito (https://jfly.uni-koeln.de/color/), its
yellow darkened and its black exchanged for what shows on black paper as well, and two more."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
"""Beside the colours: no plot says anything by colour alone."""

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))

COLOUR_MAP = "cividis"
"""For shares; the same to the colour blind, and in print from dark to light."""

_MIDDLE = 0.47
"""Of the colour map's way: below it white letters stand out more, above it black ones."""

# Matplotlib leaves #000000 out of an SVG: it would be the page's colour, white if that is dark
_BLACK, _WHITE = "#010101", "#ffffff"

_WIDTH = 5.8
"""Inches; in a column of 700 pixels letters are then 15 pixels high, on a phone 8."""

_DOTS_PER_INCH = 200

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.color": INK,
    "ytick.major.width": 0.7,
}


@dataclass(frozen=True)
class Drawing:
    """A plot before it is a picture."""

    title: str
    caption: str
    """What is shown, how it was computed, and what it cannot say; sentences."""
    alt: str
    """What one sees, in words and numbers."""
    figure: Figure


@dataclass(frozen=True)
class Plot:
    """A plot as pictures."""

    name: str
    """What its files are called, such as ``roc``."""
    title: str
    caption: str
    alt: str
    svg: str
    """An ``<svg>`` element on no background, in the page's text colour; it needs no style sheet,
    script or font, and its ids begin with the name."""
    png: bytes
    """On white, 200 dots per inch."""


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and render as all plots are, whatever Matplotlib's own settings say."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # letters that the font of the PNG lacks are boxes there; the page's font draws the SVG
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(height: float, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as all and its axes, row by row.

    :param height: inches.
    :param grid: as of Matplotlib's ``Figure.subplots``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots(squeeze=False, **grid)
    return figure, [each for row in axes for each in row]


def render(name: str, drawing: Drawing) -> Plot:
    """Return a drawing as pictures: the same bytes for the same drawing."""
    import matplotlib

    svg, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawing.figure.savefig(svg, format="svg")
    drawing.figure.savefig(
        png, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata=dict(PNG_TEXT)
    )
    return Plot(
        name=name,
        title=drawing.title,
        caption=drawing.caption,
        alt=drawing.alt,
        svg=portable_svg(svg.getvalue(), name, drawing.alt),
        png=png.getvalue(),
    )


def short(name: str, most: int = 26) -> str:
    """Return a name that fits beside an axis: unprintable letters spelled out, the middle left out.

    >>> short("agarose, 2 %, stained with SYBR Safe")
    'agarose, 2 %,…th SYBR Safe'
    """
    name = shown(name)
    if len(name) <= most:
        return name
    return f"{name[: most // 2]}…{name[1 - most + most // 2 :]}"


def short_names(names: Sequence[str], most: int = 26) -> list[str]:
    """Return names as :func:`short` does; without the words that all share if that tells none.

    >>> short_names(["gel of the 1st preparation", "gel of the 2nd preparation"], most=12)
    ['…1st…', '…2nd…']
    """
    shortened = [short(name, most) for name in names]
    if len(set(shortened)) == len(set(names)) or len(set(names)) < 2:
        return shortened
    start, end = _shared_words(names), _shared_words([name[::-1] for name in names])
    told = [name[start : len(name) - end] or name for name in names]
    around = ["…" if start else "", "…" if end else ""]
    return [short(f"{around[0]}{name}{around[1]}", most) for name in told]


def _shared_words(names: Sequence[str]) -> int:
    """Return the length of the whole words that all names begin with."""
    letters = zip(*names, strict=False)
    shared = "".join(its[0] for its in takewhile(lambda its: len(set(its)) == 1, letters))
    return len(shared) - len(re.split(r"[\W_]", shared)[-1])


def readable(share: float) -> str:
    """Return the colour of letters on the colour map: black or white, whichever stands out.

    :param share: of the colour map's way, 0 to 1; NaN where there is no colour.
    """
    if np.isnan(share):
        return INK
    return _BLACK if share > _MIDDLE else _WHITE


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
