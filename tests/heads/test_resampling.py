"""Resampling: replicates that keep groups whole and classes as large as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.heads.resampling import (
    draw_group_weights,
    group_classes,
    group_sizes,
    group_sums,
    replicate_errors,
)

AGAIN = settings(deadline=None, max_examples=40)


@AGAIN
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5)), min_size=1, max_size=40))
def test_groups_are_summed_by_their_number(images: list[tuple[int, int]]) -> None:
    """Losses would be booked on other groups than their own."""
    groups, values = (np.array(column) for column in zip(*images, strict=True))
    numbers = sorted(set(groups.tolist()))
    expected = [values[groups == number].sum() for number in numbers]
    np.testing.assert_array_equal(group_sums(np.stack([values, -values]), groups)[0], expected)
    assert group_sizes(groups).tolist() == [int((groups == number).sum()) for number in numbers]


@pytest.mark.parametrize("num_groups", [7, 3000], ids=["one-piece", "many-pieces"])
def test_each_replicate_keeps_the_classes_as_large_as_they_are(num_groups: int) -> None:
    """Intervals and tests would hold for other class proportions than the data's."""
    classes = np.arange(num_groups) % 3
    pieces = list(draw_group_weights(classes, seed=0))
    numbers = np.concatenate([numbers for numbers, _ in pieces])
    weights = np.concatenate([weights for _, weights in pieces])
    assert numbers.tolist() == list(range(2000))
    for number in range(3):
        assert set(weights[:, classes == number].sum(axis=1)) == {(classes == number).sum()}
    assert weights.mean(axis=0) == pytest.approx(np.ones(num_groups), abs=0.15)


def test_errors_spread_as_theory_says() -> None:
    """Every test and interval that rests on replicates would be too wide or too narrow."""
    losses = np.random.default_rng(0).uniform(size=(3, 1, 400))
    groups = np.repeat(np.arange(200), 2)
    errors = replicate_errors(losses, groups % 2, groups, seed=0, replicates=4000)
    means = losses[:, 0].reshape(3, 200, 2).mean(axis=2)
    within = (means[:, ::2].var(axis=1) + means[:, 1::2].var(axis=1)) / 2
    assert errors.std(axis=0) == pytest.approx(np.sqrt(within / 200), rel=0.05)
    assert errors.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)


def test_each_replicate_holds_one_repeat() -> None:
    """The luck of the splits and of the fits would not show in the spread."""
    losses = np.zeros((1, 2, 20))
    losses[0, 1] = 1
    errors = replicate_errors(losses, np.arange(20) % 2, np.arange(20), seed=0, replicates=10)
    assert sorted(errors[:, 0]) == [-0.5] * 5 + [0.5] * 5


def test_the_order_of_the_images_does_not_matter() -> None:
    """Renaming files would change the results."""
    generator = np.random.default_rng(0)
    losses, groups = generator.uniform(size=(2, 3, 30)), np.arange(30) // 2
    order = generator.permutation(30)
    one = replicate_errors(losses, groups % 2, groups, seed=0)
    other = replicate_errors(losses[..., order], groups[order] % 2, groups[order], seed=0)
    np.testing.assert_allclose(other, one, atol=1e-12)


@pytest.mark.parametrize(
    ("targets", "groups", "message"),
    [
        ([0, 0, 1], [0, 1, 1], r"one target.*two in group 1"),
        ([0, 0, 1], [0, 0, 1], r"class with 2 groups.*1 in each"),
    ],
    ids=["mixed-group", "one-group-each"],
)
def test_what_cannot_be_resampled_is_refused(
    targets: list[int], groups: list[int], message: str
) -> None:
    """A difference without any spread would look certain."""
    with pytest.raises(ValueError, match=message):
        replicate_errors(np.zeros((1, 1, 3)), np.array(targets), np.array(groups), seed=0)


def test_the_class_of_a_group_is_that_of_its_images() -> None:
    """Groups would be resampled among those of another class."""
    assert group_classes(np.array([1, 0, 1, 2]), np.array([3, 0, 3, 1])).tolist() == [0, 2, 1]
