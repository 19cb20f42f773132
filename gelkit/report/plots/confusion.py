"""Confusion matrices: which classes are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gelkit.report.plots.canvas import COLOUR_MAP, Drawing, new_figure, readable, short
from gelkit.report.plots.figures import Figures
from gelkit.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Confusion matrices"

_CELL = 0.42  # inches
_SIDE_BY_SIDE = 4
"""So many classes at most have their matrices beside each other."""
_LETTERS_ACROSS = 24
"""So many letters of class names fit below a matrix; more are turned."""
_SHOWN_MISTAKES = 3

Floats = npt.NDArray[np.float64]


def draw_confusion(figures: Figures) -> Drawing:
    """Draw the leaders' confusion matrices: images as numbers, shares as colours."""
    matrices = {
        model_id: np.array(figures.row(model_id)["conf_mat"], dtype=np.float64)
        for model_id in figures.leaders
    }
    classes = figures.classes
    beside = len(classes) <= _SIDE_BY_SIDE
    height = 0.95 + _CELL * len(classes)
    across, down = (len(matrices), 1) if beside else (1, len(matrices))
    figure, panels = new_figure(down * height, nrows=down, ncols=across)
    names = [short(name, 14 if beside and len(matrices) > 1 else 20) for name in classes]
    for axes, (model_id, matrix) in zip(panels, matrices.items(), strict=True):
        _draw_matrix(axes, matrix, names)
        axes.set_title(figures.label(model_id), fontsize=8, fontweight="normal")
    return Drawing(TITLE, _caption(figures), _alt(figures, matrices[figures.winner]), figure)


def _draw_matrix(axes: Axes, matrix: Floats, names: list[str]) -> None:
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    axes.pcolormesh(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, edgecolors="#8c8c8c", linewidth=0.3)
    for (row, column), share in np.ndenumerate(shares):
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
    places = np.arange(len(names)) + 0.5
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


def _caption(figures: Figures) -> str:
    first = figures.results.iloc[0]
    which = "The best configuration" + (
        " and the cheapest of those that cannot be told from it" if len(figures.leaders) > 1 else ""
    )
    return (
        f"{which}: out-of-fold predictions of all {first['n_images']} images, the mean over "
        f"{first['repeats']} repeats, which is why there can be fractions of images. Percentages "
        "and colours are shares of the true class."
    )


def _alt(figures: Figures, matrix: Floats) -> str:
    classes = [shown(name) for name in figures.classes]
    recalls = [
        f"{name} {_counted(matrix[i, i])} of {_counted(float(matrix[i].sum()))}"
        for i, name in enumerate(classes)
    ]
    mistakes = matrix * ~np.eye(len(matrix), dtype=bool)
    worst = np.argsort(-mistakes, axis=None, kind="stable")[:_SHOWN_MISTAKES]
    pairs = [divmod(int(place), len(matrix)) for place in worst if mistakes.flat[place] > 0]
    taken = [f"{classes[i]} for {classes[j]} {_counted(matrix[i, j])}" for i, j in pairs]
    said = f"Right predictions of the best configuration: {', '.join(recalls)}."
    return f"{said} Most often mistaken: {', '.join(taken)}." if taken else f"{said} No mistakes."
