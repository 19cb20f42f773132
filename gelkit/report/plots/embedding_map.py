"""The map: the winner's embeddings in a plane, by class and by error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gelkit.heads.maps import map_embeddings
from gelkit.report.plots.canvas import COLOURS, MARKERS, Drawing, new_figure, short_names
from gelkit.report.plots.figures import Figures
from gelkit.report.plots.svg import INK
from gelkit.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Map of the best configuration's embeddings"

MOST_POINTS = 800
"""Of more images so many are drawn by lot: a map of more takes long and shows no more."""

_HEIGHT = 4.4  # inches
_LEGEND_COLUMNS = 3
_MOST_CLASSES = 30
"""Of more classes the largest have a colour and a mark of their own, and the others none."""


def draw_map(figures: Figures) -> Drawing | None:
    """Draw images as points, those of near embeddings near each other, and ring the errors.

    None if embeddings or the winner's predictions are not at hand.
    """
    its, embeddings = figures.predictions, figures.embeddings
    if its is None or embeddings is None or figures.winner not in its.probabilities:
        return None
    drawn = _lot(len(embeddings), figures.seed)
    places = map_embeddings(embeddings[drawn])
    wrong = (its.probabilities[figures.winner].argmax(axis=2) != its.targets).mean(axis=0) > 0.5
    marked = _marked_classes(its.targets, len(figures.classes))
    figure, (axes,) = new_figure(_HEIGHT + 0.17 * -(-len(marked) // _LEGEND_COLUMNS))
    names = short_names(figures.classes, 20)
    _draw_classes(axes, places, its.targets[drawn], {number: names[number] for number in marked})
    axes.plot(
        *places[wrong[drawn]].T,
        "o",
        color=INK,
        markerfacecolor="none",
        markersize=10,
        label="mostly predicted wrong",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    for spine in axes.spines.values():
        spine.set_visible(True)
    handles = axes.get_lines()
    figure.legend(
        handles,
        [str(handle.get_label()) for handle in handles],
        loc="outside lower left",
        ncols=_LEGEND_COLUMNS,
        fontsize=8,
    )
    return Drawing(
        TITLE,
        _caption(len(embeddings), len(drawn), len(figures.classes)),
        _alt(figures, its.targets, wrong),
        figure,
    )


def _lot(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the images that are drawn, in order."""
    chosen = np.random.default_rng(seed).permutation(count)[:MOST_POINTS]
    return np.sort(chosen)


def _marked_classes(targets: npt.NDArray[np.int64], count: int) -> list[int]:
    """Return the numbers of the classes that have marks of their own, in order."""
    sizes = np.bincount(targets, minlength=count)
    largest = np.argsort(-sizes, kind="stable")[:_MOST_CLASSES]
    return [int(number) for number in np.sort(largest)]


def _draw_classes(
    axes: Axes,
    places: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    names: Mapping[int, str],
) -> None:
    """Draw the classes that are named, each with its own pair of colour and mark, and the others.

    :param names: by the classes' numbers.
    """
    others = ~np.isin(targets, list(names))
    if others.any():
        axes.plot(
            *places[others].T, ".", color=INK, alpha=0.35, markersize=4, label="other classes"
        )
    for place, (number, name) in enumerate(names.items()):
        turn, kind = divmod(place, len(COLOURS))
        colour, marker = COLOURS[kind], MARKERS[(kind + turn) % len(MARKERS)]
        axes.plot(
            *places[targets == number].T,
            marker,
            color=colour,
            markersize=4.5,
            markeredgewidth=0,
            alpha=0.85,
            label=name,
        )


def _caption(images: int, drawn: int, classes: int) -> str:
    which = f"{drawn} of the {images} images, drawn by lot" if drawn < images else "All images"
    some = ""
    if classes > _MOST_CLASSES:
        some = f"The {_MOST_CLASSES} largest of {classes} classes are marked. "
    return (
        f"{which}, laid out by t-SNE such that those with near embeddings are near each other. "
        "Rings mark images that the best configuration predicts wrong, out of fold, in most "
        f"repeats. {some}Who is near whom means something; distances between clusters, their "
        "sizes and the axes do not, and clusters can appear where there are none. The heads do not "
        "see this map but the whole embedding."
    )


def _alt(figures: Figures, targets: npt.NDArray[np.int64], wrong: npt.NDArray[np.bool_]) -> str:
    counts = [
        f"{shown(name)} {np.count_nonzero(targets == number)} images, "
        f"{np.count_nonzero(wrong & (targets == number))} of them mostly predicted wrong"
        for number, name in enumerate(figures.classes)
    ]
    more = f"; and {len(counts) - _MOST_CLASSES} more classes" if counts[_MOST_CLASSES:] else ""
    return f"Map of {len(targets)} embeddings by class: {'; '.join(counts[:_MOST_CLASSES])}{more}."
