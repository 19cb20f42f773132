"""Similar images: those of a collection that are most like given ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.analyses.hashes import hash_distances
from gelkit.analyses.neighbors import MEMORY_BYTES, nearest, row_cosines
from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.images.catalog import CatalogImage
from gelkit.images.similarity import MAX_DISTANCE
from gelkit.progress import Progress, silent
from gelkit.tables import write_table

SIMILAR_COLUMNS = (
    "query",
    "rank",
    "image",
    "path",
    "label",
    "cosine",
    "hash_distance",
    "same_image",
)
"""Of the table that :func:`write_similar` writes."""


@dataclass(frozen=True)
class SimilarImage:
    """An image of a collection that is like a query."""

    query: CatalogImage
    rank: int
    """From 1."""
    image: CatalogImage
    cosine: float
    """Of the two embeddings, to 1e-6."""
    hash_distance: int
    """In how many of 63 bits the hashes differ, at least, however one is turned or inverted."""
    same_image: bool
    """Whether the two are the same bytes."""


def find_similar(
    query: Embeddings,
    collection: Embeddings,
    k: int,
    *,
    memory: int = MEMORY_BYTES,
    progress: Progress = silent,
) -> tuple[SimilarImage, ...]:
    """Find the ``k`` images of a collection that are most like each query.

    First those whose perceptual hash is near (:data:`gelkit.images.similarity.MAX_DISTANCE`) when
    one of the two is turned, mirrored or inverted, then the others, each by cosine; ties go by the
    collection's order. The images as wholes are compared: a lane that was used again is not seen.

    :param memory: bytes to use beside the arguments and the result.
    :returns: the queries in their order, for each ``k`` images, or all if there are fewer.
    :raises UsageError: different recipes, ``k`` below 1, or values that are not finite.
    """
    if query.recipe != collection.recipe:
        raise UsageError(
            "Expected embeddings of one recipe. Received: "
            f"{query.recipe.differences(collection.recipe)}. Embed both with the same options."
        )
    found = nearest(query.values, collection.values, k, memory=memory, progress=progress)
    return tuple(
        similar
        for number in range(len(query))
        for similar in _most_similar(query, collection, number, found.numbers[number])
    )


def write_similar(similar: Iterable[SimilarImage], path: Path) -> None:
    """Write similar images as a table with the columns :data:`SIMILAR_COLUMNS`.

    :raises OSError: the disk refused.
    """
    rows = (
        (
            its.query.name,
            its.rank,
            its.image.name,
            its.image.full_name,
            its.image.label,
            f"{its.cosine:.6f}",
            its.hash_distance,
            its.same_image,
        )
        for its in similar
    )
    write_table(SIMILAR_COLUMNS, rows, path)


def _most_similar(
    query: Embeddings, collection: Embeddings, number: int, by_cosine: npt.NDArray[np.int64]
) -> list[SimilarImage]:
    distances = hash_distances(
        query.records["perceptual_hash"][number], collection.records["perceptual_hash"]
    )
    near = np.flatnonzero(distances <= MAX_DISTANCE)
    chosen = np.union1d(near, by_cosine)
    cosines = row_cosines(query.values[[number]], collection.values[chosen])
    order = np.lexsort((chosen, -cosines, distances[chosen] > MAX_DISTANCE))[: len(by_cosine)]
    return [
        SimilarImage(
            query.images[number],
            rank,
            collection.images[chosen[place]],
            float(cosines[place]),
            int(distances[chosen[place]]),
            query.sha256s[number] == collection.sha256s[chosen[place]],
        )
        for rank, place in enumerate(order, start=1)
    ]
