"""Luminance: one upright grey picture out of colour, transparency and orientation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.images.pictures import Samples

WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue, ITU-R BT.601-7, table 3; applied to the values as stored."""

ORIENTATIONS: dict[int, Callable[[Samples], Samples]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
"""How stored samples, (height, width, ...), are turned upright: TIFF 6.0, tag 274; EXIF's too."""


def known_orientation(tag: object) -> int:
    """Return what an orientation tag says, or 1 where it says nothing that has a meaning."""
    return tag if isinstance(tag, int) and tag in ORIENTATIONS else 1


def upright(stored: Samples, orientation: int) -> Samples:
    """Turn stored samples, (height, width, ...), as their orientation, 1 to 8, asks."""
    return np.ascontiguousarray(ORIENTATIONS[orientation](stored))


def grey_of_colour(colour: Samples) -> Samples:
    """Return the luminance of red, green and blue, in the units in which they are stored.

    :param colour: (height, width, 3).
    :returns: (height, width): uint8 of uint8 (rounded by Pillow), else float32.
    """
    if colour.dtype == np.uint8:
        return np.asarray(Image.fromarray(colour).convert("L"))
    grey: npt.NDArray[np.float32] = colour.astype(np.float32) @ np.array(WEIGHTS, np.float32)
    return grey


def laid_on_white(grey: Samples, opacity: Samples, premultiplied: bool = False) -> Samples:
    """Lay a picture of which parts are transparent on white.

    :param grey: (height, width), in 0 to 1 where 1 is white.
    :param opacity: the same shape, in 0 (transparent) to 1.
    :param premultiplied: whether ``grey`` has been multiplied by ``opacity``.
    """
    own = grey if premultiplied else grey * opacity
    laid: Samples = np.clip(own + (1 - opacity), 0, 1)
    return laid


_COLOUR_PLACES = 64
"""Rows and columns in which colour is looked for: all of them take as long as decoding."""


def is_coloured(colour: Samples, least: float) -> bool:
    """Tell whether red, green and blue differ by more than ``least`` in a grid of places."""
    rows, columns = (max(1, side // _COLOUR_PLACES) for side in colour.shape[:2])
    places = colour[::rows, ::columns].astype(np.float32)
    red, green, blue = places[..., 0], places[..., 1], places[..., 2]
    return bool(np.abs(red - green).max() > least or np.abs(green - blue).max() > least)
