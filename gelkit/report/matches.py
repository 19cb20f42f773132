"""Matches: images that are like each other, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gelkit.analyses.duplicates import DuplicatePair
    from gelkit.analyses.similar import SimilarImage

_SHOWN_PAIRS = 50
_DOUBTFUL = "marked ?, their faint details are lost or differ"


def describe_similar(found: Sequence[SimilarImage]) -> str:
    """Say which images each query is most like, best first."""
    return "\n".join(
        line
        for query, its in groupby(found, key=lambda similar: similar.query.name)
        for line in (f"{query} is most like", *map(_similar, its))
    )


def _similar(similar: SimilarImage) -> str:
    label = "" if similar.image.label is None else f" ({similar.image.label})"
    same = ", the same bytes" if similar.same_image else ""
    return f"  {similar.rank}  cosine {similar.cosine:.3f}  {similar.image.name}{label}{same}"


def describe_duplicates(pairs: Sequence[DuplicatePair], num_images: int) -> str:
    """Say which images show the same picture, how many, and in which way."""
    return "\n".join(_duplicates(pairs, num_images))


def _duplicates(pairs: Sequence[DuplicatePair], num_images: int) -> Iterator[str]:
    if not pairs:
        yield f"No two of {num_images} images show the same picture."
        return
    yield f"{len(pairs)} pairs among {num_images} images show the same picture:"
    doubtful = sum(not pair.match.is_certain for pair in pairs)
    for kind, count in Counter(pair.kind for pair in pairs).most_common():
        yield f"  {count:5d}  {kind}"
    if doubtful:
        yield f"Look at {doubtful} of them ({_DOUBTFUL}): --sheet lays them over each other."
    yield ""
    for pair in pairs[:_SHOWN_PAIRS]:
        yield f"{_names(pair)}  ({pair.kind}){_labels(pair)}"
    if len(pairs) > _SHOWN_PAIRS:
        yield f"and {len(pairs) - _SHOWN_PAIRS} more; --csv writes them all."


def _names(pair: DuplicatePair) -> str:
    return f"{pair.first.name}  {'=' if pair.match.is_certain else '?'}  {pair.second.name}"


def _labels(pair: DuplicatePair) -> str:
    first, second = pair.first.label, pair.second.label
    return "" if first == second else f"  LABELS DIFFER: {first} and {second}"
