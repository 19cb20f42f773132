"""Splits: no group on both sides, every image predicted once, every class always trained."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.heads.splits import (
    Folds,
    derived_seed,
    make_splits,
    splits_fingerprint,
)

Numbers = npt.NDArray[np.int64]


@st.composite
def _grouped_images(draw: st.DrawFn) -> tuple[Numbers, Numbers, int]:
    """Draw targets, groups of one class each, and a number of folds that there are groups for."""
    folds = draw(st.integers(2, 4))
    sizes = draw(
        st.lists(
            st.lists(st.integers(1, 2), min_size=2 * folds, max_size=2 * folds + 4),
            min_size=2,
            max_size=3,
        )
    )
    targets = np.repeat(np.arange(len(sizes)), [sum(its_sizes) for its_sizes in sizes])
    all_sizes = [size for its_sizes in sizes for size in its_sizes]
    groups = np.repeat(np.arange(len(all_sizes)), all_sizes)
    order = np.array(draw(st.permutations(range(len(targets)))))
    return targets[order], groups[order], folds


def _require_laws(splits: Folds, targets: Numbers, groups: Numbers, folds: int) -> None:
    assert splits.min() >= 0
    assert splits.max() < folds
    for assigned in splits:
        for group in np.unique(groups):
            assert len(set(assigned[groups == group])) == 1
        for fold in range(folds):
            assert set(targets[assigned == fold]) == set(targets)


def _classes(targets: Numbers) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(int(targets.max()) + 1))


@settings(deadline=None)
@given(_grouped_images(), st.integers(0, 10_000))
def test_groups_stay_together_and_every_class_trains(
    images: tuple[Numbers, Numbers, int], seed: int
) -> None:
    """A copy of a training image would be predicted, and accuracy be memory."""
    targets, groups, folds = images
    splits = make_splits(targets, groups, _classes(targets), folds=folds, repeats=2, seed=seed)
    assert splits.shape == (2, len(targets))
    _require_laws(splits, targets, groups, folds)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=4, max_size=30))
def test_groups_of_several_classes_are_split_soundly_or_refused(
    images: list[tuple[int, int]],
) -> None:
    """A user's groups would break the promise that classes train and groups stay together."""
    targets, groups = np.array(images, dtype=np.int64).T
    try:
        splits = make_splits(targets, groups, _classes(targets), folds=2, repeats=2)
    except UsageError:
        return
    _require_laws(splits, targets, groups, 2)


@settings(deadline=None)
@given(st.integers(4, 20), st.integers(4, 20), st.integers(2, 4))
def test_classes_are_spread_evenly_over_the_folds(first: int, second: int, folds: int) -> None:
    """A fold would hold nearly none of a class, and its figures be noise."""
    targets = np.repeat([0, 1], [first, second])
    (assigned,) = make_splits(targets, np.arange(len(targets)), "ab", folds=folds, repeats=1)
    for number in (0, 1):
        counts = np.bincount(assigned[targets == number], minlength=folds)
        assert np.ptp(counts) <= 1


def test_the_same_seed_gives_the_same_splits_and_each_repeat_others() -> None:
    """Results could not be repeated, or the repeats would be one and the same."""
    targets, groups = np.arange(30) % 2, np.arange(30)
    splits = make_splits(targets, groups, "ab", seed=3)
    assert splits.shape == (5, 30)
    assert np.array_equal(splits, make_splits(targets, groups, "ab", seed=3))
    assert len({assigned.tobytes() for assigned in splits}) == 5
    assert not np.array_equal(splits, make_splits(targets, groups, "ab", seed=99))


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 2])
def test_neighbouring_seeds_share_no_repeat(seed: int) -> None:
    """Running again with another seed would mostly give the same splits once more."""
    targets, groups = np.arange(30) % 2, np.arange(30)
    first, second = (make_splits(targets, groups, "ab", seed=s) for s in (seed, seed + 1))
    assert len({assigned.tobytes() for assigned in (*first, *second)}) == 10


@pytest.mark.parametrize("seed", [-1, -(2**40), 2**32, 2**64])
def test_a_seed_out_of_range_is_refused_and_the_range_named(seed: int) -> None:
    """A user would see the traceback of a random generator, perhaps only in the last repeat."""
    with pytest.raises(UsageError, match=rf"seed from 0 to 4294967295\. Received: {seed}\."):
        make_splits(np.arange(30) % 2, np.arange(30), "ab", seed=seed)


def test_each_place_has_a_seed_of_its_own() -> None:
    """Two folds would start from the same weights, or a fold from those of another seed."""
    places = [(), *((r,) for r in range(5)), *((r, f) for r in range(5) for f in range(5))]
    seeds = [derived_seed(seed, *place) for seed in (0, 1, 1000) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(("folds", "repeats"), [(1, 5), (0, 5), (5, 0)])
def test_too_few_folds_or_repeats_are_refused(folds: int, repeats: int) -> None:
    """A user would see scikit-learn's traceback, or empty results."""
    with pytest.raises(UsageError, match=f"Received: {folds} and {repeats}"):
        make_splits(np.arange(8) % 2, np.arange(8), "ab", folds=folds, repeats=repeats)


def test_too_few_groups_in_a_class_are_refused_with_a_remedy_that_works() -> None:
    """Six copies of three gels would be split as if they were six gels."""
    targets = np.repeat([0, 1], [6, 10])
    groups = np.array([0, 0, 1, 1, 2, 2, *range(3, 13)])
    with pytest.raises(UsageError, match=r"at least 5 .* Received: 3 in 'gel'.*--folds 3\."):
        make_splits(targets, groups, ("gel", "other"))
    _require_laws(make_splits(targets, groups, ("gel", "other"), folds=3), targets, groups, 3)


def test_the_fingerprint_tells_images_and_folds() -> None:
    """Two comparisons on different splits would be taken for one."""
    splits, names = np.array([[0, 1, 0], [1, 0, 0]]), ["a", "b", "c"]
    other_fold = splits.copy()
    other_fold[1, 2] = 1
    prints = [
        splits_fingerprint(splits, names),
        splits_fingerprint(splits[::-1], names),
        splits_fingerprint(other_fold, names),
        splits_fingerprint(splits, ["a", "c", "b"]),
    ]
    assert len(set(prints)) == 4
    assert splits_fingerprint(splits.astype(np.int32), iter(names)) == prints[0]
    assert all(a != b for a, b in pairwise(prints))
