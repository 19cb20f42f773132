"""Calibration: the figures of logistic recalibration, and an ECE beside what chance would give."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from gelkit.heads.calibration import BINS, Calibration, calibration

AGAIN = settings(deadline=None, max_examples=15)

Targets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _draw(images: int, classes: int, seed: int, *, spread: float = 1.5) -> tuple[Targets, Floats]:
    """Draw log odds, (images x classes), and targets from their probabilities."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(images, classes))
    draws = rng.random((images, 1))
    targets = (draws > _softmax(logits).cumsum(axis=1)).sum(axis=1)
    return targets.astype(np.int64), logits


def _measure(targets: Targets, logits: Floats, *, seed: int = 0) -> Calibration:
    probabilities = _softmax(logits).astype(np.float32)[np.newaxis]
    return calibration(targets, probabilities, np.arange(len(targets)), seed=seed)


def _close(mine: Calibration, other: Calibration) -> None:
    for name in ("slope", "intercept", "ece"):
        expected = pytest.approx(getattr(other, name), abs=1e-4, nan_ok=True)
        assert getattr(mine, name) == expected, name


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_right_probabilities_are_called_right(classes: int) -> None:
    """Every head would look badly calibrated."""
    found = _measure(*_draw(20_000, classes, seed=0))
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.intercept == pytest.approx(0, abs=0.1)
    assert found.ece < 1.2 * found.ece_if_calibrated < 0.02


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("factor", [0.5, 3.0], ids=["timid", "extreme"])
def test_the_slope_undoes_exaggeration(classes: int, factor: float) -> None:
    """Heads that are too sure of themselves would not be told from timid ones."""
    targets, logits = _draw(5000, classes, seed=1)
    honest, exaggerated = _measure(targets, logits), _measure(targets, factor * logits)
    assert exaggerated.slope == pytest.approx(honest.slope / factor, rel=0.01)
    assert exaggerated.ece > 2 * exaggerated.ece_if_calibrated


def test_two_classes_have_scikit_learns_slope() -> None:
    """The slope could not be compared with that of other programs."""
    targets, logits = _draw(300, 2, seed=2)
    log_odds = (logits[:, 1] - logits[:, 0])[:, np.newaxis]
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds, targets).coef_[0, 0]
    assert _measure(targets, logits).slope == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_intercept_balances_the_classes(classes: int) -> None:
    """A head trained on other class proportions would look calibrated."""
    targets, logits = _draw(2000, classes, seed=3)
    shift = np.zeros(classes)
    shift[-1] = -1.0  # the last class is underpredicted
    honest, shifted = _measure(targets, logits), _measure(targets, logits + shift)
    assert honest.intercept == pytest.approx(0, abs=0.2)
    assert shifted.intercept == pytest.approx(1, abs=0.2)
    assert shifted.slope == pytest.approx(honest.slope, abs=1e-3)  # beside free intercepts


def test_at_the_intercept_as_many_are_expected_as_seen() -> None:
    """The intercept would be that of a fit whose slope is free, which means something else."""
    targets, logits = _draw(200, 2, seed=4)
    log_odds = 2.5 * (logits[:, 1] - logits[:, 0]) + 0.7
    found = _measure(targets, np.stack([np.zeros(len(targets)), log_odds], axis=1))
    expected = 1 / (1 + np.exp(-(log_odds + found.intercept)))
    assert expected.sum() == pytest.approx(targets.sum(), abs=1e-2)


@AGAIN
@given(st.integers(30, 80), st.integers(2, 4), st.integers(0, 10**6))
def test_order_of_images_and_classes_does_not_matter(images: int, classes: int, seed: int) -> None:
    """Renaming files or classes would change the calibration."""
    targets, logits = _draw(images, classes, seed)
    logits = np.round(logits, 1)  # some confidences are equal
    plain = _measure(targets, logits)
    order = np.random.default_rng(seed).permutation(images)
    _close(_measure(targets[order], logits[order]), plain)
    swapped = _measure(classes - 1 - targets, logits[:, ::-1])
    sign = -1 if classes == 2 else 1  # of two classes, the intercept is the second one's
    assert swapped.slope == pytest.approx(plain.slope, abs=1e-4, nan_ok=True)
    assert swapped.intercept == pytest.approx(sign * plain.intercept, abs=1e-4, nan_ok=True)


def test_repeats_are_averaged() -> None:
    """The figures would be those of one repeat, or of five times the images."""
    targets, logits = _draw(200, 3, seed=5)
    both = np.stack([_softmax(logits), _softmax(2 * logits)]).astype(np.float32)
    found = calibration(targets, both, np.arange(200), seed=0)
    one, two = _measure(targets, logits), _measure(targets, 2 * logits)
    for name in ("slope", "intercept", "ece"):
        mean = (getattr(one, name) + getattr(two, name)) / 2
        assert getattr(found, name) == pytest.approx(mean, rel=1e-5), name


def test_expected_calibration_error_by_hand() -> None:
    """The ECE would be that of other bins, or of the second class instead of the predicted one."""
    confidences = np.repeat(np.linspace(0.55, 0.95, BINS), 4)  # a bin for each
    right = np.tile([True, True, True, False], BINS)
    probabilities = np.stack([confidences, 1 - confidences], axis=1).astype(np.float32)
    found = calibration(
        np.where(right, 0, 1), probabilities[np.newaxis], np.arange(4 * BINS), seed=0
    )
    assert found.ece == pytest.approx(np.abs(0.75 - np.linspace(0.55, 0.95, BINS)).mean(), abs=1e-6)


def test_ece_of_right_probabilities_is_below_its_quantile_19_times_in_20() -> None:
    """The ECE of a calibrated head would be called too large, or that of a bad one chance."""
    found = [_measure(*_draw(60, 2, seed)) for seed in range(100)]
    above = sum(one.ece > one.ece_if_calibrated for one in found)
    assert 1 <= above <= 10


def test_groups_leave_more_to_chance() -> None:
    """Near copies would make an ECE look significant."""
    targets, logits = _draw(40, 2, seed=6)
    five = np.repeat(np.arange(40), 5)
    probabilities = _softmax(logits).astype(np.float32)[five][np.newaxis]
    alone = calibration(targets[five], probabilities, np.arange(200), seed=0)
    grouped = calibration(targets[five], probabilities, five, seed=0)
    assert grouped.ece == alone.ece
    single = _measure(targets, logits)
    assert grouped.ece_if_calibrated == pytest.approx(single.ece_if_calibrated, rel=1e-3)
    assert alone.ece_if_calibrated < 0.7 * grouped.ece_if_calibrated


def test_a_seed_decides_the_draws() -> None:
    """Two runs would give two tables."""
    drawn = _draw(50, 3, seed=7)
    assert _measure(*drawn, seed=1) == _measure(*drawn, seed=1)
    assert _measure(*drawn, seed=1) != _measure(*drawn, seed=2)


NO_SLOPE = {
    "separated": ([0, 0, 1, 1], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]], 0.0),
    "separated, all the way": ([0, 0, 1, 1], [[1, 0], [1, 0], [0, 1], [0, 1]], 0.0),
    "separated, wrong way": ([1, 1, 0, 0], [[1, 0], [1, 0], [0, 1], [0, 1]], 0.0),
    "the same for all": ([0, 0, 0, 1], [[0.75, 0.25]] * 4, 0.0),
    "a class without images": ([0, 0, 0], [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], math.nan),
    "three classes, separated": ([0, 1, 2], np.eye(3).tolist(), 0.0),
}


@pytest.mark.parametrize(("targets", "probabilities", "intercept"), NO_SLOPE.values(), ids=NO_SLOPE)
def test_where_no_slope_fits_there_is_none(
    targets: list[int], probabilities: list[list[float]], intercept: float
) -> None:
    """A perfect head would have an arbitrary, huge slope, or stop the comparison."""
    given_probabilities = np.array([probabilities], dtype=np.float32)
    found = calibration(np.array(targets), given_probabilities, np.arange(len(targets)), seed=0)
    assert math.isnan(found.slope)
    assert found.intercept == pytest.approx(intercept, abs=0.5, nan_ok=True)
    assert 0 <= found.ece <= 1
    assert 0 <= found.ece_if_calibrated <= 1


def test_a_certain_error_does_not_decide_all() -> None:
    """One image predicted wrong with probability 1 would make the figures infinite."""
    targets, logits = _draw(100, 2, seed=8)
    logits[0] = [200, 0]
    targets[0] = 1
    found = _measure(targets, logits)
    assert 0 < found.slope < 1
    assert abs(found.intercept) < 3
