"""Sign flips: differences on a held-out test set, and how well chance explains them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.heads.contrasts import holm
from gelkit.heads.sign_flips import assess_differences

AGAIN = settings(deadline=None, max_examples=40)


@AGAIN
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_few_groups_are_enumerated(differences: list[int]) -> None:
    """p-values of small test sets would be off, or change with the seed."""
    reference = np.zeros(len(differences))
    (found,) = assess_differences(np.array([differences]), reference, np.arange(len(differences)))
    totals = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(reference))]
    assert found.p_value == pytest.approx(np.mean(np.array(totals) >= abs(sum(differences))))
    assert found.difference == pytest.approx(np.mean(differences))


def test_many_groups_are_drawn_close_to_the_exact_value() -> None:
    """p-values of large test sets would be off."""
    from scipy.stats import binomtest

    losses = np.zeros((1, 60))
    losses[0, :40] = 1
    reference = 1 - losses[0]
    (found,) = assess_differences(losses, reference, np.arange(60))
    assert found.p_value == pytest.approx(binomtest(40, 60).pvalue, abs=0.003)
    assert found == assess_differences(losses, reference, np.arange(60))[0]


def test_a_certain_difference_keeps_a_p_value_above_zero() -> None:
    """10,000 draws would claim a certainty that they cannot show."""
    (found,) = assess_differences(np.ones((1, 2000)), np.zeros(2000), np.arange(2000))
    assert found.p_value == pytest.approx(1 / 10_001)


def test_groups_flip_as_a_whole() -> None:
    """Copies of one gel would count as so many gels."""
    losses = np.ones((1, 40))
    (found,) = assess_differences(losses, np.zeros(40), np.repeat(np.arange(4), 10))
    assert found.p_value == 2 / 2**4


def test_groups_without_a_difference_change_nothing() -> None:
    """Easy test images would dilute the comparison, or turn an exact test into a drawn one."""
    losses = np.zeros((1, 500))
    losses[0, :6] = [1, 1, 1, 1, 1, -1]
    (all_images,) = assess_differences(losses, np.zeros(500), np.arange(500))
    (few,) = assess_differences(losses[:, :6], np.zeros(6), np.arange(6))
    assert all_images.p_value == few.p_value == 14 / 64


def test_the_same_predictions_are_no_difference() -> None:
    """A twin of the reference would give a division by zero, or a discovery."""
    losses = np.array([0.0, 1.0, 0.0])
    (found,) = assess_differences(losses[np.newaxis], losses, np.arange(3))
    assert (found.difference, found.p_value) == (0, 1)


def test_p_values_are_adjusted_over_all_that_are_compared() -> None:
    """One of 23 comparisons with the reference would be significant by chance."""
    losses = np.random.default_rng(0).integers(2, size=(5, 30)).astype(np.float64)
    found = assess_differences(losses, np.zeros(30), np.arange(30) // 3)
    assert tuple(each.adjusted_p_value for each in found) == holm([each.p_value for each in found])


def test_chance_is_found_as_seldom_as_it_should_be() -> None:
    """Differences between equals would be called real more often than in 1 of 20 test sets."""
    generator = np.random.default_rng(1)
    losses = generator.normal(size=(400, 24)).repeat(2, axis=1)
    found = assess_differences(losses, np.zeros(48), np.repeat(np.arange(24), 2))
    assert sum(each.p_value <= 0.05 for each in found) <= 31  # P(more | 5%) < 1%
