"""The answer: the accuracy of all configurations, and what is left of the best one's lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gelkit.report.plots.canvas import COLOURS, Drawing, new_figure
from gelkit.report.plots.figures import Figures
from gelkit.report.plots.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Accuracy of all configurations"

_ROW = 0.19  # inches
_TIED, _APART, _CORRECTED = COLOURS[0], COLOURS[7], COLOURS[1]


def draw_answer(figures: Figures) -> Drawing:
    """Draw each configuration's accuracy with its interval, the best on top."""
    results = figures.results.sort_values(["accuracy", "roc_auc"], ascending=False, kind="stable")
    figure, (axes,) = new_figure(1.1 + _ROW * (len(results) + 1))
    places = np.arange(len(results))
    tied = results["model_id"].isin(_tied(figures)).to_numpy()
    colours = np.where(tied, _TIED, _APART).tolist()
    axes.hlines(places, results["accuracy_low"], results["accuracy_high"], colours)
    for chosen, colour, face in ((tied, _TIED, _TIED), (~tied, _APART, "none")):
        points = results["accuracy"][chosen], places[chosen]
        axes.plot(*points, "o", color=colour, markerfacecolor=face, markersize=5)
    _draw_corrected(axes, figures)
    _draw_majority(axes, figures)
    labels = [figures.label(model_id) for model_id in results["model_id"]]
    answered = figures.assessment is not None
    axes.set_yticks(
        range(-1 if answered else 0, len(labels)),
        [*(["best, corrected"] if answered else []), *labels],
    )
    axes.set_ylim(len(labels) - 0.4, -1.6 if answered else -0.6)
    axes.set_xlabel("accuracy, 95% interval")
    axes.grid(visible=False, axis="y")
    return Drawing(TITLE, _caption(figures), _alt(figures), figure)


def _tied(figures: Figures) -> tuple[int, ...]:
    return () if figures.assessment is None else figures.assessment.answer.tied


def _draw_corrected(axes: Axes, figures: Figures) -> None:
    if figures.assessment is None:
        return
    answer = figures.assessment.answer
    bounds = [answer.interval.low, answer.interval.high]
    axes.plot(bounds, [-1, -1], color=_CORRECTED, linewidth=2.2, solid_capstyle="butt")
    axes.plot(answer.corrected_score, -1, "D", color=_CORRECTED, markersize=6)


def _draw_majority(axes: Axes, figures: Figures) -> None:
    accuracy = _majority(figures)
    if np.isnan(accuracy):
        return
    axes.axvline(accuracy, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        "most frequent class",
        (accuracy, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center" if accuracy > 0.2 else "left",
        fontsize=8,
    )


def _majority(figures: Figures) -> float:
    """Return the accuracy of always answering the most frequent class; NaN if it is not known."""
    if figures.baselines is None:
        return float("nan")
    rows = figures.baselines.loc[figures.baselines["name"] == "majority", "accuracy"]
    return float(rows.iloc[0]) if len(rows) else float("nan")


def _caption(figures: Figures) -> str:
    if figures.assessment is None:
        return (
            "Cross-validated accuracy with 95% intervals. The highest is optimistic: it is the "
            "highest of several."
        )
    tied = (
        "Filled points cannot be told from the best at 95% confidence, hollow ones can. "
        if len(figures.results) > 1
        else ""
    )
    return (
        "Cross-validated accuracy with 95% intervals, groups of images being the unit. "
        f"{tied}The diamond is the best one's accuracy corrected for having been chosen as the "
        "best. The axis does not begin at 0. Intervals that overlap say nothing of whether two "
        "differ: all were tested on the same images."
    )


def _alt(figures: Figures) -> str:
    best = figures.row(figures.winner)
    accuracies = figures.results["accuracy"]
    said = (
        f"Accuracies of {len(accuracies)} configurations from {accuracies.min():.3f} to "
        f"{accuracies.max():.3f}. The best is {figures.label(figures.winner)} with "
        f"{best['accuracy']:.3f} (95% interval {best['accuracy_low']:.3f} to "
        f"{best['accuracy_high']:.3f})"
    )
    if figures.assessment is None:
        return f"{said}."
    answer = figures.assessment.answer
    return (
        f"{said}, corrected {answer.corrected_score:.3f} ({answer.interval.low:.3f} to "
        f"{answer.interval.high:.3f}); {len(set(answer.tied) - {answer.winner})} others cannot be "
        "told from it."
    )
