"""Inspection: what an image file holds, how it was read, and what a backbone would see of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gelkit.images.formats import DecodedImage, DecodeRecord
from gelkit.images.views import VIEW_SIZE, View, render

MOST_SHRINKING = 4.0
"""An image that is shrunk further loses bands of a few pixels' height."""
SHRUNK = "shrunk"


@dataclass(frozen=True)
class Pictures:
    """What a person looks at to judge how an image was read."""

    original: View
    """Grey, aspect kept, at most (224, 224): as decoded, over the full range of the file's type."""
    view: View
    """(224, 224): the clean view."""


@dataclass(frozen=True)
class Inspected:
    """An image that could be read."""

    name: str
    sha256: str
    """What it is known by, as of :func:`gelkit.images.catalog.image_identity`."""
    n_bytes: int
    """Of its file."""
    record: DecodeRecord
    pictures: Pictures | None
    """None if they were not asked for."""

    @property
    def shrinking(self) -> float:
        """How many times the longer side is longer than the view's."""
        return max(self.record.height, self.record.width) / VIEW_SIZE

    @property
    def remarks(self) -> tuple[str, ...]:
        """The record's flags, in alphabetical order, then ``shrunk`` above four times."""
        shrunk = (SHRUNK,) if self.shrinking > MOST_SHRINKING else ()
        return (*sorted(self.record.flags), *shrunk)


def draw_pictures(
    image: DecodedImage, geometry: str = "stretch", window: str = "percentile"
) -> Pictures:
    """Draw what a person looks at to judge how an image was read."""
    return Pictures(_small(image), render(image, geometry, window))


def _small(image: DecodedImage) -> View:
    """Return the image within (224, 224), averaged over the pixels that fall together."""
    picture = Image.fromarray(image.pixels)
    scale = VIEW_SIZE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX))
    if small.dtype == np.uint8:
        return small
    view: View = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
    return view
