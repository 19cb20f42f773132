"""Durations: what each configuration takes, extraction apart from training."""

from __future__ import annotations

import numpy as np

from gelkit.report.plots.canvas import COLOURS, MARKERS, Drawing, listed, new_figure
from gelkit.report.plots.figures import Figures

TITLE = "Time of each configuration"

_ROW = 0.19  # inches

STAGES = {
    "extraction_time_secs": "extraction",
    "training_time_secs": "training",
    "inference_time_secs": "inference of the head",
}


def draw_durations(figures: Figures) -> Drawing:
    """Draw the seconds of each stage, on a logarithmic axis; what took none is left out."""
    results = figures.results.sort_values("model_id")
    figure, (axes,) = new_figure(1.1 + _ROW * len(results))
    for (column, name), colour, marker in zip(STAGES.items(), COLOURS, MARKERS, strict=False):
        seconds = results[column].where(results[column] > 0)
        axes.plot(seconds, range(len(results)), marker, color=colour, markersize=5, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.xaxis.minorticks_off()
    axes.set_yticks(range(len(results)), [figures.label(i) for i in results["model_id"]])
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper left", ncols=len(STAGES), fontsize=8)
    return Drawing(TITLE, _caption(figures), _alt(figures), figure)


def _caption(figures: Figures) -> str:
    first = figures.results.iloc[0]
    devices = sorted(set(figures.results["device"]))
    return (
        f"Extraction embeds the {first['n_images']} images once and serves all heads on that "
        "backbone and hardware; it is the sum over processes, whenever they ran. Training is the "
        f"{first['repeats']} x {first['folds']} fits of the cross-validation and the final one. "
        f"Inference is one pass of the head over all embeddings. Devices: {listed(devices)}."
    )


def _alt(figures: Figures) -> str:
    ranges = [
        f"{name} {figures.results[column].min():.3g} to {figures.results[column].max():.3g} s"
        for column, name in STAGES.items()
        if not np.isnan(figures.results[column]).all()
    ]
    return f"Times of {len(figures.results)} configurations: {', '.join(ranges)}."
