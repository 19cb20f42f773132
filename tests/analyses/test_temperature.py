"""Temperature: probabilities that mean what they say, changed only where that helps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gelkit.analyses.temperature import (
    RANGE,
    SMALLEST,
    assess_temperature,
    fit_temperature,
    scale,
)

REPEATS = 3


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _simulated(
    count: int, num_classes: int, boldness: float, seed: int, copies: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw targets from true probabilities, and predictions that are ``boldness`` times as bold.

    :returns: targets, predictions of :data:`REPEATS` repeats, and groups of ``copies`` images.
    """
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, num_classes))
    draws = generator.gumbel(size=logits.shape)
    targets = (logits + draws).argmax(axis=1)
    predicted = np.stack([_softmax(boldness * logits)] * REPEATS).astype(np.float32)
    groups = np.arange(count)
    return targets.repeat(copies), predicted.repeat(copies, axis=1), groups.repeat(copies)


@given(
    arrays(np.float64, (4, 3), elements=st.floats(1e-3, 1)),
    st.floats(*RANGE),
)
def test_scaled_probabilities_sum_to_one_and_keep_their_order(
    values: np.ndarray, temperature: float
) -> None:
    """Calibration would change which class is predicted, or give what are no probabilities."""
    probabilities = values / values.sum(axis=1, keepdims=True)
    scaled = scale(probabilities, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    for before, after in zip(probabilities, scaled, strict=True):
        order = np.argsort(before)
        assert (np.diff(after[order]) >= 0).all()


def test_temperature_one_changes_nothing() -> None:
    """Well calibrated probabilities would be bent."""
    probabilities = np.array([[0.1, 0.9], [0.5, 0.5]])
    np.testing.assert_allclose(scale(probabilities, 1), probabilities)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("boldness", [0.5, 3.0], ids=["timid", "bold"])
def test_the_temperature_that_spoiled_probabilities_is_found(
    num_classes: int, boldness: float
) -> None:
    """Probabilities would be called calibrated and not be."""
    targets, predicted, groups = _simulated(4000, num_classes, boldness, seed=1)
    assert fit_temperature(targets, predicted, groups) == pytest.approx(boldness, rel=0.1)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_what_helps_is_applied(num_classes: int) -> None:
    """Overconfident probabilities would be left as they are, or said to help by other figures."""
    targets, predicted, groups = _simulated(150, num_classes, 4.0, seed=2)
    found = assess_temperature(targets, predicted, groups)
    assert found.applied
    assert found.scaled_log_loss < found.log_loss
    assert found.scaled_brier <= found.brier
    np.testing.assert_array_equal(found.apply(predicted), scale(predicted, found.temperature))
    right = predicted[0, np.arange(len(targets)), targets]
    assert found.log_loss == pytest.approx(-np.log(right.clip(SMALLEST)).mean(), rel=1e-4)


def test_calibrated_probabilities_are_left_alone() -> None:
    """Luck would change good probabilities: in more than 1 of 20 data sets, it must not."""
    runs = [_simulated(60, 2, 1.0, seed) for seed in range(25)]
    found = [assess_temperature(*run) for run in runs]
    assert sum(its.applied for its in found) <= 3
    kept, (_, predicted, _) = next(
        (its, run) for its, run in zip(found, runs, strict=True) if not its.applied
    )
    np.testing.assert_array_equal(kept.apply(predicted), predicted.astype(np.float64))


def test_copies_prove_nothing() -> None:
    """Ten copies of each image would make chance look like a proof."""
    runs = [_simulated(25, 2, 1.0, seed, copies=10) for seed in range(25)]
    assert sum(assess_temperature(*run).applied for run in runs) <= 3


def test_what_makes_matters_worse_is_never_applied() -> None:
    """Where chance would make it worse still, a temperature that harms would be called a help."""
    tempting = 0
    for seed in range(35):
        generator = np.random.default_rng(seed)
        logits = 4 * generator.normal(size=(40, 2)) * generator.choice([1, 3, 8], size=(40, 1))
        targets = (0.5 * logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
        found = assess_temperature(targets, _softmax(logits)[np.newaxis], np.arange(40))
        harmful = found.scaled_log_loss >= found.log_loss
        assert not (found.applied and harmful)
        tempting += harmful and found.p_value <= 0.05
    assert tempting


def test_a_few_confident_errors_are_enough() -> None:
    """A good head that is certain where it errs would go on being certain."""
    targets = np.arange(100) % 2
    certain = np.where(np.eye(2)[targets] > 0, 0.9995, 0.0005)[np.newaxis]
    certain[:, :3] = certain[:, :3, ::-1]
    found = assess_temperature(targets, certain, np.arange(100))
    assert found.applied
    assert found.apply(certain).max() == pytest.approx(0.96, abs=0.02)


def test_predictions_that_are_all_right_are_not_made_certain() -> None:
    """Twenty images would be enough for a probability of 1."""
    targets = np.arange(20) % 2
    right = np.where(np.eye(2)[targets] > 0, 0.9, 0.1)[np.newaxis]
    temperature = fit_temperature(targets, right, np.arange(20))
    assert scale(right, temperature).max() == pytest.approx(11 / 12, abs=1e-4)


def test_a_class_of_one_group_leaves_probabilities_alone() -> None:
    """A small data set would end in a traceback."""
    targets, predicted, _ = _simulated(20, 2, 4.0, seed=2)
    found = assess_temperature(targets, predicted, targets)
    assert not found.applied
    assert found.log_loss == found.scaled_log_loss
