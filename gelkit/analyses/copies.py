"""Copies: new images that show a known picture, saved again, brightened, cropped or inverted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from gelkit.analyses.neighbors import row_cosines
from gelkit.errors import GelkitError
from gelkit.features.embeddings import Embeddings
from gelkit.heads.grouping import decode_again
from gelkit.images.details import compare_details
from gelkit.images.registration import similarity, sketch
from gelkit.images.similarity import MAX_DISTANCE, MIN_SIMILARITY
from gelkit.images.views import View, render
from gelkit.progress import Progress, reported, silent

logger = logging.getLogger(__name__)

MOST_COMPARED = 20
"""Known images that a new one is registered with at most, those with the nearest embeddings.

Gels of one layout have near hashes by the hundred, and registering takes some ms for each.
"""

_KEPT_VIEWS = 1024
"""Of known images, 50 kB each."""

_VARYING_BITS = 63
"""Of a perceptual hash: its first bit is set in every one, in both polarities."""


def find_near_known(
    new: Embeddings, known: Embeddings, progress: Progress = silent
) -> tuple[int | None, ...]:
    """Return for each new image the number of the known one that it is nearly a copy of, or None.

    As :func:`gelkit.heads.grouping.find_near_copies`: images whose perceptual hashes are near, in
    either polarity, are confirmed on the pictures. Known pictures that have gone
    confirm nothing; how many new images that concerns is logged as a warning.

    :param known: other images, embedded by the same recipe.
    """
    known_view = lru_cache(_KEPT_VIEWS)(partial(_view, known))
    found: list[int | None] = []
    unconfirmed = 0
    for number in reported(range(len(new)), "look for copies", len(new), progress):
        near = _near(new, number, known)
        try:
            found.append(_first_alike(_view(new, number), near, known_view) if near else None)
        except GelkitError:
            found.append(None)
            unconfirmed += 1
    if unconfirmed:
        logger.warning(
            "%d of %d images look like training images whose files have gone or changed: whether "
            "they are copies of these is not known",
            unconfirmed,
            len(new),
        )
    return tuple(found)


def _near(new: Embeddings, number: int, known: Embeddings) -> list[int]:
    """Return the known images with a hash near to a new one's, the nearest embeddings first."""
    hashes = known.records["perceptual_hash"]
    differing = np.bitwise_count(hashes ^ new.records["perceptual_hash"][number]).astype(np.int64)
    near = np.flatnonzero(np.minimum(differing, _VARYING_BITS - differing) <= MAX_DISTANCE)
    cosines = row_cosines(new.values[[number]], known.values[near])
    nearest: list[int] = near[np.argsort(-cosines, kind="stable")][:MOST_COMPARED].tolist()
    return nearest


def _first_alike(own: View, near: Sequence[int], known_view: Callable[[int], View]) -> int | None:
    """Return the first that agrees with a picture.

    :raises GelkitError: none does, and one could not be read.
    """
    lost: GelkitError | None = None
    own_sketch = sketch(own)
    for number in near:
        try:
            view = known_view(number)
            if (
                similarity(sketch(view), own_sketch) >= MIN_SIMILARITY
                and compare_details(view, own).agree
            ):
                return number
        except GelkitError as error:
            lost = error
    if lost is not None:
        raise lost
    return None


def _view(embeddings: Embeddings, number: int) -> View:
    image, sha256 = embeddings.images[number], embeddings.sha256s[number]
    return render(decode_again(image, sha256, embeddings.recipe.decoding))
