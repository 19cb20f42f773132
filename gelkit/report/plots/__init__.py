"""Plots: what a comparison shows, as pictures with captions and words for those who cannot see."""

from gelkit.report.plots.canvas import Plot
from gelkit.report.plots.drawing import PLOTS, draw_plots, save_plots
from gelkit.report.plots.figures import Figures, Predictions, read_figures

__all__ = [
    "PLOTS",
    "Figures",
    "Plot",
    "Predictions",
    "draw_plots",
    "read_figures",
    "save_plots",
]
