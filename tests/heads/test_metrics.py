"""Metrics: scikit-learn's figures, averaged over repeats, and AUC from pairs that one model saw."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from gelkit.heads.metrics import Scores, score, score_out_of_fold

Targets = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]

AGAIN = settings(deadline=None, max_examples=40)

PLAIN = ("accuracy", "precision", "recall", "f1", "balanced_accuracy", "roc_auc", "brier")


@st.composite
def _predictions(draw: st.DrawFn, num_classes: int | None = None) -> tuple[Targets, Probabilities]:
    """Draw targets in which each class occurs, and probabilities with some ties."""
    classes = num_classes or draw(st.integers(2, 5))
    more = draw(st.lists(st.integers(0, classes - 1), max_size=25))
    targets = np.array([*range(classes), *more], dtype=np.int64)
    row = st.lists(st.integers(1, 12), min_size=classes, max_size=classes)
    weights = draw(st.lists(row, min_size=len(targets), max_size=len(targets)))
    raw = np.array(weights, dtype=np.float32)
    return targets, raw / raw.sum(axis=1, keepdims=True)


def _binary(positive: list[float]) -> Probabilities:
    return np.array([[1 - value, value] for value in positive], dtype=np.float32)


def _close(scores: Scores, other: Scores) -> None:
    for name in PLAIN:
        assert getattr(scores, name) == pytest.approx(getattr(other, name), nan_ok=True)
    np.testing.assert_allclose(scores.conf_mat, other.conf_mat)


@AGAIN
@given(_predictions())
def test_one_set_is_scored_as_by_scikit_learn(
    predictions: tuple[Targets, Probabilities],
) -> None:
    """Figures could not be compared with anyone else's."""
    targets, probabilities = predictions
    num_classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    scores = score(targets, probabilities)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(targets, predicted))
    macro = {"average": "macro", "zero_division": 0}
    assert scores.precision == pytest.approx(metrics.precision_score(targets, predicted, **macro))
    assert scores.recall == pytest.approx(metrics.recall_score(targets, predicted, **macro))
    assert scores.f1 == pytest.approx(metrics.f1_score(targets, predicted, **macro))
    assert scores.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(targets, predicted)
    )
    assert np.array_equal(scores.conf_mat, metrics.confusion_matrix(targets, predicted))
    one_hot = np.eye(num_classes)[targets]
    area = np.mean(
        [metrics.roc_auc_score(one_hot[:, k], probabilities[:, k]) for k in range(num_classes)]
    )
    assert scores.roc_auc == pytest.approx(area)
    squares = ((one_hot - probabilities) ** 2).sum(axis=1).mean()
    assert scores.brier == pytest.approx(squares / 2 if num_classes == 2 else squares, abs=1e-6)


@AGAIN
@given(_predictions(num_classes=2), st.integers(0, 1))
def test_a_positive_class_has_scikit_learns_figures(
    predictions: tuple[Targets, Probabilities], positive: int
) -> None:
    """Who asks for the sensitivity to gels would get a mean over gels and the rest."""
    targets, probabilities = predictions
    predicted = probabilities.argmax(axis=1)
    scores, macro = score(targets, probabilities, positive), score(targets, probabilities)
    binary = {"pos_label": positive, "zero_division": 0}
    assert scores.precision == pytest.approx(metrics.precision_score(targets, predicted, **binary))
    assert scores.recall == pytest.approx(metrics.recall_score(targets, predicted, **binary))
    assert scores.f1 == pytest.approx(metrics.f1_score(targets, predicted, **binary))
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "brier", "conf_mat"):
        assert getattr(scores, name) == getattr(macro, name)


@AGAIN
@given(_predictions(num_classes=2))
def test_two_classes_have_the_area_and_brier_score_of_the_second(
    predictions: tuple[Targets, Probabilities],
) -> None:
    """The common case would differ from the common definition."""
    targets, probabilities = predictions
    scores = score(targets, probabilities)
    assert scores.roc_auc == pytest.approx(metrics.roc_auc_score(targets, probabilities[:, 1]))
    brier = metrics.brier_score_loss(targets, probabilities[:, 1])
    assert scores.brier == pytest.approx(brier, abs=1e-6)


def test_the_area_comes_from_probabilities_not_from_labels() -> None:
    """roc_auc would be balanced accuracy under another name, as in the study gelkit follows."""
    scores = score(np.array([0, 0, 1, 1]), _binary([0.1, 0.3, 0.2, 0.4]))
    assert scores.accuracy == 0.5
    assert scores.balanced_accuracy == 0.5
    assert scores.roc_auc == 0.75  # three of the four pairs are in order


def test_a_small_case_by_hand() -> None:
    """Rows and columns of the confusion matrix would be exchanged, or macro means weighted."""
    predicted = [0, 0, 0, 1, 0, 1]
    probabilities = _binary([0.9 if number else 0.2 for number in predicted])
    scores = score(np.array([0, 0, 0, 0, 1, 1]), probabilities)
    assert scores.conf_mat == ((3, 1), (1, 1))
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.precision == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.recall == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.balanced_accuracy == pytest.approx(5 / 8)


def test_a_class_that_is_never_predicted_has_precision_0() -> None:
    """A head that calls everything a gel would look precise, or fill the terminal with warnings."""
    scores = score(np.array([0, 0, 0, 1]), _binary([0.1] * 4))
    assert scores.precision == pytest.approx((3 / 4 + 0) / 2)
    assert scores.balanced_accuracy == 0.5
    assert scores.roc_auc == 0.5


BRIER = {
    "sure and right": (_binary([0, 1]), 0.0),
    "sure and wrong": (_binary([1, 0]), 1.0),
    "undecided": (_binary([0.5, 0.5]), 0.25),
    "three classes, sure and wrong": (np.array([[0, 0, 1], [0, 0, 1]], np.float32), 2.0),
    "three classes, sure and right": (np.array([[1, 0, 0], [0, 1, 0]], np.float32), 0.0),
}


@pytest.mark.parametrize("case", BRIER)
def test_brier_scores_by_hand(case: str) -> None:
    """The figure's range would not be the documented one."""
    probabilities, expected = BRIER[case]
    assert score(np.array([0, 1]), probabilities).brier == pytest.approx(expected)


@AGAIN
@given(_predictions(), st.data())
def test_the_order_of_images_does_not_matter(
    predictions: tuple[Targets, Probabilities], data: st.DataObject
) -> None:
    """Renaming files would change the figures."""
    targets, probabilities = predictions
    count = len(targets)
    folds = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    order = np.array(data.draw(st.permutations(range(count))))
    _close(
        score_out_of_fold(targets, probabilities[np.newaxis], folds[np.newaxis]),
        score_out_of_fold(
            targets[order], probabilities[np.newaxis, order], folds[np.newaxis, order]
        ),
    )


@AGAIN
@given(_predictions(num_classes=2), st.floats(0.5, 4))
def test_a_monotone_change_of_scores_keeps_the_area(
    predictions: tuple[Targets, Probabilities], power: float
) -> None:
    """The area would depend on how sure a head says it is."""
    targets, probabilities = predictions
    changed = probabilities.astype(np.float64) ** power
    changed /= changed.sum(axis=1, keepdims=True)
    assert score(targets, changed).roc_auc == pytest.approx(score(targets, probabilities).roc_auc)


def _area_by_pairs(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating], folds: Targets
) -> float:
    """Count pairs of one fold by brute force; a tie counts half."""
    won = [
        float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j])
        for i, j in product(np.flatnonzero(positive), np.flatnonzero(~positive))
        if folds[i] == folds[j]
    ]
    return float(np.mean(won)) if won else math.nan


@AGAIN
@given(_predictions(), st.data())
def test_the_area_counts_pairs_of_one_fold(
    predictions: tuple[Targets, Probabilities], data: st.DataObject
) -> None:
    """Probabilities of different models would be ranked against each other."""
    targets, probabilities = predictions
    count = len(targets)
    folds = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    areas = [
        _area_by_pairs(targets == number, probabilities[:, number], folds)
        for number in range(probabilities.shape[1])
    ]
    known = [area for area in areas if not math.isnan(area)]
    scores = score_out_of_fold(targets, probabilities[np.newaxis], folds[np.newaxis])
    expected = float(np.mean(known)) if known else math.nan
    assert scores.roc_auc == pytest.approx(expected, nan_ok=True)


def test_models_of_different_confidence_are_not_pooled() -> None:
    """A perfect ranking in every fold would be reported as an imperfect one."""
    targets, folds = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    probabilities = _binary([0.1, 0.2, 0.8, 0.9])
    pooled = score(targets, probabilities)
    assert pooled.roc_auc == 0.75
    scores = score_out_of_fold(targets, probabilities[np.newaxis], folds[np.newaxis])
    assert scores.roc_auc == 1.0


def test_without_two_classes_in_any_fold_there_is_no_area() -> None:
    """A figure would be shown where there is none."""
    targets = np.array([0, 0, 1, 1])
    probabilities = _binary([0.1, 0.2, 0.8, 0.9])
    scores = score_out_of_fold(targets, probabilities[np.newaxis], targets[np.newaxis])
    assert math.isnan(scores.roc_auc)
    assert scores.accuracy == 1.0


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_set_that_lacks_a_class_is_scored(num_classes: int) -> None:
    """A test set of gels alone would end in an error or a warning."""
    probabilities = np.full((4, num_classes), 0.1, np.float32)
    probabilities[:3, 0] = probabilities[3, 1] = 1 - 0.1 * (num_classes - 1)
    scores = score(np.zeros(4, np.int64), probabilities)
    assert scores.accuracy == 0.75
    assert scores.balanced_accuracy == 0.75
    assert math.isnan(scores.roc_auc)
    assert math.isfinite(scores.brier)
    assert scores.conf_mat[0][:2] == (3, 1)
    assert np.sum(scores.conf_mat) == 4


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_perfect_head_is_perfect_on_a_set_that_lacks_a_class(num_classes: int) -> None:
    """All right on a test set of gels alone would be called a recall of one half."""
    probabilities = np.zeros((4, num_classes), np.float32)
    probabilities[:, 1] = 1
    scores = score(np.ones(4, np.int64), probabilities)
    figures = ("accuracy", "precision", "recall", "f1", "balanced_accuracy")
    assert [getattr(scores, name) for name in figures] == [1.0] * 5


def test_a_class_that_is_absent_but_predicted_counts() -> None:
    """Calling gels something that the set does not hold would cost no precision."""
    probabilities = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]
    scores = score(np.zeros(4, np.int64), probabilities)
    assert scores.precision == pytest.approx((1 + 0) / 2)
    assert scores.recall == pytest.approx((3 / 4 + 0) / 2)
    assert scores.balanced_accuracy == pytest.approx(3 / 4)


@settings(AGAIN, max_examples=20)
@given(st.lists(_predictions(num_classes=3), min_size=2, max_size=3))
def test_repeats_are_averaged(repeats: list[tuple[Targets, Probabilities]]) -> None:
    """One lucky repeat would be reported, or images be counted several times."""
    targets, _ = min(repeats, key=lambda repeat: len(repeat[0]))
    predicted = [probabilities[: len(targets)] for _, probabilities in repeats]
    scores = score_out_of_fold(
        targets, np.stack(predicted), np.zeros((len(predicted), len(targets)), np.int64)
    )
    each = [score(targets, probabilities) for probabilities in predicted]
    for name in PLAIN:
        assert getattr(scores, name) == pytest.approx(np.mean([getattr(one, name) for one in each]))
    np.testing.assert_allclose(scores.conf_mat, np.mean([one.conf_mat for one in each], axis=0))
    assert np.sum(scores.conf_mat) == pytest.approx(len(targets))


def test_columns_are_named_with_the_prefix() -> None:
    """Figures of a test set would overwrite the cross-validated ones."""
    scores = score(np.array([0, 1]), _binary([0.2, 0.9]))
    plain, prefixed = scores.columns(), scores.columns("test_")
    assert prefixed == {f"test_{name}": value for name, value in plain.items()}
    assert set(plain) == {*PLAIN, "conf_mat"}
    assert plain["conf_mat"] == [[1, 0], [0, 1]]
