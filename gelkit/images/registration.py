"""Registration: how well two pictures agree once one is laid over the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.images.overlays import MIN_OVERLAP, Grid, Mask, Motion, Picture, standardised
from gelkit.images.views import VIEW_SIZE, View

_MIN_SHIFTED_CORRELATION = 0.6
"""What any copy reaches by a shift alone; cropping 5% at one side leaves 0.72."""

Sketch: TypeAlias = "npt.NDArray[np.int8]"
"""A view's local contrast, (56, 56): what is kept of a picture to compare it with others."""

SKETCH_SIDE = 56
_STEP = VIEW_SIZE // SKETCH_SIDE
_GRID = Grid(SKETCH_SIDE, margin=4)
_LEVELS = 31
_MAX_CONTRAST = 4.0
_MAX_SHIFT = 5
_SCALES = ((1.5, 12), (0.0, 8))
"""Blur (in sketch pixels) and most steps of the registration, from coarse to fine."""
_WINDOW = np.sqrt(np.hanning(SKETCH_SIDE + 2)[1:-1])
_TAPER = np.outer(_WINDOW, _WINDOW).astype(np.float32)
"""Weights that fall to 0 at the edges, where a shift brings in what the other picture lacks."""


def sketch(view: View) -> Sketch:
    """Return the local contrast of a clean view: brightness, contrast and gamma hardly matter.

    The picture at a quarter of its size, less its surroundings (a Gaussian of 10 of these pixels, a
    lane or two), divided by how much they vary. The other polarity has the negative sketch.
    """
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(view.astype(np.float32), 0.6 * _STEP, mode="nearest")
    small = blurred.reshape(SKETCH_SIDE, _STEP, SKETCH_SIDE, _STEP)[:, 1:3, :, 1:3].mean((1, 3))
    detail = small - gaussian_filter(small, 10, mode="nearest")
    variation = np.sqrt(gaussian_filter(detail**2, 20, mode="nearest"))
    contrast = detail / (variation + 0.5 * detail.std() + 1)
    levels: Sketch = np.rint(contrast.clip(-_MAX_CONTRAST, _MAX_CONTRAST) * _LEVELS).astype(np.int8)
    return levels


def similarity(sketch: Sketch, other: Sketch) -> float:
    """Return how well the structure of two pictures agrees once one is laid over the other.

    The pictures must correlate (0.6) in one polarity after some shift. From there an affine map is
    refined by Gauss-Newton steps, so that crops, resizing and slight turns
    are undone.

    What counts then is the correlation of what is left without the mean profiles of rows and
    columns. Gels of one comb share their lanes, and gels of one product its row, but which lane has
    which band is an exposure's own.

    :returns: that correlation, 1 at best; 0 where the pictures do not correlate. The same whichever
        comes first. Two blank pictures are alike.
    """
    if np.array_equal(sketch, other) or np.array_equal(sketch, -other):
        return 1.0
    overlay = lay_over(*sorted((sketch, other), key=bytes))
    return overlay.similarity if overlay is not None else 0.0


@dataclass(frozen=True)
class Overlay:
    """How one picture lies over another, and how well their structure agrees there."""

    similarity: float
    motion: Motion
    """Of sketches; where :meth:`gelkit.images.overlays.Grid.moved` takes the second from."""
    is_inverted: bool
    """Whether one is the negative of the other."""


def lay_over(still: Sketch, moving: Sketch) -> Overlay | None:
    """Lay the second picture over the first, as :func:`similarity` says; None if they differ."""
    one, other = still.astype(np.float32), moving.astype(np.float32)
    correlation, shift = _best_shift(one, other)
    if abs(correlation) < _MIN_SHIFTED_CORRELATION:
        return None
    other = other * np.float32(np.sign(correlation))
    start = np.array([[shift[0], 0, 0], [shift[1], 0, 0]], dtype=np.float64)
    motion = _GRID.refine(one, other, start, _SCALES)
    moved, inside = _GRID.moved(other, motion, order=3)
    if inside.mean() < MIN_OVERLAP:
        return None
    agreement = _correlation(
        _without_profiles(one, inside), _without_profiles(moved, inside), inside
    )
    return Overlay(agreement, motion, correlation < 0)


def _best_shift(still: Picture, moving: Picture) -> tuple[float, tuple[int, int]]:
    """Return the correlation that is greatest in magnitude, and the shift (down, right) there."""
    still, moving = still * _TAPER, moving * _TAPER
    side = SKETCH_SIDE + _MAX_SHIFT + 3  # larger by more than a shift, so that nothing wraps
    shape = (side, side)
    spectrum = np.conj(np.fft.rfft2(still, shape)) * np.fft.rfft2(moving, shape)
    shifts = np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)
    products = np.fft.irfft2(spectrum, shape)[np.ix_(shifts, shifts)]
    place = np.unravel_index(np.abs(products).argmax(), products.shape)
    power = float(np.sqrt((still**2).sum() * (moving**2).sum()))
    correlation = float(products[place]) / power if power else 0.0
    return correlation, (int(shifts[place[0]]), int(shifts[place[1]]))


def _without_profiles(picture: Picture, inside: Mask) -> Picture:
    """Return the picture less the mean profile of its rows and of its columns."""
    for axis in (0, 1, 0, 1):  # twice, because a mask that is no rectangle couples the two
        present = np.maximum(inside.sum(axis=axis, keepdims=True), 1)
        picture = picture - (picture * inside).sum(axis=axis, keepdims=True) / present
    return picture


def _correlation(picture: Picture, other: Picture, inside: Mask) -> float:
    return float((standardised(picture[inside]) * standardised(other[inside])).mean())
