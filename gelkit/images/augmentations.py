"""Augmentations: what may be changed of a gel's image without changing what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.errors import UsageError

Fractions: TypeAlias = tuple[float, float, float, float]
"""Four random numbers, evenly spread over 0 to 1, 1 excluded."""

Parameters: TypeAlias = tuple[float, ...]

WHOLE_IMAGE: Parameters = (0.0, 0.0, 1.0, 1.0)
"""The region that the clean view shows: left, top, width, height as fractions of the image."""

_CROP_AREAS = (0.6, 1.0)
"""Areas to which the image is cropped.

ImageNet's 0.08 would leave two lanes or none: at 0.6 a crop as long as the image is wide in
proportion still holds 77% of the lanes and 77% of their length, which is a gel in its own right.
"""
_CROP_ASPECTS = (4 / 5, 5 / 4)
"""Aspects of the crop, where 1 is the image's own.

Runs differ in length and gels in width, so a lane may be a quarter wider or narrower. Beyond that
bands turn into dots or lanes into stripes. ImageNet's range is 3/4 to 4/3.
"""
_LARGEST_ANGLE = 10.0
_SMALLEST_CONTRAST = 0.8
_LARGEST_BEND = 0.4
"""With the contrast: faint bands beside black or white get 0.48 to 1.4 times as strong."""


@dataclass(frozen=True)
class Augmentation:
    """What gelkit knows of one augmentation; a row of :data:`AUGMENTATIONS`."""

    name: str
    sentence: str
    default: bool
    """Whether it is drawn when the user names none."""
    draw: Callable[[Fractions], Parameters | None]
    """Turns random numbers into parameters; None: this view is left as it is.

    It uses no function that rounds differently on another machine (``sqrt`` does not; ``exp``,
    ``log`` and powers do).
    """
    change: Callable[..., npt.NDArray[np.uint8]] | None
    """Changes a view (uint8 grey), given the view and the parameters one by one.

    None for the crop, which decides what the view shows and not how: its parameters are a region
    like :data:`WHOLE_IMAGE`, to be cut from the image at full resolution.
    """


def _draw_region(fractions: Fractions) -> Parameters:
    """Draw area, then width within what the aspects and the image's edges allow, then place."""
    smallest, largest = _CROP_AREAS
    area = smallest + (largest - smallest) * fractions[0]
    narrowest = max(area, sqrt(area * _CROP_ASPECTS[0]))
    widest = min(1.0, sqrt(area * _CROP_ASPECTS[1]))
    width = narrowest + (widest - narrowest) * fractions[1]
    height = area / width
    return (1 - width) * fractions[2], (1 - height) * fractions[3], width, height


def _draw_coin(fractions: Fractions) -> Parameters | None:
    return () if fractions[0] < 0.5 else None


def _draw_angle(fractions: Fractions) -> Parameters:
    return (_LARGEST_ANGLE * (2 * fractions[0] - 1),)


def _draw_tones(fractions: Fractions) -> Parameters:
    contrast = _SMALLEST_CONTRAST + (1 - _SMALLEST_CONTRAST) * fractions[0]
    return contrast, (1 - contrast) * fractions[1], _LARGEST_BEND * (2 * fractions[2] - 1)


def _mirrored(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(view[:, ::-1])


def _rotated(view: npt.NDArray[np.uint8], degrees: float) -> npt.NDArray[np.uint8]:
    """Rotate counter-clockwise about the centre; the corners get the border's median grey.

    Bilinear: bicubic takes twice as long and draws halos around dark bands.
    """
    image = Image.fromarray(view)
    grey = border_grey(view)
    return np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=grey))


def _toned(
    view: npt.NDArray[np.uint8], contrast: float, black: float, bend: float
) -> npt.NDArray[np.uint8]:
    """Map black to ``black``, white to ``black + contrast``, and bend the line between them.

    The curve x + bend x (1 - x) rises everywhere, and its ends stay within 0 to 1: greys keep
    their order and nothing is clipped, so that faint bands beside a black or white ground survive.
    """
    greys = np.arange(256) / 255
    curve = black + contrast * (greys + bend * greys * (1 - greys))
    table = np.rint(255 * curve).astype(np.uint8)
    return np.asarray(Image.fromarray(view).point(table.tolist()))


def _inverted(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return 255 - view


AUGMENTATIONS: dict[str, Augmentation] = {
    augmentation.name: augmentation
    for augmentation in (
        Augmentation(
            name="crop",
            sentence="60 to 100% of the image, its aspect changed by up to a quarter",
            default=True,
            draw=_draw_region,
            change=None,
        ),
        Augmentation(
            name="flip",
            sentence="half of the views mirrored left to right: the order of lanes is arbitrary",
            default=True,
            draw=_draw_coin,
            change=_mirrored,
        ),
        Augmentation(
            name="rotate",
            sentence="up to 10 degrees either way, corners filled with the border's median grey",
            default=True,
            draw=_draw_angle,
            change=_rotated,
        ),
        Augmentation(
            name="contrast",
            sentence="contrast down to 80%, mid-greys up to a tenth brighter or darker, unclipped",
            default=True,
            draw=_draw_tones,
            change=_toned,
        ),
        Augmentation(
            name="polarity",
            sentence="half of the views inverted: dark bands on light become light bands on dark",
            default=False,
            draw=_draw_coin,
            change=_inverted,
        ),
    )
}
"""The augmentations by name, in the order in which they are applied. A further row changes none of
the others' random numbers."""

DEFAULT_AUGMENTATIONS = tuple(row.name for row in AUGMENTATIONS.values() if row.default)


def require_augmentations(names: Iterable[str]) -> tuple[str, ...]:
    """Check that augmentations are known, and return them in the table's order, each once.

    :raises UsageError: naming the known ones.
    """
    given = list(names)
    for name in given:
        if name not in AUGMENTATIONS:
            known = ", ".join(AUGMENTATIONS)
            raise UsageError(f"Expected augmentations among {known}. Received: {name!r}.")
    return tuple(name for name in AUGMENTATIONS if name in given)


def draw_parameters(sha256: str, number: int, names: Iterable[str]) -> dict[str, Parameters]:
    """Draw what is done to a view of an image, the same on every machine.

    :param sha256: of the image file's bytes, in lower-case hexadecimal digits.
    :param number: of the view; view 0 is the clean one, for which nothing is drawn.
    :returns: parameters by augmentation, in the table's order, without those that leave this view
        as it is.
    :raises UsageError: an augmentation is not known.
    """
    rows = [AUGMENTATIONS[name] for name in require_augmentations(names)]
    if number == 0:
        return {}
    drawn = {row.name: row.draw(_fractions(sha256, number, row.name)) for row in rows}
    return {name: parameters for name, parameters in drawn.items() if parameters is not None}


def _fractions(sha256: str, number: int, name: str) -> Fractions:
    """Return random numbers that depend on nothing but the arguments.

    The key of NumPy's Philox is the first 16 bytes, little end first, of the SHA-256 of
    ``"<sha256> <number> <name>"``. The upper 53 bits of its words, over 2**53, are the numbers.
    NumPy promises the stream of a bit generator, but not what ``Generator`` makes of it.
    """
    digest = hashlib.sha256(f"{sha256} {number} {name}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(4)
    first, second, third, fourth = ((int(word) >> 11) / 2**53 for word in words)
    return first, second, third, fourth


def border_grey(view: npt.NDArray[np.uint8]) -> int:
    """Return the median grey along the four edges, which is usually the gel's background."""
    return int(np.median(np.concatenate([view[0], view[-1], view[:, 0], view[:, -1]])))
