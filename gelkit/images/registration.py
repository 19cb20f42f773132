"""Registration: how well two pictures agree once one is laid over the other."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.images.views import VIEW_SIZE, View

_MIN_SHIFTED_CORRELATION = 0.6
"""What any copy reaches by a shift alone; cropping 5% at one side leaves 0.72."""

Sketch: TypeAlias = "npt.NDArray[np.int8]"
"""A view's local contrast, (56, 56): what is kept of a picture to compare it with others."""

_Picture: TypeAlias = "npt.NDArray[np.float32]"
_Mask: TypeAlias = "npt.NDArray[np.bool_]"

_SIDE = 56
_STEP = VIEW_SIZE // _SIDE
_MARGIN = 4
"""Sketch pixels at each edge that do not count: frames, labels and what a crop cuts off."""
_LEVELS = 31
_MAX_CONTRAST = 4.0
_MAX_SHIFT = 5
_MIN_OVERLAP = 0.55
"""Of the sketch; without any motion the margins leave 0.73."""

_SCALES = ((1.5, 12), (0.0, 8))
"""Blur (in sketch pixels) and most steps of the registration, from coarse to fine."""
_SETTLED = 0.03
"""A step of fewer sketch pixels than this is the last one of its scale."""

_CENTRE = (_SIDE - 1) / 2
_ROWS, _COLUMNS = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
_AXES = (np.ones_like(_ROWS), (_ROWS - _CENTRE) / _CENTRE, (_COLUMNS - _CENTRE) / _CENTRE)
"""How far each parameter of a motion, which is in sketch pixels, moves each pixel."""

_WINDOW = np.sqrt(np.hanning(_SIDE + 2)[1:-1])
_TAPER = np.outer(_WINDOW, _WINDOW).astype(np.float32)
"""Weights that fall to 0 at the edges, where a shift brings in what the other picture lacks."""


def sketch(view: View) -> Sketch:
    """Return the local contrast of a clean view: brightness, contrast and gamma hardly matter.

    The picture at a quarter of its size, less its surroundings (a Gaussian of 10 of these pixels, a
    lane or two), divided by how much they vary. The other polarity has the negative sketch.
    """
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(view.astype(np.float32), 0.6 * _STEP, mode="nearest")
    small = blurred.reshape(_SIDE, _STEP, _SIDE, _STEP)[:, 1:3, :, 1:3].mean((1, 3))
    detail = small - gaussian_filter(small, 10, mode="nearest")
    variation = np.sqrt(gaussian_filter(detail**2, 20, mode="nearest"))
    contrast = detail / (variation + 0.5 * detail.std() + 1)
    levels: Sketch = np.rint(contrast.clip(-_MAX_CONTRAST, _MAX_CONTRAST) * _LEVELS).astype(np.int8)
    return levels


def similarity(sketch: Sketch, other: Sketch) -> float:
    """Return how well the structure of two pictures agrees once one is laid over the other.

    The pictures must correlate (0.6) in one polarity after some shift. From there an affine map is
    refined by Gauss-Newton steps that raise the correlation (Evangelidis and Psarakis, IEEE TPAMI
    30 (2008) 1858), so that crops, resizing and slight turns are undone.

    What counts then is the correlation of what is left without the mean profiles of rows and
    columns. Gels of one comb share their lanes, and gels of one product its row, but which lane has
    which band is an exposure's own.

    :returns: that correlation, 1 at best; 0 where the pictures do not correlate. The same whichever
        comes first. Two blank pictures are alike.
    """
    if np.array_equal(sketch, other) or np.array_equal(sketch, -other):
        return 1.0
    still, moving = (p.astype(np.float32) for p in sorted((sketch, other), key=bytes))
    correlation, shift = _best_shift(still, moving)
    if abs(correlation) < _MIN_SHIFTED_CORRELATION:
        return 0.0
    moving = moving * np.float32(np.sign(correlation))
    moved, inside = _moved(moving, _register(still, moving, shift), order=3)
    if inside.mean() < _MIN_OVERLAP:
        return 0.0
    return _correlation(_without_profiles(still, inside), _without_profiles(moved, inside), inside)


def _best_shift(still: _Picture, moving: _Picture) -> tuple[float, tuple[int, int]]:
    """Return the correlation that is greatest in magnitude, and the shift (down, right) there."""
    still, moving = still * _TAPER, moving * _TAPER
    shape = (_SIDE + _MAX_SHIFT + 3,) * 2  # larger by more than a shift, so that nothing wraps
    spectrum = np.conj(np.fft.rfft2(still, shape)) * np.fft.rfft2(moving, shape)
    shifts = np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)
    products = np.fft.irfft2(spectrum, shape)[np.ix_(shifts, shifts)]
    place = np.unravel_index(np.abs(products).argmax(), products.shape)
    power = float(np.sqrt((still**2).sum() * (moving**2).sum()))
    correlation = float(products[place]) / power if power else 0.0
    return correlation, (int(shifts[place[0]]), int(shifts[place[1]]))


def _register(still: _Picture, moving: _Picture, shift: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the affine map, (2, 3), that :func:`_moved` needs to lay one over the other."""
    from scipy.ndimage import gaussian_filter

    motion = np.array([[shift[0], 0, 0], [shift[1], 0, 0]], dtype=np.float64)
    for blur, steps in _SCALES:
        smooth_still, smooth_moving = (gaussian_filter(p, blur) for p in (still, moving))
        for _ in range(steps):
            moved, inside = _moved(smooth_moving, motion, order=1)
            if inside.mean() < _MIN_OVERLAP:
                return motion
            step = _step(smooth_still, moved, inside)
            motion = motion + step
            if np.abs(step).max() < _SETTLED:
                break
    return motion


def _step(still: _Picture, moved: _Picture, inside: _Mask) -> npt.NDArray[np.float64]:
    """Return the Gauss-Newton step, (2, 3), towards the greatest correlation where both count."""
    down, right = np.gradient(moved)
    slopes = np.stack([slope * axis for slope in (down, right) for axis in _AXES], axis=-1)[inside]
    wanted, present = still[inside], moved[inside]
    scale = present.std() + 1e-6
    missing = _standardised(wanted) - _standardised(present)
    slopes = (slopes - slopes.mean(axis=0)) / scale
    normal = slopes.T @ slopes
    damped = normal + 1e-3 * (np.trace(normal) / 6 + 1e-6) * np.eye(6)
    step: npt.NDArray[np.float64] = np.linalg.solve(damped, slopes.T @ missing).reshape(2, 3)
    return step


def _moved(
    picture: _Picture, motion: npt.NDArray[np.float64], order: int
) -> tuple[_Picture, _Mask]:
    """Return the picture taken from where the motion points, and where both pictures count."""
    from scipy.ndimage import map_coordinates

    rows = _ROWS + sum(part * axis for part, axis in zip(motion[0], _AXES, strict=True))
    columns = _COLUMNS + sum(part * axis for part, axis in zip(motion[1], _AXES, strict=True))
    inside = _counts(_ROWS) & _counts(_COLUMNS) & _counts(rows) & _counts(columns)
    moved: _Picture = map_coordinates(picture, (rows, columns), order=order, mode="nearest")
    return moved, inside


def _counts(position: npt.NDArray[np.floating]) -> _Mask:
    return (position >= _MARGIN) & (position <= _SIDE - 1 - _MARGIN)


def _without_profiles(picture: _Picture, inside: _Mask) -> _Picture:
    """Return the picture less the mean profile of its rows and of its columns."""
    for axis in (0, 1, 0, 1):  # twice, because a mask that is no rectangle couples the two
        present = np.maximum(inside.sum(axis=axis, keepdims=True), 1)
        picture = picture - (picture * inside).sum(axis=axis, keepdims=True) / present
    return picture


def _correlation(picture: _Picture, other: _Picture, inside: _Mask) -> float:
    return float((_standardised(picture[inside]) * _standardised(other[inside])).mean())


def _standardised(values: _Picture) -> _Picture:
    standardised: _Picture = (values - values.mean()) / (values.std() + np.float32(1e-6))
    return standardised
