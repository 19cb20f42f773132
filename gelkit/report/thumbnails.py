"""Thumbnails: images as a page can hold them, as stored and as the backbone saw them."""

from __future__ import annotations

import base64
import io
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from PIL import Image

from gelkit.errors import UsageError
from gelkit.features.recipe import Recipe
from gelkit.heads.grouping import decode_again
from gelkit.images.formats import ImageError
from gelkit.images.inspection import Pictures, draw_pictures
from gelkit.images.reading import why_unread
from gelkit.images.views import View
from gelkit.progress import Progress, reported, silent
from gelkit.report.contents import ComparedImages

logger = logging.getLogger(__name__)

BUDGET_BYTES = 3_500_000
"""Of a page's pictures; a page of 100 images stays below 5 MB with it."""

_SHOWN_GAPS = 3

_SIZES = ((224, 80), (176, 75), (128, 70), (96, 60), (64, 50), (48, 30))
"""Longest sides in pixels with WebP qualities; the first that is within the budget is taken."""


@dataclass(frozen=True)
class Thumbnails:
    """An image's pictures as data URIs, empty where there are none."""

    original: str = ""
    view: str = ""
    gap: str = ""
    """Why there are none, in a few words."""


@dataclass(frozen=True)
class Uses:
    """How often a page shows the pictures of an image."""

    originals: int
    views: int


def draw_thumbnails(
    images: ComparedImages,
    uses: Mapping[int, Uses],
    recipe: Recipe,
    budget: int = BUDGET_BYTES,
    progress: Progress = silent,
) -> dict[int, Thumbnails]:
    """Draw the pictures of images, so large that all their uses together are within a budget.

    Only files that still hold the bytes that were embedded are shown; how many others there are
    is logged as a warning.

    :param uses: by position among the images.
    :param budget: in bytes, of the data URIs.
    """
    drawn = {
        position: _draw(images, position, recipe)
        for position in reported(uses, "draw pictures", len(uses), progress)
    }
    for side, quality in _SIZES:
        thumbnails = {
            position: _encode(pictures, side, quality) for position, pictures in drawn.items()
        }
        if sum(_size(its, uses[position]) for position, its in thumbnails.items()) <= budget:
            break
    if gaps := explain_gaps(thumbnails.values()):
        logger.warning("%s", gaps)
    return thumbnails


def explain_gaps(drawn: Iterable[Thumbnails]) -> str:
    """Say how many pictures are missing and why, and what to do; empty if none is."""
    reasons = Counter(its.gap for its in drawn if its.gap)
    if not reasons:
        return ""
    counted = ", ".join(f"{count} ({reason})" for reason, count in reasons.most_common(_SHOWN_GAPS))
    return (
        f"Pictures that are not shown, since the images are not what or where they were when the "
        f"heads were trained: {counted}. If they were moved, run gelkit heads on them where they "
        "are now: what is known is not computed again."
    )


def _draw(images: ComparedImages, position: int, recipe: Recipe) -> Pictures | str:
    """Return the pictures of an image, or why there are none."""
    try:
        decoded = decode_again(images.images[position], images.sha256s[position], recipe.decoding)
    except UsageError as error:  # what was embedded is not there any more
        return _why_gone(error.__cause__)
    except ImageError as error:
        return str(error)
    return draw_pictures(decoded, recipe.geometry, recipe.window)


def _why_gone(cause: BaseException | None) -> str:
    if isinstance(cause, FileNotFoundError):
        return "file has gone"
    return why_unread(cause) if isinstance(cause, OSError) else "file has other bytes"


def _encode(pictures: Pictures | str, side: int, quality: int) -> Thumbnails:
    if isinstance(pictures, str):
        return Thumbnails(gap=pictures)
    return Thumbnails(
        original=_data_uri(pictures.original, side, quality),
        view=_data_uri(pictures.view, side, quality),
    )


def _data_uri(picture: View, side: int, quality: int) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _size(thumbnails: Thumbnails, uses: Uses) -> int:
    return uses.originals * len(thumbnails.original) + uses.views * len(thumbnails.view)
