"""Overlays: laying one picture over another by an affine map, and where both count then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Picture: TypeAlias = "npt.NDArray[np.float32]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"
Motion: TypeAlias = "npt.NDArray[np.float64]"
"""An affine map, (2, 3): rows, then columns; in pixels at the edges of the picture."""

MIN_OVERLAP = 0.55
"""Of the picture, where both count; without any motion the margins leave 0.73."""

_SETTLED = 0.03
"""A step of fewer pixels than this is the last one of its scale."""


class Grid:
    """The pixels of square pictures of one size.

    :param side: pixels along each side.
    :param margin: pixels at each edge that do not count: frames, labels and what a crop cuts off.
    """

    def __init__(self, side: int, margin: int) -> None:
        self.side = side
        self._margin = margin
        self._rows, self._columns = np.mgrid[:side, :side].astype(np.float32)
        centre = (side - 1) / 2
        self._axes = (
            np.ones_like(self._rows),
            (self._rows - centre) / centre,
            (self._columns - centre) / centre,
        )
        """How far each parameter of a motion moves each pixel."""

    def refine(
        self, still: Picture, moving: Picture, motion: Motion, scales: Iterable[tuple[float, int]]
    ) -> Motion:
        """Return the motion that raises the correlation of two pictures most, from a near one.

        By Gauss-Newton steps (Evangelidis and Psarakis, IEEE TPAMI 30 (2008) 1858).

        :param scales: blur (in pixels) and most steps, from coarse to fine.
        """
        from scipy.ndimage import gaussian_filter

        for blur, steps in scales:
            smooth_still, smooth_moving = (gaussian_filter(p, blur) for p in (still, moving))
            for _ in range(steps):
                moved, inside = self.moved(smooth_moving, motion, order=1)
                if inside.mean() < MIN_OVERLAP:
                    return motion
                step = self._step(smooth_still, moved, inside)
                motion = motion + step
                if np.abs(step).max() < _SETTLED:
                    break
        return motion

    def moved(self, picture: Picture, motion: Motion, order: int) -> tuple[Picture, Mask]:
        """Return the picture taken from where the motion points, and where both pictures count."""
        from scipy.ndimage import map_coordinates

        rows = self._rows + sum(
            part * axis for part, axis in zip(motion[0], self._axes, strict=True)
        )
        columns = self._columns + sum(
            part * axis for part, axis in zip(motion[1], self._axes, strict=True)
        )
        counting = [self._counts(its) for its in (self._rows, self._columns, rows, columns)]
        moved: Picture = map_coordinates(picture, (rows, columns), order=order, mode="nearest")
        return moved, np.logical_and.reduce(counting)

    def _step(self, still: Picture, moved: Picture, inside: Mask) -> Motion:
        """Return the step, (2, 3), towards the greatest correlation where both count."""
        down, right = np.gradient(moved)
        slopes = np.stack([slope * axis for slope in (down, right) for axis in self._axes], axis=-1)
        slopes = slopes[inside]
        wanted, present = still[inside], moved[inside]
        scale = present.std() + 1e-6
        missing = standardised(wanted) - standardised(present)
        slopes = (slopes - slopes.mean(axis=0)) / scale
        normal = slopes.T @ slopes
        damped = normal + 1e-3 * (np.trace(normal) / 6 + 1e-6) * np.eye(6)
        step: Motion = np.linalg.solve(damped, slopes.T @ missing).reshape(2, 3)
        return step

    def _counts(self, position: npt.NDArray[np.floating]) -> Mask:
        return (position >= self._margin) & (position <= self.side - 1 - self._margin)


def standardised(values: Picture) -> Picture:
    """Return values less their mean, by their standard deviation."""
    its: Picture = (values - values.mean()) / (values.std() + np.float32(1e-6))
    return its
