"""Contributions: what each axis of the configurations changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gelkit.heads.configurations import Configuration
from gelkit.heads.contrasts import AssessedContrast, axis_contrasts
from gelkit.heads.metrics import Probabilities
from gelkit.report.plots.canvas import COLOURS, Drawing, listed, new_figure, short
from gelkit.report.plots.figures import Figures
from gelkit.report.plots.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "What each axis contributes"

_ROW = 0.25  # inches
_LEVEL = 0.95
_SIGNIFICANT = 0.05
_CLEAR, _UNCLEAR = COLOURS[0], COLOURS[7]


@dataclass(frozen=True)
class _Agreement:
    """How two hardware types compare on one backbone."""

    backbone: str
    hardware: tuple[str, str]
    share: float
    """Of the out-of-fold predictions that name the same class, over heads and optimizers."""
    seconds: tuple[float, ...]
    """What extraction took on each."""


def draw_contributions(figures: Figures) -> Drawing | None:
    """Draw the paired differences with their intervals, and how far hardware types agree.

    None if no differences are at hand.
    """
    if figures.assessment is None or not figures.assessment.contrasts:
        return None
    contrasts = figures.assessment.contrasts
    agreements = list(_agreements(figures))
    panels = [len(contrasts), *([len(agreements)] if agreements else [])]
    figure, axes = new_figure(
        _ROW * sum(panels) + 0.75 * len(panels), nrows=len(panels), height_ratios=panels
    )
    _draw_contrasts(axes[0], contrasts, _freedom(figures))
    if agreements:
        _draw_agreements(axes[1], agreements)
    return Drawing(TITLE, _caption(figures, agreements), _alt(contrasts, agreements), figure)


def _freedom(figures: Figures) -> int:
    first = figures.results.iloc[0]
    return int(first["folds"] * first["repeats"]) - 1


def _draw_contrasts(axes: Axes, contrasts: Sequence[AssessedContrast], freedom: int) -> None:
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, contrast in enumerate(contrasts):
        is_clear = contrast.adjusted_p_value < _SIGNIFICANT
        colour = _CLEAR if is_clear else _UNCLEAR
        half = reach(contrast, freedom)
        bounds = [contrast.difference - half, contrast.difference + half]
        axes.plot(bounds, [place, place], color=colour, solid_capstyle="butt")
        face = colour if is_clear else "none"
        axes.plot(contrast.difference, place, "o", color=colour, markerfacecolor=face, markersize=5)
    axes.set_yticks(range(len(contrasts)), [short(contrast.name, 34) for contrast in contrasts])
    axes.set_ylim(len(contrasts) - 0.5, -0.5)
    axes.set_xlabel("difference in accuracy, 95% interval")
    axes.grid(visible=False, axis="y")


def reach(contrast: AssessedContrast, freedom: int) -> float:
    """Return half the width of a difference's interval; NaN if t does not tell.

    t is the difference over its standard error, so it gives the latter back.
    """
    from scipy.special import stdtrit

    if contrast.t == 0:
        return float("nan")
    return float(abs(contrast.difference / contrast.t) * stdtrit(freedom, (1 + _LEVEL) / 2))


def _agreements(figures: Figures) -> Iterator[_Agreement]:
    """Compare hardware types on each backbone, matched on head and optimizer."""
    if figures.predictions is None:
        return
    known = figures.predictions.probabilities
    configurations = [its for its in figures.configurations if its.model_id in known]
    for contrast in axis_contrasts(configurations):
        pairs = [(configurations[i], configurations[j]) for i, j in contrast.pairs]
        if pairs[0][0].hardware == pairs[0][1].hardware:
            continue
        for backbone in dict.fromkeys(first.backbone for first, _ in pairs):
            yield _agreement(
                figures, known, [pair for pair in pairs if pair[0].backbone == backbone]
            )


def _agreement(
    figures: Figures,
    probabilities: Mapping[int, Probabilities],
    pairs: Sequence[tuple[Configuration, Configuration]],
) -> _Agreement:
    same = [
        probabilities[first.model_id].argmax(axis=2)
        == probabilities[second.model_id].argmax(axis=2)
        for first, second in pairs
    ]
    first, second = pairs[0]
    return _Agreement(
        backbone=first.backbone,
        hardware=(first.hardware, second.hardware),
        share=float(np.mean(same)),
        seconds=tuple(
            float(figures.row(its.model_id)["extraction_time_secs"]) for its in (first, second)
        ),
    )


def _draw_agreements(axes: Axes, agreements: Sequence[_Agreement]) -> None:
    shares = [agreement.share for agreement in agreements]
    axes.plot(shares, range(len(shares)), "s", color=_CLEAR, markersize=5, clip_on=False)
    lowest = min(0.9, *shares) - 0.02
    for place, agreement in enumerate(agreements):
        is_right = agreement.share > (1 + lowest) / 2
        axes.annotate(
            f"{100 * agreement.share:.1f} %",
            (agreement.share, place),
            xytext=(-6 if is_right else 6, 0),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="center_baseline",
            fontsize=8,
        )
    axes.set_yticks(range(len(agreements)), [short(_compared(its), 34) for its in agreements])
    axes.set_ylim(len(agreements) - 0.5, -0.5)
    axes.set_xlim(lowest, 1.0)
    axes.set_xlabel("share of predictions that agree")
    axes.grid(visible=False, axis="y")


def _compared(agreement: _Agreement) -> str:
    return f"{agreement.backbone}: {agreement.hardware[0]}, {agreement.hardware[1]}"


def _caption(figures: Figures, agreements: Sequence[_Agreement]) -> str:
    said = (
        "Differences of matched pairs, the first minus the second, with 95% intervals by the "
        "corrected resampled t test (Nadeau and Bengio 2003). Filled points differ from 0 after "
        "Holm's adjustment for all of these comparisons together; the intervals are not adjusted. "
        "Where a difference is exactly 0 no interval is given."
    )
    if not agreements:
        return said
    emulated = sorted({device for device in figures.results["device"] if "emulated" in device})
    how = f" No TPU was used: tpu ran on {listed(emulated)}." if emulated else ""
    times = [
        f"{its.backbone} {its.seconds[0]:.3g} s on {its.hardware[0]} and {its.seconds[1]:.3g} s "
        f"on {its.hardware[1]}"
        for its in agreements
    ]
    return (
        f"{said} Hardware types should only agree: below, the share of out-of-fold predictions "
        f"that name the same class on both. Extraction took {'; '.join(times)}.{how}"
    )


def _alt(contrasts: Sequence[AssessedContrast], agreements: Sequence[_Agreement]) -> str:
    differences = [
        f"{its.name} {its.difference:+.3f} (adjusted p {its.adjusted_p_value:.2g})"
        for its in contrasts
    ]
    agreeing = [f"{_compared(its)} {100 * its.share:.1f} %" for its in agreements]
    said = f"Differences in accuracy: {'; '.join(differences)}."
    return f"{said} Predictions that agree: {'; '.join(agreeing)}." if agreeing else said
