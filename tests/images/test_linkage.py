"""Linkage: groups are complete, and the same whatever the order of the images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from gelkit.errors import UsageError
from gelkit.images.linkage import complete_linkage
from gelkit.images.similarity import Pair


def test_a_chain_is_not_one_group() -> None:
    """Many different gels would become one group, each like the next."""
    pairs = [Pair(0, 1, 0.95), Pair(1, 2, 0.97), Pair(2, 3, 0.96)]
    assert complete_linkage(pairs, ["a", "b", "c", "d"]).tolist() == [0, 1, 1, 2]


def _partition(groups: np.ndarray, names: Sequence[str]) -> set[frozenset[str]]:
    return {
        frozenset(name for name, group in zip(names, groups, strict=True) if group == wanted)
        for wanted in set(groups.tolist())
    }


@settings(deadline=None)
@given(
    distances=st.integers(2, 9).flatmap(
        lambda n: st.permutations(range(n * (n - 1) // 2)).map(lambda p: np.array(p) / len(p))
    ),
    cut=st.floats(0.05, 0.95),
)
def test_groups_are_those_of_scipys_complete_linkage(distances: np.ndarray, cut: float) -> None:
    """The groups would not be what the documentation calls them."""
    square = squareform(distances)
    names = [str(number) for number in range(len(square))]
    pairs = [
        Pair(i, j, 1 - square[i, j])
        for i, j in combinations(range(len(square)), 2)
        if square[i, j] <= cut
    ]
    expected = fcluster(linkage(distances, "complete"), cut, "distance")
    assert _partition(complete_linkage(pairs, names), names) == _partition(expected, names)


GRAPHS = st.dictionaries(
    st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda pair: pair[0] < pair[1]),
    st.sampled_from((0.9, 0.95, 1.0)),
    max_size=36,
)


@settings(deadline=None)
@given(graph=GRAPHS, order=st.permutations(range(9)))
def test_groups_are_complete_cannot_grow_and_do_not_depend_on_the_order(
    graph: dict[tuple[int, int], float], order: list[int]
) -> None:
    """A group would hold strangers, or the same images would be grouped otherwise next time."""
    names = list("abcdefghi")
    groups = complete_linkage([Pair(i, j, value) for (i, j), value in graph.items()], names)
    for one, other in combinations(range(groups.max() + 1), 2):
        joined = np.flatnonzero((groups == one) | (groups == other)).tolist()
        assert not set(combinations(joined, 2)) <= graph.keys()
    for i, j in combinations(range(9), 2):
        assert groups[i] != groups[j] or (i, j) in graph
    place = np.argsort(order)
    moved = [Pair(*sorted(place[list(pair)].tolist()), value) for pair, value in graph.items()]
    shuffled = [names[number] for number in order]
    assert _partition(complete_linkage(moved, shuffled), shuffled) == _partition(groups, names)


def test_groups_are_numbered_in_order_of_appearance() -> None:
    """Group numbers would mean something else in every run."""
    groups = complete_linkage([Pair(1, 3, 1.0)], ["d", "c", "b", "a"])
    assert groups.dtype == np.int64
    assert groups.tolist() == [0, 1, 2, 1]
    assert complete_linkage([], []).tolist() == []


def test_images_of_equal_bytes_are_refused() -> None:
    """Ties between copies would be decided by the order of the files."""
    with pytest.raises(UsageError, match="3 images of 2 identities"):
        complete_linkage([], ["a", "b", "a"])
