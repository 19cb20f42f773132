"""Views: what a backbone is shown of an image. View 0 is the clean one."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.errors import UsageError
from gelkit.images.formats import DecodedImage, Pixels

View: TypeAlias = "npt.NDArray[np.uint8]"

VIEW_VERSION = 1
"""Part of every recipe; raised whenever the same pixels give another view."""

VIEW_SIZE = 224
"""Pixels along each side, what the ImageNet backbones were trained on."""

GEOMETRIES = {
    "stretch": "the whole image, resized to a square without keeping its aspect",
    "pad": "the whole image, its aspect kept, the rest filled with its border's median grey",
}
WINDOWS = {
    "percentile": "the 0.1 to 99.9 percentile for images of more than 8 bits, else the full range",
    "full": "the full range of the file's type",
}

_WINDOW_PERCENTILES = (0.1, 99.9)


def require_view_options(geometry: str, window: str) -> None:
    """Check that geometry and window are known.

    :raises UsageError: naming the known ones.
    """
    for kind, given, table in (("geometry", geometry, GEOMETRIES), ("window", window, WINDOWS)):
        if given not in table:
            raise UsageError(f"Expected the {kind} {' or '.join(table)}. Received: {given!r}.")


def render(image: DecodedImage, geometry: str = "stretch", window: str = "percentile") -> View:
    """Render the clean view (view 0) of a decoded image.

    :returns: uint8 grey of shape (224, 224), 0 the window's lower end and 255 its upper.
    """
    windowed = image.pixels if window == "full" else _windowed(image.pixels)
    if geometry == "stretch":
        return _resized(windowed, VIEW_SIZE, VIEW_SIZE)
    return _padded(windowed)


def _windowed(pixels: Pixels) -> Pixels:
    """Stretch what lies between the percentiles over the range; 8-bit images stay as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = np.percentile(pixels, _WINDOW_PERCENTILES)
    if high <= low:
        return pixels
    stretched: Pixels = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    return stretched


def _resized(pixels: Pixels, width: int, height: int) -> View:
    """Resize with antialiasing, bilinear like torchvision's presets, and round to 8 bits."""
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    resized = np.asarray(image)
    if resized.dtype == np.uint8:
        return resized
    view: View = np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8)
    return view


def _padded(pixels: Pixels) -> View:
    height, width = pixels.shape
    scale = VIEW_SIZE / max(height, width)
    inner = _resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    border = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    view = np.full((VIEW_SIZE, VIEW_SIZE), np.median(border), dtype=np.uint8)
    top, left = (VIEW_SIZE - inner.shape[0]) // 2, (VIEW_SIZE - inner.shape[1]) // 2
    view[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return view
