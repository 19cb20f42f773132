"""Contrasts: the axes compared pair by pair, and p-values that allow for overlapping fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.heads.contrasts import (
    Contrast,
    anchor_contrasts,
    assess_contrasts,
    axis_contrasts,
    corrected_t_test,
    fold_scores,
    holm,
    predicted_to_trained,
)

AGAIN = settings(deadline=None, max_examples=40)

THE_24 = choose_configurations(
    ("cpu", "tpu"), ("resnet18", "vgg16", "mobilenet-v3"), ("single", "multi"), ("adam", "sgd")
)

DIFFERENCES = arrays.arrays(np.float64, (5, 5), elements=st.floats(-1, 1, width=16))


def test_the_axes_of_the_24() -> None:
    """The summary would lack a comparison, or compare configurations that differ twice."""
    contrasts = {contrast.name: contrast.pairs for contrast in axis_contrasts(THE_24)}
    assert {name: len(pairs) for name, pairs in contrasts.items()} == {
        "hardware: tpu - cpu": 12,
        "backbone: vgg16 - resnet18": 8,
        "backbone: mobilenet-v3 - resnet18": 8,
        "backbone: mobilenet-v3 - vgg16": 8,
        "head: multi - single": 12,
        "optimizer: sgd - adam": 12,
    }
    for name, pairs in contrasts.items():
        axis, _, values = name.partition(": ")
        first, second = values.split(" - ")
        for i, j in pairs:
            changed = {
                a: (getattr(THE_24[i], a), getattr(THE_24[j], a))
                for a in ("hardware", "backbone", "head", "optimizer")
                if getattr(THE_24[i], a) != getattr(THE_24[j], a)
            }
            assert changed == {axis: (first, second)}


def test_what_has_no_match_takes_no_part() -> None:
    """A partial comparison would weigh the backbone's difference as the optimizer's."""
    partial = [
        Configuration(1, "cpu", "resnet18", "single", "adam"),
        Configuration(2, "cpu", "resnet18", "single", "sgd"),
        Configuration(5, "cpu", "vgg16", "single", "adam"),
    ]
    assert axis_contrasts(partial) == (
        Contrast("backbone: vgg16 - resnet18", ((2, 0),)),
        Contrast("optimizer: sgd - adam", ((1, 0),)),
    )


def test_heads_are_compared_with_the_anchor_of_their_embeddings() -> None:
    """Heads on one backbone would be compared with logistic regression on another."""
    anchors = [("cpu", "resnet18"), ("tpu", "vgg16")]
    contrasts = anchor_contrasts(THE_24, anchors, "logistic regression")
    assert [c.name for c in contrasts] == [
        "head: single - logistic regression",
        "head: multi - logistic regression",
    ]
    assert contrasts[0].pairs == ((0, 24), (1, 24), (16, 25), (17, 25))
    assert anchor_contrasts(THE_24, [("cuda", "vgg16")], "logistic regression") == ()


@pytest.mark.parametrize(
    ("images", "num_folds", "expected"), [(100, 5, 0.25), (30, 2, 1.0), (12, 4, 1 / 3)]
)
def test_the_ratio_of_even_folds(images: int, num_folds: int, expected: float) -> None:
    """The correction for overlapping training sets would be too small or too large."""
    folds = np.stack([np.arange(images) % num_folds, np.arange(images)[::-1] % num_folds])
    assert predicted_to_trained(folds) == pytest.approx(expected)


def test_a_fold_is_scored_on_its_own_images() -> None:
    """Differences between folds would be differences between other images."""
    folds = np.array([[0, 0, 1], [1, 0, 1]])
    scores = np.array([[[1, 0, 1], [1, 0, 0]]])
    np.testing.assert_allclose(fold_scores(scores, folds), [[[0.5, 1], [0, 0.5]]])


def test_the_corrected_t_test_by_hand() -> None:
    """p-values could not be compared with anyone else's."""
    differences = np.array([[0.1, 0.2], [0.0, 0.1]])
    t, p_value = corrected_t_test(differences, 0.25)
    expected = 0.1 / np.sqrt((1 / 4 + 1 / 4) * (0.02 / 3))
    assert t == pytest.approx(expected)
    assert p_value == pytest.approx(2 * stats.t.sf(expected, 3))


@AGAIN
@given(DIFFERENCES)
def test_overlap_makes_a_difference_less_certain(differences: np.ndarray) -> None:
    """Repeating the cross-validation would make any difference look certain."""
    t, p_value = corrected_t_test(differences, 0.25)
    plain = corrected_t_test(differences, 0.0)
    assert abs(t) <= abs(plain[0])
    assert p_value >= plain[1]
    if differences.std() > 1e-6:
        reference = stats.ttest_1samp(differences.ravel(), 0)
        assert plain == pytest.approx((reference.statistic, reference.pvalue))


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0.0, (0.0, 1.0)), (0.2, (np.inf, 0.0)), (-0.2, (-np.inf, 0.0))],
    ids=["equal", "better", "worse"],
)
def test_differences_that_never_vary(difference: float, expected: tuple[float, float]) -> None:
    """An emulated TPU, the same as the CPU everywhere, would give NaN."""
    assert corrected_t_test(np.full((5, 5), difference), 0.25) == expected


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], ()),
        ([0.03], (0.03,)),
        ([0.01, 0.04, 0.03], (0.03, 0.06, 0.06)),
        ([0.5, 0.6], (1.0, 1.0)),
        ([0.02, 0.02], (0.04, 0.04)),
    ],
    ids=["none", "one", "three", "capped", "equal"],
)
def test_holm_by_hand(p_values: list[float], expected: tuple[float, ...]) -> None:
    """Testing many contrasts would find one by chance, or none at all."""
    assert holm(p_values) == pytest.approx(expected)


@AGAIN
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    """An adjusted p-value would be smaller than the plain one, or order tests anew."""
    adjusted = holm(p_values)
    for plain, raised in zip(p_values, adjusted, strict=True):
        assert plain <= raised <= min(1, plain * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)


def test_contrasts_are_averaged_over_the_other_axes_and_adjusted_together() -> None:
    """The table of contrasts would show one pair for the whole axis."""
    scores = np.random.default_rng(0).normal(0.8, 0.05, size=(4, 5, 5))
    scores[2:] += 0.1
    contrasts = (Contrast("big", ((2, 0), (3, 1))), Contrast("small", ((1, 0),)))
    big, small = assess_contrasts(contrasts, scores, 0.25)
    difference = (scores[2] - scores[0] + scores[3] - scores[1]) / 2
    assert (big.name, small.name) == ("big", "small")
    assert big.difference == pytest.approx(difference.mean())
    assert (big.t, big.p_value) == pytest.approx(corrected_t_test(difference, 0.25))
    assert (big.adjusted_p_value, small.adjusted_p_value) == holm([big.p_value, small.p_value])


def test_nothing_to_compare_gives_an_empty_table() -> None:
    """A run of a single configuration would fail."""
    assert assess_contrasts(axis_contrasts(THE_24[:1]), np.zeros((1, 5, 5)), 0.25) == ()
