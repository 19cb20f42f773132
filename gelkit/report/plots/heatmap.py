"""The heat map: all metrics of all configurations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gelkit.report.plots.canvas import COLOUR_MAP, Drawing, new_figure, readable
from gelkit.report.plots.figures import Figures
from gelkit.text import shown

TITLE = "All metrics of all configurations"

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced\naccuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC\nAUC",
}
"""Those of which more is better, all fractions."""

_ROW = 0.2  # inches


def draw_heatmap(figures: Figures) -> Drawing:
    """Draw metrics over model ids as colours with their figures."""
    results = figures.results.sort_values("model_id")
    values = results[list(METRICS)].to_numpy(dtype=np.float64)
    figure, (axes,) = new_figure(0.7 + _ROW * len(results))
    floor = _floor(values)
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=COLOUR_MAP, vmin=floor, vmax=1.0)
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column + 0.5,
            row + 0.5,
            "-" if np.isnan(value) else f"{value:.3f}",
            ha="center",
            va="center_baseline",
            fontsize=7.5,
            color=readable((value - floor) / (1 - floor)),
        )
    axes.set_xticks(np.arange(len(METRICS)) + 0.5, list(METRICS.values()))
    axes.set_yticks(np.arange(len(results)) + 0.5, [figures.label(i) for i in results["model_id"]])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set_visible(False)
    return Drawing(TITLE, _caption(figures), _alt(figures), figure)


def _floor(values: npt.NDArray[np.float64]) -> float:
    """Return where the colours begin: at the lowest tenth that is there, not above 0.9."""
    known = values[~np.isnan(values)]
    return float(min(np.floor(10 * known.min()) / 10, 0.9)) if len(known) else 0.0


def _caption(figures: Figures) -> str:
    positive = figures.results.iloc[0]["positive"]
    whose = f"those of the class {shown(positive)}" if positive else "means over the classes"
    return (
        "Cross-validated metrics, the lighter the better. Precision, recall and F1 are "
        f"{whose}; a dash is a metric that is not defined. Differences in the last digits are "
        "mostly chance: see the intervals."
    )


def _alt(figures: Figures) -> str:
    ranges = [
        f"{name.replace(chr(10), ' ')} {low:.3f} to {high:.3f}"
        for metric, name in METRICS.items()
        for low, high in [(figures.results[metric].min(), figures.results[metric].max())]
        if low == low
    ]
    return f"Metrics of {len(figures.results)} configurations: {', '.join(ranges)}."
