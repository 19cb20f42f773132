"""Drawing: all plots of a report, in the order in which it shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gelkit.files import make_folder, remove, write_atomically
from gelkit.report.plots.answer import draw_answer
from gelkit.report.plots.calibration import draw_calibration
from gelkit.report.plots.canvas import Drawing, Plot, house_style, render
from gelkit.report.plots.confusion import draw_confusion
from gelkit.report.plots.contributions import draw_contributions
from gelkit.report.plots.durations import draw_durations
from gelkit.report.plots.embedding_map import draw_map
from gelkit.report.plots.figures import Figures
from gelkit.report.plots.heatmap import draw_heatmap
from gelkit.report.plots.learning import draw_learning_curve
from gelkit.report.plots.threshold_curves import draw_precision_recall, draw_roc

PLOTS: Mapping[str, Callable[[Figures], Drawing | None]] = {
    "answer": draw_answer,
    "heatmap": draw_heatmap,
    "axes": draw_contributions,
    "roc": draw_roc,
    "precision_recall": draw_precision_recall,
    "confusion": draw_confusion,
    "calibration": draw_calibration,
    "learning_curve": draw_learning_curve,
    "time": draw_durations,
    "map": draw_map,
}
"""What draws a plot, by the plot's name."""


def draw_plots(figures: Figures) -> tuple[Plot, ...]:
    """Draw all plots that the figures suffice for, in the order of :data:`PLOTS`.

    Which ones are missing and why, ``figures.gaps`` says.
    """
    plots = []
    with house_style():
        for name, draw in PLOTS.items():
            drawing = draw(figures)
            if drawing is not None:
                plots.append(render(name, drawing))
    return tuple(plots)


def save_plots(plots: Sequence[Plot], folder: Path) -> None:
    """Write each plot as ``<name>.svg`` and ``<name>.png``; a reader never sees half of one.

    Those that were drawn before, and are not any more, go.

    :raises OSError: the disk refused.
    """
    make_folder(folder)
    outdated = PLOTS.keys() - {plot.name for plot in plots}
    remove([folder / f"{name}.{end}" for name in outdated for end in ("svg", "png")])
    for plot in plots:
        write_atomically(folder / f"{plot.name}.svg", plot.svg.encode())
        write_atomically(folder / f"{plot.name}.png", plot.png)
