"""Confusion matrices: which classes are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gelkit.report.plots.canvas import COLOUR_MAP, Drawing, new_figure, readable, short_names
from gelkit.report.plots.figures import Figures
from gelkit.text import inline, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Confusion matrices"

_CELL = 0.42  # inches
_SIDE_BY_SIDE = 4
"""So many classes at most have their matrices beside each other."""
_LETTERS_ACROSS = 24
"""So many letters of class names fit below a matrix; more are turned."""
_SHOWN_MISTAKES = 3
_SHOWN_MISTAKES_OF_MANY = 5
_SHOWN_RECALLS = 30
_MOST_WITH_NUMBERS = 12
"""So many classes at most have numbers in their cells, and a name each; of more, colours alone."""
_MOST_NAMES = 25
"""Beside a side of a matrix."""

Floats = npt.NDArray[np.float64]


def draw_confusion(figures: Figures) -> Drawing:
    """Draw the leaders' confusion matrices: images as numbers, shares as colours."""
    matrices = {
        model_id: np.array(figures.row(model_id)["conf_mat"], dtype=np.float64)
        for model_id in figures.leaders
    }
    classes = figures.classes
    beside = len(classes) <= _SIDE_BY_SIDE
    height = 0.95 + _CELL * min(len(classes), _MOST_WITH_NUMBERS)
    across, down = (len(matrices), 1) if beside else (1, len(matrices))
    figure, panels = new_figure(down * height, nrows=down, ncols=across)
    names = short_names(classes, 14 if beside and len(matrices) > 1 else 20)
    for axes, (model_id, matrix) in zip(panels, matrices.items(), strict=True):
        _draw_matrix(axes, matrix, names)
        axes.set_title(figures.label(model_id), fontsize=8, fontweight="normal")
    winner = matrices[figures.winner]
    return Drawing(TITLE, _caption(figures, winner), _alt(figures, winner), figure)


def _draw_matrix(axes: Axes, matrix: Floats, names: list[str]) -> None:
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    has_numbers = len(matrix) <= _MOST_WITH_NUMBERS
    edges = {"edgecolors": "#8c8c8c", "linewidth": 0.3} if has_numbers else {"rasterized": True}
    axes.pcolormesh(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, **edges)
    for (row, column), share in np.ndenumerate(shares if has_numbers else shares[:0]):
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{_counted(float(matrix[row, column]))}\n{100 * share:.0f} %",
            ha="center",
            va="center",
            fontsize=7,
            linespacing=1.05,
            color=readable(share),
        )
    step = -(-len(names) // _MOST_NAMES)
    places, names = np.arange(len(names))[::step] + 0.5, names[::step]
    if sum(map(len, names)) > _LETTERS_ACROSS:
        axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.invert_yaxis()
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _counted(images: float) -> str:
    """Return a mean of counts with a digit after the point, unless it is whole."""
    return f"{images:.1f}".removesuffix(".0")


def _caption(figures: Figures, matrix: Floats) -> str:
    first = figures.results.iloc[0]
    which = "The best configuration" + (
        " and the cheapest of those that cannot be told from it" if len(figures.leaders) > 1 else ""
    )
    return (
        f"{which}: out-of-fold predictions of all {first['n_images']} images, the mean over "
        f"{first['repeats']} repeats, which is why there can be fractions of images. "
        + _explained(figures, matrix)
    )


def _explained(figures: Figures, matrix: Floats) -> str:
    if len(matrix) <= _MOST_WITH_NUMBERS:
        return "Percentages and colours are shares of the true class."
    step = -(-len(matrix) // _MOST_NAMES)
    named = f", of which one in {step} is named" if step > 1 else ""
    return (
        "Colours are shares of the true class, the lighter the more. The numbers are in the column "
        f"conf_mat of results.csv, its {len(matrix)} classes{named} in the order of the column "
        f"classes. {_mistakes(figures, matrix, _SHOWN_MISTAKES_OF_MANY)}"
    )


def _alt(figures: Figures, matrix: Floats) -> str:
    classes = [shown(name) for name in figures.classes]
    recalls = [
        f"{name} {_counted(matrix[i, i])} of {_counted(float(matrix[i].sum()))}"
        for i, name in enumerate(classes)
    ]
    said = f"Right predictions of the best configuration: {inline(recalls, _SHOWN_RECALLS)}."
    return f"{said} {_mistakes(figures, matrix, _SHOWN_MISTAKES)}"


def _mistakes(figures: Figures, matrix: Floats, most: int) -> str:
    """Say which classes are taken for which most often."""
    classes = [shown(name) for name in figures.classes]
    mistakes = matrix * ~np.eye(len(matrix), dtype=bool)
    worst = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(matrix)) for place in worst if mistakes.flat[place] > 0]
    taken = [f"{classes[i]} for {classes[j]} {_counted(matrix[i, j])}" for i, j in pairs]
    return f"Most often mistaken: {', '.join(taken)}." if taken else "No mistakes."
