"""Threshold curves: ROC, and precision against recall, of the leading configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from gelkit.heads.curves import Curve, precision_recall_curve, roc_curve
from gelkit.heads.datasets import positive_class
from gelkit.report.plots.canvas import COLOURS, LINES, Drawing, listed, new_figure, short_names
from gelkit.report.plots.figures import Figures
from gelkit.report.plots.svg import INK
from gelkit.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROC_TITLE = "ROC curves"
PRECISION_RECALL_TITLE = "Precision against recall"
HARDEST = f"the best one's {len(COLOURS)} hardest classes"

_PANEL = 2.9  # inches
_LINE = 0.17
_CHANCE = (0, (4, 3))

_BAND = (
    "Bands are 95% intervals of the mean curve at each point, from a bootstrap of whole groups of "
    "images; the whole curve leaves its band somewhere more often than that."
)

Compute = Callable[..., Curve | None]


def draw_roc(figures: Figures) -> Drawing | None:
    """Draw the ROC curves; None if predictions are not at hand, or no fold holds two classes."""
    positive = _positive(figures)
    if positive is None and len(figures.classes) == 2:
        positive = 0  # the other class has the same curve, mirrored
    classes = _shown_classes(figures, positive)
    leaders = _curves(figures, roc_curve, classes)
    if figures.winner not in leaders:
        return None
    by_class = _by_class(figures, leaders[figures.winner], classes)
    named = {_with_interval(figures, model_id): curve for model_id, curve in leaders.items()}
    figure, panels = _draw(named, by_class)
    for axes in panels:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=_CHANCE)
        axes.set_xlabel("false positive rate")
    panels[0].set_ylabel("true positive rate")
    return Drawing(
        ROC_TITLE,
        f"{_of_what(figures, positive)} The probabilities of different models need not be "
        "comparable, so each fold sets its own thresholds: at each false positive rate the true "
        "positive rates of folds are averaged, then those of repeats. The area under a curve is "
        f"roc_auc of the results. {_BAND} The dashed line is guessing.",
        f"ROC curves. Area under the curve: {listed(list(named))}{_alt_by_class(by_class)}.",
        figure,
    )


def draw_precision_recall(figures: Figures) -> Drawing | None:
    """Draw precision against recall; None as of :func:`draw_roc`."""
    positive = _positive(figures)
    classes = _shown_classes(figures, positive)
    leaders = _curves(figures, precision_recall_curve, classes)
    if figures.winner not in leaders or figures.predictions is None:
        return None
    by_class = _by_class(figures, leaders[figures.winner], classes)
    named = _named_areas(figures, leaders)
    figure, panels = _draw(named, by_class)
    shares = np.bincount(figures.predictions.targets) / len(figures.predictions.targets)
    panels[0].axhline(float(shares[classes].mean()), color=INK, linewidth=0.9, linestyle=_CHANCE)
    for axes in panels:
        axes.set_xlabel("recall")
    panels[0].set_ylabel("precision")
    return Drawing(
        PRECISION_RECALL_TITLE,
        f"{_of_what(figures, positive)} Each fold takes the highest threshold that reaches a "
        "recall; what the folds then find, right and wrong, is added, and repeats are averaged. "
        f"Figures are areas under the curves. {_BAND} The dashed line is guessing.",
        f"Precision against recall. Area under the curve: {listed(list(named))}"
        f"{_alt_by_class(by_class)}.",
        figure,
    )


def _alt_by_class(by_class: Mapping[str, Curve]) -> str:
    return f"; by class, of the best: {listed(list(by_class))}" if by_class else ""


def _positive(figures: Figures) -> int | None:
    return positive_class(figures.classes, str(figures.results.iloc[0]["positive"]))


def _shown_classes(figures: Figures, positive: int | None) -> list[int]:
    return list(range(len(figures.classes))) if positive is None else [positive]


def _curves(figures: Figures, compute: Compute, classes: Sequence[int]) -> dict[int, Curve]:
    """Return the curves of the leaders whose predictions are at hand, by model id."""
    its = figures.predictions
    if its is None:
        return {}
    curves = {
        model_id: compute(
            its.targets,
            its.probabilities[model_id],
            its.splits,
            its.groups,
            classes,
            seed=figures.seed,
        )
        for model_id in figures.leaders
        if model_id in its.probabilities
    }
    return {model_id: curve for model_id, curve in curves.items() if curve is not None}


def _by_class(figures: Figures, curve: Curve, classes: Sequence[int]) -> dict[str, Curve]:
    """Return what a mean over several classes is the mean of, by the classes' names and areas.

    Of more classes than there are colours, those with the smallest areas.
    """
    if len(classes) == 1:
        return {}
    places = np.flatnonzero(~np.isnan(curve.areas))
    if len(places) > len(COLOURS):
        hardest = np.argsort(curve.areas[places], kind="stable")[: len(COLOURS)]
        places = np.sort(places[hardest])
    names = short_names(figures.classes, 18)
    return {
        f"{names[classes[place]]}: {curve.areas[place]:.3f}": replace(
            curve, y=curve.by_class[place]
        )
        for place in map(int, places)
    }


def _with_interval(figures: Figures, model_id: int) -> str:
    row = figures.row(model_id)
    return (
        f"{figures.label(model_id)}: {row['roc_auc']:.3f} ({row['roc_auc_low']:.3f} to "
        f"{row['roc_auc_high']:.3f})"
    )


def _draw(leaders: Mapping[str, Curve], by_class: Mapping[str, Curve]) -> tuple[Figure, list[Axes]]:
    """Draw the leaders with bands and, beside them, the winner's classes without."""
    panels = [leaders, by_class] if by_class else [leaders]
    height = _PANEL + _LINE * max(2 * len(leaders), len(by_class))
    figure, axes = new_figure(height, ncols=len(panels), sharey=True)
    for curve, colour in zip(leaders.values(), COLOURS, strict=False):
        axes[0].fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    for panel, curves in zip(axes, panels, strict=True):
        lines = [
            panel.plot(curve.x, curve.y, color=colour, linestyle=line)[0]
            for curve, colour, line in zip(curves.values(), COLOURS, cycle(LINES), strict=False)
        ]
        names = [name.replace(": ", "\n", 1) if curves is leaders else name for name in curves]
        panel.legend(lines, names, loc="upper left", bbox_to_anchor=(0, -0.2), fontsize=8)
        panel.set_xlim(-0.01, 1.01)
        panel.set_ylim(-0.01, 1.02)
    if by_class:
        axes[0].set_title("mean over classes")
        axes[1].set_title("the best one's classes" if len(by_class) < len(COLOURS) else HARDEST)
    return figure, axes


def _named_areas(figures: Figures, leaders: Mapping[int, Curve]) -> dict[str, Curve]:
    return {f"{figures.label(i)}: {curve.area:.3f}": curve for i, curve in leaders.items()}


def _of_what(figures: Figures, positive: int | None) -> str:
    """Say which configurations and which classes are drawn."""
    configurations = "The best configuration"
    if len(figures.leaders) > 1:
        configurations += " and the cheapest of those that cannot be told from it"
    classes = (
        "means over the classes, each against the rest"
        if positive is None
        else f"the class {shown(figures.classes[positive])} against the other"
    )
    return f"{configurations}, {classes}."
