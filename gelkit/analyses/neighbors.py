"""Neighbours: the nearest embeddings by cosine, exact, in blocks of bounded memory.

The cosine is that of the embeddings as they are. Of 22 kinds of altered copies of 73 different
images, beside 300 drawn ones, 94.9% have the original first by that; 94.6% with the collection's
mean taken off, 94.3% standardised, 93.9% whitened (efficientnet-lite0 with ImageNet weights; with
random ones 36, 31, 32 and 30%). So nothing of the kind is done.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.progress import Progress, reported, silent

logger = logging.getLogger(__name__)

MEMORY_BYTES = 2**28
"""What a search may use beside the embeddings and its result."""

_LARGEST_BLOCK = 2048
"""Beyond, the products leave the processor's cache before they are looked at."""
_SMALLEST_BLOCK = 32
_LEVELS = 2**20
"""Cosines are rounded to a multiple of 1 / 2**20, ten times what products of unit vectors are off.

So equal directions tie, wherever they stand in a block.
"""
_NONE = -2 * _LEVELS
"""Below the level of every cosine."""

_Floats: TypeAlias = "npt.NDArray[np.float32]"
_Integers: TypeAlias = "npt.NDArray[np.int64]"


@dataclass(frozen=True)
class Nearest:
    """The nearest of a collection for each query, the nearest first; ties by their numbers."""

    numbers: _Integers
    """(queries x k): positions in the collection."""
    cosines: _Floats
    """(queries x k), to 1e-6; 0 for an embedding that is all zeros, which has no direction."""


def nearest(
    queries: _Floats,
    collection: _Floats,
    k: int,
    *,
    memory: int = MEMORY_BYTES,
    progress: Progress = silent,
) -> Nearest:
    """Find the ``k`` nearest of a collection for each query, or all if there are fewer.

    :param queries: (queries x width) embeddings.
    :param collection: (images x width) embeddings of the same recipe.
    :param memory: bytes to use beside the arguments and the result.
    :raises UsageError: widths that differ, ``k`` below 1, values that are not finite, or too
        little memory.
    """
    _require(queries, collection, k)
    block = _block_size(collection.shape[1], min(k, len(collection)), memory)
    best = _Best(len(queries), min(k, len(collection)))
    tops, lefts = range(0, len(queries), block), range(0, len(collection), block)
    steps = reported(tops, "search neighbours", len(tops), progress)
    for top in steps:
        own = directions(queries[top : top + block])
        for left in lefts:
            best.offer(own @ directions(collection[left : left + block]).T, top, left)
    return best.found()


def nearest_others(
    collection: _Floats, k: int, *, memory: int = MEMORY_BYTES, progress: Progress = silent
) -> Nearest:
    """Find the ``k`` nearest others of each embedding of a collection, or all if there are fewer.

    Each product serves both of its embeddings: half the work of :func:`nearest`.

    :param collection: (images x width); otherwise as of :func:`nearest`.
    """
    _require(collection, collection, k)
    block = _block_size(collection.shape[1], min(k, len(collection)), memory)
    best = _Best(len(collection), min(k, len(collection) - 1))
    for top, left, products in _upper_blocks(collection, block, progress):
        best.offer(products, top, left)
        if left != top:
            best.offer(products.T, left, top)
    return best.found()


def pairs_above(
    collection: _Floats,
    least: float,
    *,
    most: int = 10_000_000,
    memory: int = MEMORY_BYTES,
    progress: Progress = silent,
) -> tuple[_Integers, _Floats]:
    """Find all pairs of a collection whose cosine, rounded as everywhere here, is at least so much.

    :param collection: (images x width) embeddings.
    :param most: pairs to find at most; beyond, the search ends.
    :returns: (pairs x 2), i < j, in ascending order, and their cosines (pairs,).
    :raises UsageError: more than ``most``; or as of :func:`nearest`.
    """
    _require(collection, collection, 1)
    block = _block_size(collection.shape[1], 1, memory)
    bound = np.float32((math.ceil(least * _LEVELS) - 0.5) / _LEVELS)
    found, cosines, count = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)], 0
    for top, left, products in _upper_blocks(collection, block, progress):
        pairs = np.argwhere(products >= bound)
        pairs = pairs[pairs[:, 0] + top < pairs[:, 1] + left]
        cosines.append(to_cosines(to_levels(products[pairs[:, 0], pairs[:, 1]])))
        found.append(pairs + np.array((top, left)))
        count += len(pairs)
        if count > most:
            raise UsageError(
                f"Expected at most {most:,} pairs with a cosine of at least {least}. Received: "
                f"{count:,} and perhaps more. Ask for a higher one, or for the nearest of each."
            )
    together = np.concatenate(found)
    order = np.lexsort((together[:, 1], together[:, 0]))
    return together[order], np.concatenate(cosines)[order]


def directions(values: _Floats) -> _Floats:
    """Return embeddings divided by their norms, (images x width); zeros stay zeros.

    :raises UsageError: a value is not finite.
    """
    peaks = np.abs(values).max(axis=1, keepdims=True, initial=0)
    if not np.isfinite(peaks).all():
        raise UsageError(
            "Expected finite embeddings. Received: NaN or infinite values in "
            f"{int((~np.isfinite(peaks)).sum())} of {len(values)}. Find out with gelkit cache "
            "verify which, and embed them again."
        )
    scaled = values / np.where(peaks > 0, peaks, 1)  # so that squares neither vanish nor overflow
    norms = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    units: _Floats = np.divide(scaled, np.where(norms > 0, norms, 1), out=scaled, dtype=np.float32)
    return units


def row_cosines(values: _Floats, others: _Floats) -> _Floats:
    """Return the cosine of each embedding and its counterpart, (images,), to 1e-6.

    :param values: (images x width), or (1 x width) for one that is compared with all.
    """
    cosines = np.einsum("ij,ij->i", *np.broadcast_arrays(directions(values), directions(others)))
    return to_cosines(to_levels(cosines))


def to_levels(cosines: _Floats) -> _Integers:
    """Return cosines as whole multiples of 1 / 2**20, so that equal directions tie."""
    levels: _Integers = np.floor(cosines.astype(np.float64) * _LEVELS + 0.5).astype(np.int64)
    return levels


def to_cosines(levels: _Integers) -> _Floats:
    """Return the cosines, float32, that :func:`to_levels` made whole numbers of."""
    return (levels / _LEVELS).astype(np.float32)


def _require(queries: _Floats, collection: _Floats, k: int) -> None:
    if queries.shape[1] != collection.shape[1]:
        raise UsageError(
            f"Expected embeddings of one width. Received: {queries.shape[1]} and "
            f"{collection.shape[1]}. Take both from the same backbone."
        )
    if k < 1:
        raise UsageError(f"Expected at least 1 neighbour. Received: {k}.")
    blank = int((~collection.any(axis=1)).sum())
    if blank:
        logger.warning("%d of %d embeddings are all zeros: like nothing", blank, len(collection))


def _block_size(width: int, k: int, memory: int) -> int:
    """Return how many embeddings to multiply with as many.

    ``block`` takes two operands and a copy of one while it is scaled, the products, a copy of
    these, and which of them count; and the hits, of which the first block has ``k`` a row.
    """
    a_row, a_product = 3 * 4 * width + 100 * k, 4 + 4 + 1
    block = int((math.sqrt(a_row**2 + 4 * a_product * memory) - a_row) / (2 * a_product))
    if block < _SMALLEST_BLOCK:
        needed = _SMALLEST_BLOCK * (a_row + a_product * _SMALLEST_BLOCK)
        raise UsageError(
            f"Expected at least {needed:,} bytes for the {k} nearest by {width} values. Received: "
            f"{memory:,}."
        )
    return min(block, _LARGEST_BLOCK)


def _upper_blocks(
    collection: _Floats, block: int, progress: Progress
) -> Iterator[tuple[int, int, _Floats]]:
    """Yield the cosines of all pairs i < j, block by block: row, column, and (rows x columns).

    Every row meets the columns in ascending order. Its own is below every cosine.
    """
    starts = range(0, len(collection), block)
    places = [(top, left) for top in starts for left in starts if left >= top]
    own, own_top = np.empty((0, 0), np.float32), -1
    for top, left in reported(places, "search neighbours", len(places), progress):
        if top != own_top:
            own, own_top = directions(collection[top : top + block]), top
        other = own if left == top else directions(collection[left : left + block])
        products = own @ other.T
        if left == top:
            np.fill_diagonal(products, _NONE / _LEVELS)
        yield top, left, products


class _Best:
    """The best so far of each row, among columns that are offered in ascending order."""

    def __init__(self, rows: int, k: int) -> None:
        self._numbers = np.full((rows, k), -1, np.int64)
        self._levels = np.full((rows, k), _NONE, np.int64)

    def found(self) -> Nearest:
        return Nearest(self._numbers, to_cosines(self._levels))

    def offer(self, products: _Floats, top: int, left: int) -> None:
        """Take in the cosines, (rows x columns), of a block that starts at ``top``, ``left``."""
        k = self._levels.shape[1]
        if not k or not products.size:
            return
        floors = self._levels[top : top + len(products), -1]
        if floors[0] == _NONE and products.shape[1] >= k:
            floors = np.maximum(to_levels(_largest(products, k)) - 1, _NONE)
        rows, columns = _above(products, (floors + 0.5) / _LEVELS)
        if len(rows):
            self._merge(rows + top, columns + left, to_levels(products[rows, columns]))

    def _merge(self, rows: _Integers, numbers: _Integers, levels: _Integers) -> None:
        k = self._levels.shape[1]
        touched = np.unique(rows)
        rows = np.concatenate([np.repeat(touched, k), rows])
        numbers = np.concatenate([self._numbers[touched].ravel(), numbers])
        levels = np.concatenate([self._levels[touched].ravel(), levels])
        order = np.lexsort((numbers, -levels, rows))
        starts = np.searchsorted(rows[order], touched)
        kept = order[starts[:, None] + np.arange(k)]
        self._numbers[touched], self._levels[touched] = numbers[kept], levels[kept]


def _largest(products: _Floats, k: int) -> _Floats:
    """Return the k-th largest of each row."""
    place = products.shape[1] - k
    largest: _Floats = np.partition(products, place, axis=1)[:, place]
    return largest


def _above(products: _Floats, bounds: npt.NDArray[np.float64]) -> tuple[_Integers, _Integers]:
    """Return rows and columns of what reaches its row's bound, looking along the memory."""
    bounds = bounds.astype(np.float32)
    if products.flags.c_contiguous:
        rows, columns = _places(products >= bounds[:, None])
    else:
        columns, rows = _places(bounds <= products.T)
    return rows, columns


def _places(mask: npt.NDArray[np.bool_]) -> tuple[_Integers, _Integers]:
    """Return as ``numpy.nonzero``, several times faster where little is true."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return rows, columns
