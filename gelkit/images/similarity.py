"""Similarity: which images are one exposure, however it was saved, cropped or inverted since.

Perceptual hashes propose pairs, registering the two pictures tells those that look alike, and their
details confirm them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.images.details import compare_details
from gelkit.images.registration import Sketch, similarity, sketch
from gelkit.images.views import View
from gelkit.progress import Progress, reported, silent

MAX_DISTANCE = 10
"""Bits, of the 63 that vary, in which the hashes of a candidate pair may differ.

The hash only proposes, so it may be generous: of gels cropped by 5% (2.5% at each side) it finds
79 to 83% at 8 bits and 89 to 94% at 10; 12 would find a few more and propose twice the pairs.
"""

MOST_CANDIDATES = 500_000
"""Pairs to register at most: minutes if most differ at a glance (0.2 ms), else an hour (8 ms)."""

MIN_SIMILARITY = 0.89
"""Of pictures that look alike: halfway between the most similar of 373 pairs of different drawn
gels that share a comb and have near hashes (0.84) and the least similar of 19 pairs of copies among
real gels (0.93). Rows of bands on black reach more, whatever they are: details tell those apart."""

_KEPT_VIEWS = 1024
"""Of pictures that look alike, 50 kB each."""

_FIRST_BIT = np.uint64(1 << 63)
"""The mean's: set in every hash, in both polarities, so it tells nothing."""
_VARYING_BITS = 63


class TooManyCandidatesError(UsageError):
    """More pairs have near hashes than can be registered in sensible time."""


@dataclass(frozen=True)
class Pair:
    """Two images (their numbers, ``first`` < ``second``) that were confirmed to be one exposure."""

    first: int
    second: int
    similarity: float
    """As of :func:`gelkit.images.registration.similarity`."""


def near_duplicates(
    hashes: npt.NDArray[np.uint64],
    view_of: Callable[[int], View],
    *,
    max_distance: int = MAX_DISTANCE,
    most_candidates: int = MOST_CANDIDATES,
    known: int = 0,
    progress: Progress = silent,
) -> tuple[Pair, ...]:
    """Find the pairs of images that are one exposure, in order of their numbers.

    Of each image that any hash is near to, the clean view is read once; of those that look like
    another, once more.

    :param hashes: (images,), of :func:`gelkit.images.likeness.perceptual_hash`.
    :param view_of: gives the clean view of an image by its number, uint8 (224, 224).
    :param max_distance: bits in which the hashes of a pair may differ, in either polarity.
    :param most_candidates: pairs to register at most.
    :param known: if not 0, only pairs of one of the first so many images with a later one.
    :raises TooManyCandidatesError: more pairs have near hashes.
    """
    candidates = candidate_pairs(hashes, max_distance, most_candidates, known)
    numbers = np.unique(candidates).tolist()
    sketches = {
        number: sketch(view_of(number))
        for number in reported(numbers, "look at images alike", len(numbers), progress)
    }
    kept_view = lru_cache(_KEPT_VIEWS)(view_of)
    compared: set[tuple[int, int]] = set()
    confirmed: list[Pair] = []
    todo = [(i, j) for i, j in candidates.tolist()]
    while todo:
        compared.update(todo)
        _require_few(len(compared), most_candidates)
        alike = _alike(todo, sketches, progress)
        confirmed += [
            pair
            for pair in alike
            if compare_details(kept_view(pair.first), kept_view(pair.second)).agree
        ]
        todo = [] if known else sorted(_pairs_between(confirmed) - compared)
    return tuple(sorted(confirmed, key=lambda pair: (pair.first, pair.second)))


def _alike(
    pairs: Sequence[tuple[int, int]], sketches: Mapping[int, Sketch], progress: Progress
) -> list[Pair]:
    todo = reported(pairs, "compare images alike", len(pairs), progress)
    compared = (Pair(i, j, similarity(sketches[i], sketches[j])) for i, j in todo)
    return [pair for pair in compared if pair.similarity >= MIN_SIMILARITY]


def _pairs_between(confirmed: Sequence[Pair]) -> set[tuple[int, int]]:
    """Return the pairs that have a confirmed partner in common, without those confirmed.

    Two copies may be cropped so differently that only the original has a hash near to both.
    """
    partners: dict[int, set[int]] = defaultdict(set)
    for pair in confirmed:
        partners[pair.first].add(pair.second)
        partners[pair.second].add(pair.first)
    return {
        (min(one, far), max(one, far))
        for one, near in partners.items()
        for partner in near
        for far in partners[partner] - near - {one}
    }


def candidate_pairs(
    hashes: npt.NDArray[np.uint64],
    max_distance: int = MAX_DISTANCE,
    most: int = MOST_CANDIDATES,
    known: int = 0,
) -> npt.NDArray[np.int64]:
    """Return all pairs whose hashes are near in either polarity, (pairs, 2), sorted, i < j.

    Every pair is looked at, in blocks of a few MB: 20,000 images take a second, 100,000 half a
    minute.

    :param known: as of :func:`near_duplicates`.
    :raises TooManyCandidatesError: there are more than ``most``.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    count = 0
    for near in _near_blocks(hashes & ~_FIRST_BIT, max_distance):
        pairs = near[(near[:, 0] < known) & (near[:, 1] >= known)] if known else near
        found.append(pairs)
        count += len(pairs)
        _require_few(count, most)
    together = np.concatenate(found)
    return together[np.lexsort((together[:, 1], together[:, 0]))]


def _require_few(count: int, most: int) -> None:
    if count > most:
        raise TooManyCandidatesError(
            f"Expected at most {most:,} pairs of images with near perceptual hashes. Received: "
            f"{count:,} and perhaps more: many images share one layout, are nearly blank, or are "
            "copies. Name the images that belong together in the manifest's column 'group' "
            "instead, and say --no-near-duplicates."
        )


def _near_blocks(
    hashes: npt.NDArray[np.uint64], max_distance: int, rows: int = 256, columns: int = 4096
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the near pairs, block by block of the upper triangle, small enough for a CPU cache."""
    for top in range(0, len(hashes), rows):
        own = hashes[top : top + rows, None]
        for left in range(top, len(hashes), columns):
            distances = np.bitwise_count(own ^ hashes[left : left + columns])
            near = (distances <= max_distance) | (distances >= _VARYING_BITS - max_distance)
            pairs = np.argwhere(near) + np.array((top, left))
            yield pairs[pairs[:, 0] < pairs[:, 1]]
