"""Details: whether two pictures that look alike are one exposure.

Rows of bands on black lie over each other whatever they are: lanes, brightness and product are the
comb's and the protocol's. What two exposures do not share is the rest: the edge of a membrane, a
speckle, the grain of the background. So greys give way to their ranks among all greys, by which
faint details count as much as bands, and contrast, gamma and polarity do not count; and each place
counts alike, be it a band or background.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gelkit.images.overlays import MIN_OVERLAP, Grid, Mask, Motion, Picture
from gelkit.images.registration import SKETCH_SIDE, lay_over, sketch
from gelkit.images.views import VIEW_SIZE, View

MIN_FAINT, MIN_PLAIN = 0.66, 0.957
"""What one exposure reaches, one or the other; see :class:`Details`.

Of 15,125 pairs of different pictures (blots and halves of blots of one laboratory, copies of these
that had lost most of their faint details, drawn gels and photographed ones), 326 agreed as
sketches; of these none had more than .61 and .90, and once two blots had .945 after both had lost
their background. Of 653 altered copies three had less than both.
"""

CERTAIN = 0.8
"""Of :attr:`Details.faint`: far from what different pictures reach."""

_SIDE = 112
_STEP = VIEW_SIZE // _SIDE
_GRID = Grid(_SIDE, margin=7)
_SCALES = ((2.0, 8), (1.0, 8), (0.5, 8))
"""Blur in pixels of :data:`_SIDE`, and most steps of the registration, from coarse to fine."""

_BLURS = (1.0, 2.0)
"""A detail is what a Gaussian of this leaves and one of twice this takes away."""
_WINDOW = 4.0
"""Standard deviation of the Gaussian within which details are compared: about a band."""
_LEAST_RANKS, _LEAST_GREYS = 1.5, 0.3
"""Root mean square of a window's details, of 255 ranks or greys: less is nothing to compare."""
_FEWEST_PLACES = 0.02
"""Of all places, those with details in both pictures; fewer tell nothing."""


@dataclass(frozen=True)
class Details:
    """How well the details of two pictures agree once one is laid over the other, 1 at best."""

    faint: float
    """Of ranks: the median correlation of all places, the mean of two sizes of details."""
    plain: float
    """Of greys: the correlation that three quarters of the places reach.

    It is all there is where a copy has lost its faint details, as one of gamma 2 has; it must be
    high, because bands are alike.
    """

    @property
    def agree(self) -> bool:
        """Whether the pictures are one exposure."""
        return self.faint >= MIN_FAINT or self.plain >= MIN_PLAIN

    @property
    def are_certain(self) -> bool:
        """Whether faint details say so, and by far."""
        return self.faint >= CERTAIN


NONE, ALL = Details(0.0, 0.0), Details(1.0, 1.0)


def compare_details(view: View, other: View) -> Details:
    """Compare the details of two clean views whose sketches agree.

    :param view: uint8 (224, 224), turned and cut as the other is.
    :returns: the same whichever comes first; nothing agrees where the sketches do not, or where
        either picture is blank, unless both are equal.
    """
    one, two = sorted((view, other), key=lambda its: its.tobytes())
    if np.array_equal(one, two):
        return ALL
    laid = _laid_over(one, two)
    if laid is None:
        return NONE
    still, moving = _halved(one), _halved(laid.of_polarity(two))
    moved, inside = _GRID.moved(moving, laid.motion, order=3)
    if inside.mean() < MIN_OVERLAP:
        return NONE
    ranks, other_ranks = _ranked(still, inside), _ranked(moved, inside)
    faint = [_agreement(ranks, other_ranks, inside, blur, _LEAST_RANKS, 50) for blur in _BLURS]
    plain = _agreement(still, moved, inside, _BLURS[0], _LEAST_GREYS, 25)
    return Details(sum(faint) / len(faint), plain)


def moved_onto(view: View, other: View) -> View:
    """Return the second view as it lies over the first; as it is where their sketches differ."""
    laid = _laid_over(view, other)
    if laid is None:
        return other
    moving = laid.of_polarity(other).astype(np.float32)
    moved, _ = Grid(VIEW_SIZE, margin=0).moved(moving, laid.motion * _STEP, order=1)
    return np.rint(moved).astype(np.uint8)


@dataclass(frozen=True)
class _Laid:
    """How one view lies over another."""

    motion: Motion
    """In pixels of :data:`_SIDE`."""
    is_inverted: bool

    def of_polarity(self, view: View) -> View:
        return 255 - view if self.is_inverted else view


def _laid_over(still: View, moving: View) -> _Laid | None:
    overlay = lay_over(sketch(still), sketch(moving))
    if overlay is None:
        return None
    start = overlay.motion * (_SIDE / SKETCH_SIDE)
    laid = _Laid(start, overlay.is_inverted)
    one, other = (_contrast(_halved(its)) for its in (still, laid.of_polarity(moving)))
    return replace(laid, motion=_GRID.refine(one, other, start, _SCALES))


def _halved(view: View) -> Picture:
    halved: Picture = view.reshape(_SIDE, _STEP, _SIDE, _STEP).mean((1, 3), dtype=np.float32)
    return halved


def _contrast(picture: Picture) -> Picture:
    """Return what :func:`gelkit.images.registration.sketch` does, of a larger picture."""
    detail = picture - _blurred(picture, 12)
    variation = np.sqrt(_blurred(detail**2, 20))
    contrast: Picture = (detail / (variation + 0.5 * detail.std() + 1)).clip(-4, 4)
    return contrast


def _ranked(picture: Picture, inside: Mask) -> Picture:
    """Return the rank of each grey among those that count, from 0 to 255."""
    greys, counts = np.unique(np.round(picture[inside], 1), return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    ranked: Picture = np.interp(picture, greys, 255 * ranks).astype(np.float32)
    return ranked


def _agreement(
    picture: Picture, other: Picture, inside: Mask, blur: float, least: float, percentile: float
) -> float:
    """Return a percentile, over all places with details in both, of their correlation there."""
    details, others = (_blurred(p, blur) - _blurred(p, 2 * blur) for p in (picture, other))
    power, other_power = _blurred(details**2, _WINDOW), _blurred(others**2, _WINDOW)
    counts = inside & (np.minimum(power, other_power) > least**2)
    if counts.sum() < _FEWEST_PLACES * inside.sum():
        return 0.0
    together = _blurred(details * others, _WINDOW)[counts]
    correlations = together / np.sqrt(power[counts] * other_power[counts])
    return float(np.percentile(correlations, percentile))


def _blurred(picture: Picture, blur: float) -> Picture:
    from scipy.ndimage import gaussian_filter

    blurred: Picture = gaussian_filter(picture, blur, mode="nearest")
    return blurred
