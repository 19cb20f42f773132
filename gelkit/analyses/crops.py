"""Crops: where in one picture another may lie, turned, mirrored, inverted or cropped.

It only proposes: what it finds is confirmed by registering the two pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.analyses.orientations import ORIENTATIONS, Orientation
from gelkit.images.registration import Sketch
from gelkit.images.views import VIEW_SIZE, View

SHARES = (1.0, 0.86, 0.74, 0.64)
"""Of a picture's height and of its width, how much a crop may show.

Registration makes up for a factor of 1.08, so crops down to 0.6 are found.
"""

_SIDE = 28
"""Pixels along each side at which places are looked for: a quarter of a sketch's."""
_PADDED = 32
"""What transforms fast; only places inside the picture are looked at, so wrapping does no harm."""
_WINDOWS = tuple(product(SHARES, SHARES))
_SHAPES = tuple((round(height * _SIDE), round(width * _SIDE)) for height, width in _WINDOWS)
_FLAT = 1e-3
"""The least variance of a place, as a part of the picture's: flat ones agree with anything."""

Region: TypeAlias = tuple[float, float, float, float]
"""Top, left, height and width, as fractions of a picture."""

_Spectra: TypeAlias = "npt.NDArray[np.complex64]"
_Pictures: TypeAlias = "npt.NDArray[np.float32]"


@dataclass(frozen=True)
class Outline:
    """What is kept of a picture to find others in it, and it in others."""

    crops: _Spectra
    """(windows x 32 x 17): of the picture as a crop of each size, its sum of squares 1."""
    wholes: _Spectra
    """(orientations x 32 x 17): of the picture as the whole."""
    scales: _Pictures
    """(windows x orientations x 32 x 32): 1 / norm of each place in the whole; 0 outside."""


@dataclass(frozen=True)
class Place:
    """Where one picture, the crop, may lie in another, the whole."""

    orientation: Orientation
    """How the whole is turned before the crop lies in it upright."""
    top: float
    """Fractions of the turned whole, as are ``left``, ``height`` and ``width``."""
    left: float
    height: float
    width: float
    correlation: float
    """Of the two there; negative where one has the other polarity."""

    @property
    def share(self) -> float:
        """How much of the whole's area the crop shows; rough, in steps of :data:`SHARES`."""
        return self.height * self.width

    @property
    def region(self) -> Region:
        """Where in the turned whole it lies."""
        return self.top, self.left, self.height, self.width


def cut(whole: View, orientation: Orientation, region: Region) -> View:
    """Return the clean view of what a crop shows, cut out of the whole's.

    :param orientation: how the whole is turned before.
    """
    turned = np.ascontiguousarray(orientation.of_picture(whole))
    top, left, height, width = (VIEW_SIZE * part for part in region)
    bottom, right = min(VIEW_SIZE, top + height), min(VIEW_SIZE, left + width)
    picture = Image.fromarray(turned).resize(
        (VIEW_SIZE, VIEW_SIZE), Image.Resampling.BILINEAR, (left, top, right, bottom)
    )
    return np.asarray(picture)


def outline(sketch: Sketch) -> Outline:
    """Return the outline of a picture's sketch (:func:`gelkit.images.registration.sketch`)."""
    from scipy.fft import rfft2

    small = _resized(sketch, _SIDE, _SIDE)
    crops = np.zeros((len(_SHAPES), _PADDED, _PADDED), np.float32)
    for crop, (height, width) in zip(crops, _SHAPES, strict=True):
        picture = _resized(sketch, height, width)
        picture = picture - picture.mean()
        crop[:height, :width] = picture / (np.linalg.norm(picture) + np.float32(1e-6))
    turned = np.stack([orientation.of_picture(small) for orientation in ORIENTATIONS])
    scales = np.zeros((len(_SHAPES), len(ORIENTATIONS), _PADDED, _PADDED), np.float32)
    for scale, shape in zip(scales, _SHAPES, strict=True):
        norms = _norms_of_places(turned, *shape)
        scale[:, : norms.shape[1], : norms.shape[2]] = 1 / norms
    return Outline(np.conj(rfft2(crops)), rfft2(turned, (_PADDED, _PADDED)), scales)


def places(crop: Outline, whole: Outline, count: int) -> tuple[Place, ...]:
    """Return the likeliest places of one picture in another, by normalised cross-correlation.

    Of each size and orientation the best place counts (Lewis, Fast normalized cross-correlation,
    Vision Interface 1995).

    :returns: ``count`` of them, the likeliest first.
    """
    from scipy.fft import irfft2

    spectra = crop.crops[:, None] * whole.wholes
    agreements = irfft2(spectra, (_PADDED, _PADDED)) * whole.scales
    flat = agreements.reshape(len(_SHAPES) * len(ORIENTATIONS), -1)
    peaks = np.abs(flat).argmax(axis=1)
    values = flat[np.arange(len(flat)), peaks]
    chosen = np.argsort(-np.abs(values), kind="stable")[:count]
    return tuple(_place(number, int(peaks[number]), float(values[number])) for number in chosen)


def best_places(one: Outline, other: Outline, count: int) -> list[tuple[Place, bool]]:
    """Return the likeliest places of either picture in the other, and whether ``one`` is the crop.

    :returns: ``count`` of them, the likeliest first.
    """
    found = [(place, True) for place in places(one, other, count)]
    found += [(place, False) for place in places(other, one, count)]
    found.sort(key=lambda pair: -abs(pair[0].correlation))
    return found[:count]


def _place(number: int, peak: int, correlation: float) -> Place:
    window, orientation = divmod(int(number), len(ORIENTATIONS))
    top, left = divmod(peak, _PADDED)
    return Place(
        ORIENTATIONS[orientation], top / _SIDE, left / _SIDE, *_WINDOWS[window], correlation
    )


def _resized(sketch: Sketch, height: int, width: int) -> _Pictures:
    picture = Image.fromarray(sketch.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _norms_of_places(pictures: _Pictures, height: int, width: int) -> _Pictures:
    """Return the norm, less its mean, of each window of a size, (pictures x rows x columns)."""
    sums, squares = (_sums_of_places(p, height, width) for p in (pictures, pictures**2))
    area = height * width
    least = _FLAT * area * float(np.mean(pictures.astype(np.float64) ** 2)) + 1e-6
    return np.sqrt(np.maximum(squares - sums**2 / area, least)).astype(np.float32)


def _sums_of_places(pictures: _Pictures, height: int, width: int) -> npt.NDArray[np.float64]:
    cumulated = np.cumsum(np.cumsum(pictures, axis=1, dtype=np.float64), axis=2)
    padded = np.pad(cumulated, ((0, 0), (1, 0), (1, 0)))
    rows = padded[:, height:] - padded[:, :-height]
    sums: npt.NDArray[np.float64] = rows[:, :, width:] - rows[:, :, :-width]
    return sums
