"""Learning: whether more images would help."""

from __future__ import annotations

from gelkit.heads.learning_curves import LearningCurve, learning_curve
from gelkit.report.plots.canvas import COLOURS, Drawing, new_figure
from gelkit.report.plots.figures import Figures

TITLE = "Learning curve"

_HEIGHT = 3.2  # inches
_SIGNIFICANT = 0.05


def draw_learning_curve(figures: Figures) -> Drawing | None:
    """Draw the accuracy of logistic regressions against the groups that they train on.

    None if embeddings or predictions are not at hand, or there are too few groups.
    """
    predictions, embeddings = figures.predictions, figures.embeddings
    if predictions is None or embeddings is None:
        return None
    curve = learning_curve(
        embeddings, predictions.targets, predictions.splits, predictions.groups, seed=figures.seed
    )
    if curve is None:
        return None
    figure, (axes,) = new_figure(_HEIGHT)
    axes.fill_between(
        curve.groups, curve.low, curve.high, color=COLOURS[0], alpha=0.18, linewidth=0
    )
    axes.plot(curve.groups, curve.repeats, ".", color=COLOURS[0], alpha=0.6, markersize=4)
    axes.plot(curve.groups, curve.accuracy, "o-", color=COLOURS[0], markersize=5)
    winner = figures.row(figures.winner)
    axes.plot(curve.groups[-1], winner["accuracy"], "D", color=COLOURS[1], markersize=6)
    axes.annotate(
        "best configuration",
        (curve.groups[-1], winner["accuracy"]),
        xytext=(-7, 0),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
    )
    axes.set_xlim(0, curve.groups[-1] * 1.03)
    axes.set_xlabel("groups of images to train on")
    axes.set_ylabel("accuracy")
    return Drawing(TITLE, _caption(figures, curve), _alt(curve), figure)


def _caption(figures: Figures, curve: LearningCurve) -> str:
    cut = " Larger shares of the training groups would take too long." if curve.is_cut else ""
    return (
        "Not the heads, but logistic regressions on the best configuration's embeddings, which "
        f"learn in moments: the accuracy on the folds they did not see, with 95% intervals; dots "
        f"are single repeats, each with other groups.{cut} {_advice(curve)}"
    )


def _advice(curve: LearningCurve) -> str:
    """Say whether more images would help, as far as half against all of the groups shows."""
    if curve.rise != curve.rise:
        return "There are too few groups to say whether more would help."
    change = f"From half of the groups to all, accuracy changes by {100 * curve.rise:+.1f} points"
    if curve.p_value < _SIGNIFICANT and curve.rise > 0:
        return f"{change} (p = {curve.p_value:.2g}): more images are likely to help."
    return (
        f"{change}, which chance explains (p = {curve.p_value:.2g}): it is not shown that more "
        "images of the same kind would help, nor that they would not."
    )


def _alt(curve: LearningCurve) -> str:
    points = [
        f"{groups:.0f} groups {accuracy:.3f} ({low:.3f} to {high:.3f})"
        for groups, accuracy, low, high in zip(
            curve.groups, curve.accuracy, curve.low, curve.high, strict=True
        )
    ]
    return f"Accuracy of a logistic regression by training groups: {', '.join(points)}."
