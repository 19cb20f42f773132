"""Polarity: whether a picture's background is dark or light, where no file says it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.images.pictures import UNKNOWN, Samples

OPPOSITE = {"dark-background": "light-background", "light-background": "dark-background"}

_LONGER_SIDE = 128
"""Pixels to which a picture is shrunk first: bands survive; noise and scratches do not."""
_NEIGHBOURHOOD = 8
"""Pixels of the shrunk picture over which brightness is the surroundings': wider than bands."""
_LEAST_LEANING = 0.3
"""In standard deviations. Of the seed's 46 gels, all dark, none leans less than 0.86."""


def inverted(pixels: Samples) -> Samples:
    """Swap dark and light of uint8 (0 to 255) or of floating point (0 to 1) pixels."""
    return 255 - pixels if pixels.dtype == np.uint8 else np.float32(1) - pixels


def guessed_polarity(pixels: Samples) -> str:
    """Guess the background of a gel from which way details stick out of their surroundings.

    Bands, wells and labels are brighter than what is around them on a dark background, darker on
    a light one, however the whole is lit. So the picture is shrunk, its local mean taken away,
    and the 1st and 99th percentile of what remains are added: the sign says which side reaches
    farther. Inverting the picture inverts the guess. It is made for gels: of photographs it says
    nothing, and it errs where a frame, or labels of the other polarity, outweigh the bands.

    :param pixels: (height, width), uint8 or floating point.
    :returns: ``dark-background``, ``light-background``, or ``unknown`` of a picture without detail.
    """
    details = _details(pixels)
    spread = float(details.std())
    if spread <= 1e-6 * float(pixels.max()):
        return UNKNOWN
    leaning = float(np.percentile(details, (1, 99)).sum()) / spread
    if abs(leaning) < _LEAST_LEANING:
        return UNKNOWN
    return "dark-background" if leaning > 0 else "light-background"


def _details(pixels: Samples) -> npt.NDArray[np.float64]:
    """Return the shrunk picture less its local mean."""
    height, width = pixels.shape
    scale = min(1.0, _LONGER_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(pixels.astype(np.float32)).resize(size, Image.Resampling.BOX)
    coarse = max(1, round(size[0] / _NEIGHBOURHOOD)), max(1, round(size[1] / _NEIGHBOURHOOD))
    surroundings = small.resize(coarse, Image.Resampling.BOX).resize(
        size, Image.Resampling.BILINEAR
    )
    return np.asarray(small, np.float64) - np.asarray(surroundings, np.float64)
