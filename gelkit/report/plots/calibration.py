"""Calibration: whether predicted probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gelkit.heads.curves import Reliability, reliability
from gelkit.report.plots.canvas import COLOURS, Drawing, new_figure
from gelkit.report.plots.figures import Figures
from gelkit.report.plots.svg import INK

TITLE = "Calibration of the best configuration"

_HEIGHT = 4.5  # inches
_BARS = 20
_STEP = 0.05  # of where the axis of probabilities may begin
_MARGIN = 0.02


def draw_calibration(figures: Figures) -> Drawing | None:
    """Draw how often predictions were right at each probability, and how frequent that is.

    None if the winner's predictions are not at hand.
    """
    predictions = figures.predictions
    if predictions is None or figures.winner not in predictions.probabilities:
        return None
    probabilities = predictions.probabilities[figures.winner]
    points = reliability(predictions.targets, probabilities, predictions.groups, seed=figures.seed)
    figure, (axes, below) = new_figure(_HEIGHT, nrows=2, height_ratios=(3, 1))
    lowest = 1 / len(figures.classes)
    start = _STEP * np.floor(min(points.confidence) / _STEP)
    axes.fill_between(
        points.confidence, points.low, points.high, color=INK, alpha=0.12, linewidth=0
    )
    axes.plot([start, 1], [start, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(points.confidence, points.observed, "o-", color=COLOURS[0], markersize=5)
    axes.set_xlim(start, 1 + _MARGIN * (1 - start))
    axes.set_ylabel("share that was right")
    confidences = probabilities.max(axis=2).ravel()
    below.hist(
        confidences,
        bins=np.linspace(lowest, 1, _BARS + 1).tolist(),
        weights=np.full(len(confidences), 1 / len(probabilities)),
        color=COLOURS[0],
        alpha=0.7,
    )
    below.set_ylabel("images")
    for panel in (axes, below):
        panel.set_xlabel("probability of the predicted class")
    return Drawing(TITLE, _caption(figures), _alt(figures, points), figure)


def _caption(figures: Figures) -> str:
    verdict = _verdict(figures.row(figures.winner).to_dict())
    return (
        "How often out-of-fold predictions were right, in ten bins of equally many images, by the "
        "probability of the predicted class; on the dashed line both are the same, below it heads "
        "are too sure of themselves. Of calibrated probabilities 95% of the points of each bin "
        f"would lie in the grey band. Below, how frequent the probabilities are. {verdict}"
    )


def _verdict(row: Mapping[Any, Any]) -> str:
    """Say whether the probabilities can be believed, by their expected calibration error."""
    error, chance, slope = row["ece"], row["ece_if_calibrated"], row["calibration_slope"]
    figures = f"(expected calibration error {error:.3f}; by chance up to {chance:.3f})"
    if error <= chance:
        return (
            f"They can be believed as far as these images show: they are off by no more than "
            f"chance {figures}."
        )
    how = "too sure of themselves" if slope < 1 else "not sure enough"
    inclined = "" if slope != slope else f", and heads are {how} (slope {slope:.2f} instead of 1)"
    return (
        f"Do not believe them as they are: they are off by more than chance {figures}{inclined}. "
        "gelkit predict calibrates them where that is shown to help."
    )


def _alt(figures: Figures, points: Reliability) -> str:
    row = figures.row(figures.winner)
    outside = np.count_nonzero((points.observed < points.low) | (points.observed > points.high))
    pairs = [
        f"{confidence:.2f}: {observed:.2f}"
        for confidence, observed in zip(points.confidence, points.observed, strict=True)
    ]
    return (
        f"Share right by mean probability: {', '.join(pairs)}. {outside} of {len(pairs)} points "
        f"lie outside the band. Expected calibration error {row['ece']:.3f}."
    )
