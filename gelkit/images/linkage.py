"""Linkage: groups of images of which every pair was confirmed to be one exposure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.images.similarity import Pair


def complete_linkage(pairs: Iterable[Pair], identities: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the group of each image, (images,), numbered from 0 in order of appearance.

    Agglomerative: the two groups whose least similar pair is the most similar are joined, until no
    two are left of which every pair is confirmed. So one group never holds two images that were
    not confirmed to be one exposure. Ties go by identity: the order of images does not matter.

    :param pairs: the confirmed ones.
    :param identities: of all images, distinct, such as the SHA-256 of their bytes.
    :raises UsageError: two images have the same identity.
    """
    if len(set(identities)) != len(identities):
        raise UsageError(
            f"Expected images of distinct content. Received: {len(identities)} images of "
            f"{len(set(identities))} identities. Pass one of each."
        )
    members = {identity: [identity] for identity in identities}
    for name, absorbed in _joins(pairs, identities):
        members[name] += members.pop(absorbed)
    name_of = {identity: name for name, group in members.items() for identity in group}
    numbers = {name: i for i, name in enumerate(dict.fromkeys(map(name_of.get, identities)))}
    return np.array([numbers[name_of[identity]] for identity in identities], dtype=np.int64)


def _joins(pairs: Iterable[Pair], identities: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield which group absorbs which, each named by the least of its identities.

    ``links`` holds, for groups of which every pair is confirmed, the least similarity; what the
    heap says of groups that have changed since is passed over.
    """
    links: dict[str, dict[str, float]] = {identity: {} for identity in identities}
    heap: list[tuple[float, str, str]] = []

    def link(one: str, other: str, similarity: float) -> None:
        links[one][other] = links[other][one] = similarity
        heapq.heappush(heap, (-similarity, min(one, other), max(one, other)))

    for pair in pairs:
        link(identities[pair.first], identities[pair.second], pair.similarity)
    while heap:
        negative, name, absorbed = heapq.heappop(heap)
        if links.get(name, {}).get(absorbed) != -negative:
            continue
        yield name, absorbed
        ours, theirs = links.pop(name), links.pop(absorbed)
        links[name] = {}
        for other in (ours.keys() | theirs.keys()) - {name, absorbed}:
            links[other].pop(name, None)
            links[other].pop(absorbed, None)
            if other in ours and other in theirs:
                link(name, other, min(ours[other], theirs[other]))
