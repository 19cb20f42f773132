"""Hashes: which perceptual hashes are near in any orientation and either polarity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.analyses.orientations import ORIENTATIONS
from gelkit.errors import UsageError
from gelkit.images.similarity import MAX_DISTANCE, MOST_CANDIDATES
from gelkit.progress import Progress, reported, silent

_FIRST_BIT = np.uint64(1 << 63)
"""The mean's: set in every hash, in both polarities, so it tells nothing."""
_VARYING_BITS = 63

_ROWS, _COLUMNS = 256, 4096
"""Of a block, small enough for a CPU cache."""

_Hashes: TypeAlias = "npt.NDArray[np.uint64]"
_Integers: TypeAlias = "npt.NDArray[np.int64]"


def hash_distances(hashes: _Hashes, others: _Hashes) -> _Integers:
    """Return in how many of 63 bits two pictures' hashes differ, at least, however one is turned.

    :param hashes: of :func:`gelkit.images.likeness.perceptual_hash`; broadcast with ``others``.
    """
    turned = (orientation.of_hashes(np.atleast_1d(hashes)) for orientation in ORIENTATIONS)
    differing = [_differing_bits(its.reshape(np.shape(hashes)), others) for its in turned]
    distances = np.stack([_of_either_polarity(its) for its in differing]).min(axis=0)
    return np.asarray(distances, dtype=np.int64)


def near_hashes(
    hashes: _Hashes,
    max_distance: int = MAX_DISTANCE,
    most: int = MOST_CANDIDATES,
    progress: Progress = silent,
) -> _Integers:
    """Return the pairs whose hashes are near, turned in any way, in either polarity.

    Every pair is looked at, eight times: 100,000 images take minutes.

    :param max_distance: bits in which they may differ.
    :param most: rows to return at most; beyond, the search ends.
    :returns: (rows x 5): i < j, the distance, which of the orientations takes the first picture
        near the second, and whether it has the other polarity then (0 or 1); in ascending order. A
        pair is there once for each orientation.
    :raises UsageError: more than ``most``.
    """
    found, count = [np.empty((0, 5), np.int64)], 0
    turned = [orientation.of_hashes(hashes) for orientation in ORIENTATIONS]
    tops = range(0, len(hashes), _ROWS)
    for top in reported(tops, "compare hashes", len(tops), progress):
        for number, its in enumerate(turned):
            for near in _near_blocks(its, hashes, top, max_distance):
                found.append(np.insert(near, 3, number, axis=1))
                count += len(near)
                _require_few(count, most)
    together = np.concatenate(found)
    return together[np.lexsort(together.T[::-1])]


def _near_blocks(
    turned: _Hashes, hashes: _Hashes, top: int, max_distance: int
) -> Iterator[_Integers]:
    """Yield (i, j, distance, inverted) of the near pairs i < j of some rows, block by block."""
    own = turned[top : top + _ROWS, None]
    for left in range(top, len(hashes), _COLUMNS):
        differing = _differing_bits(own, hashes[left : left + _COLUMNS])
        distances = _of_either_polarity(differing)
        rows, columns = np.nonzero(distances <= max_distance)
        inverted = 2 * differing[rows, columns] > _VARYING_BITS
        near = np.stack([rows + top, columns + left, distances[rows, columns], inverted], axis=1)
        yield near[near[:, 0] < near[:, 1]]


def _differing_bits(hashes: _Hashes, others: _Hashes) -> npt.NDArray[np.uint8]:
    differing: npt.NDArray[np.uint8] = np.bitwise_count((hashes ^ others) & ~_FIRST_BIT)
    return differing


def _of_either_polarity(differing: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    distances: npt.NDArray[np.uint8] = np.minimum(differing, np.uint8(_VARYING_BITS) - differing)
    return distances


def _require_few(count: int, most: int) -> None:
    if count > most:
        raise UsageError(
            f"Expected at most {most:,} pairs of images with near perceptual hashes. Received: "
            f"{count:,} and perhaps more: many images share one layout, are nearly blank, or are "
            "copies. Allow fewer differing bits."
        )
