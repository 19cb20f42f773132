"""Views: what a backbone is shown of an image. View 0 is the clean one, others are augmented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.errors import UsageError
from gelkit.images.augmentations import (
    AUGMENTATIONS,
    DEFAULT_AUGMENTATIONS,
    WHOLE_IMAGE,
    Parameters,
    border_grey,
    draw_parameters,
)
from gelkit.images.formats import DecodedImage, Pixels
from gelkit.images.likeness import percentiles

View: TypeAlias = "npt.NDArray[np.uint8]"

VIEW_VERSION = 1
"""Part of every recipe; raised whenever the same pixels give another view."""

VIEW_SIZE = 224
"""Pixels along each side, unless a backbone wants others; that of the perceptual hash."""

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
"""Pillow's filters, by what torchvision and timm call them. All but the last antialias."""

GEOMETRIES = {
    "stretch": "the whole image, resized to a square without keeping its aspect",
    "pad": "the whole image, its aspect kept, the rest filled with its border's median grey",
}
WINDOWS = {
    "percentile": "the 0.1 to 99.9 percentile for images of more than 8 bits, else the full range",
    "full": "the full range of the file's type",
}

_Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, which need not be whole."""

_WINDOW_PERCENTILES = (0.1, 99.9)


def require_view_options(geometry: str, window: str) -> None:
    """Check that geometry and window are known.

    :raises UsageError: naming the known ones.
    """
    for kind, given, table in (("geometry", geometry, GEOMETRIES), ("window", window, WINDOWS)):
        if given not in table:
            raise UsageError(f"Expected the {kind} {' or '.join(table)}. Received: {given!r}.")


@dataclass(frozen=True)
class Frame:
    """The square that a picture is resized to."""

    geometry: str = "stretch"
    """A name of :data:`GEOMETRIES`."""
    size: int = VIEW_SIZE
    """Pixels along each side."""
    interpolation: str = "bilinear"
    """A name of :data:`INTERPOLATIONS`."""


def render(
    image: DecodedImage,
    geometry: str = "stretch",
    window: str = "percentile",
    size: int = VIEW_SIZE,
    interpolation: str = "bilinear",
) -> View:
    """Render the clean view (view 0) of a decoded image.

    :param size: pixels along each side.
    :param interpolation: a name of :data:`INTERPOLATIONS`.
    :returns: uint8 grey of shape (size, size), 0 the window's lower end and 255 its upper.
    """
    return _shown(_picture(image, window), WHOLE_IMAGE, Frame(geometry, size, interpolation))


def render_views(
    image: DecodedImage,
    numbers: Iterable[int],
    sha256: str,
    geometry: str = "stretch",
    window: str = "percentile",
    augmentations: Iterable[str] = DEFAULT_AUGMENTATIONS,
    size: int = VIEW_SIZE,
    interpolation: str = "bilinear",
) -> list[View]:
    """Render views of a decoded image, the same for the same arguments wherever it is done.

    The window is the whole image's, so a crop is as bright as the clean view.

    :param numbers: of the views; 0 is the clean one, what :func:`render` returns.
    :param sha256: of the image file's bytes, from which each augmented view is drawn.
    :param augmentations: names of :data:`gelkit.images.augmentations.AUGMENTATIONS`, in any order.
    :param size: pixels along each side.
    :param interpolation: a name of :data:`INTERPOLATIONS`.
    :returns: for each number uint8 grey of shape (size, size).
    :raises UsageError: an augmentation is not known.
    """
    names = tuple(augmentations)
    drawn = [draw_parameters(sha256, number, names) for number in numbers]
    picture = _picture(image, window)
    frame = Frame(geometry, size, interpolation)
    return [_augmented(picture, frame, parameters) for parameters in drawn]


def _augmented(picture: Image.Image, frame: Frame, drawn: dict[str, Parameters]) -> View:
    """Resize the crop, from full resolution and with antialiasing, and change the small view.

    Rotation follows on the small view. One affine map of the large image would save its slight
    softening, but Pillow's is not antialiased, and averaging over a large image takes longer.
    """
    view = _shown(picture, drawn.get("crop", WHOLE_IMAGE), frame)
    for name, parameters in drawn.items():
        change = AUGMENTATIONS[name].change
        if change is not None:
            view = change(view, *parameters)
    return view


def _picture(image: DecodedImage, window: str) -> Image.Image:
    return Image.fromarray(image.pixels if window == "full" else _windowed(image))


def _windowed(image: DecodedImage) -> Pixels:
    """Stretch what lies between the percentiles over the range; 8-bit images stay as they are."""
    pixels = image.pixels
    if pixels.dtype == np.uint8:
        return pixels
    low, high = percentiles(image.ordered, _WINDOW_PERCENTILES)
    if high <= low:
        return pixels
    stretched: Pixels = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    return stretched


def _shown(picture: Image.Image, region: Parameters, frame: Frame) -> View:
    box = _box(picture, region)
    if frame.geometry == "stretch":
        return _resized(picture, box, frame.size, frame.size, frame.interpolation)
    return _padded(picture, box, frame)


def _box(picture: Image.Image, region: Parameters) -> _Box:
    left, top, width, height = region
    right, bottom = min(1.0, left + width), min(1.0, top + height)  # rounding may exceed the image
    return (
        left * picture.width,
        top * picture.height,
        right * picture.width,
        bottom * picture.height,
    )


def _resized(picture: Image.Image, box: _Box, width: int, height: int, interpolation: str) -> View:
    """Resize with antialiasing, and round to 8 bits."""
    resized = np.asarray(picture.resize((width, height), INTERPOLATIONS[interpolation], box))
    if resized.dtype == np.uint8:
        return resized
    view: View = np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8)
    return view


def _padded(picture: Image.Image, box: _Box, frame: Frame) -> View:
    width, height = box[2] - box[0], box[3] - box[1]
    scale = frame.size / max(height, width)
    sides = (max(1, round(width * scale)), max(1, round(height * scale)))
    inner = _resized(picture, box, *sides, frame.interpolation)
    view = np.full((frame.size, frame.size), border_grey(inner), dtype=np.uint8)
    top, left = (frame.size - inner.shape[0]) // 2, (frame.size - inner.shape[1]) // 2
    view[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return view
