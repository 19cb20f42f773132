"""Abstention: what is called sure is wrong as rarely as promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from gelkit.analyses.abstention import choose_threshold
from gelkit.errors import UsageError

SIMULATIONS = 400


def _answers(
    confidences: np.ndarray, right: np.ndarray, num_classes: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and probabilities (images x classes) of answers that are right or not."""
    rest = (1 - confidences) / (num_classes - 1)
    probabilities = np.repeat(rest[:, np.newaxis], num_classes, axis=1)
    probabilities[:, 0] = confidences
    return np.where(right, 0, 1), probabilities


def _choose(targets: np.ndarray, probabilities: np.ndarray, **others: object):
    others = {"max_error": 0.1} | others
    groups = others.pop("groups", np.arange(len(targets)))
    barred = others.pop("barred", np.zeros(len(targets), dtype=np.bool_))
    return choose_threshold(targets, probabilities[np.newaxis], groups, barred, **others)


@pytest.mark.parametrize("copies", [1, 3], ids=["single", "copies"])
@pytest.mark.parametrize("error", [0.101, 0.13], ids=["just too many", "too many"])
def test_the_promised_error_holds_in_19_of_20_data_sets(error: float, copies: int) -> None:
    """Of the sure answers more would be wrong than was promised, in too many laboratories.

    The probability says nothing here, so that every threshold breaks the promise.
    """
    generator = np.random.default_rng(0)
    broken = 0
    for _ in range(SIMULATIONS):
        confidences, right = generator.uniform(0.5, 1, 100), generator.random(100) >= error
        targets, probabilities = _answers(confidences.repeat(copies), right.repeat(copies))
        groups = np.arange(100).repeat(copies)
        chosen = _choose(targets, probabilities, groups=groups, max_error=0.1)
        broken += chosen.threshold is not None
    assert broken / SIMULATIONS <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / SIMULATIONS)


def test_the_promised_error_holds_where_the_probability_tells() -> None:
    """Choosing among thresholds would be luck that is not paid for."""
    generator = np.random.default_rng(1)
    everything = np.sort(generator.beta(9, 1, 200_000).clip(0.5))
    errors_above = np.cumsum((1 - everything)[::-1])[::-1] / np.arange(len(everything), 0, -1)
    broken = reached = 0
    for _ in range(SIMULATIONS):
        confidences = generator.choice(everything, 200)
        chosen = _choose(*_answers(confidences, generator.random(200) < confidences))
        if chosen.threshold is not None:
            reached += 1
            place = min(np.searchsorted(everything, chosen.threshold), len(everything) - 1)
            broken += errors_above[place] > chosen.max_error
    assert reached > SIMULATIONS / 2
    assert broken / SIMULATIONS <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / SIMULATIONS)


def test_all_answers_are_sure_where_none_is_wrong() -> None:
    """A head that never errs would say unsure, or with another bound than the textbook's."""
    targets, probabilities = _answers(np.linspace(0.6, 1, 80), np.ones(80, dtype=np.bool_))
    chosen = _choose(targets, probabilities)
    assert (chosen.threshold, chosen.error, chosen.unsure) == (0.0, 0.0, 0.0)
    assert chosen.error_bound == pytest.approx(beta.ppf(0.975, 1, 80))
    new = np.array([[0.5, 0.5], [0.99, 0.01]])
    assert list(chosen.is_sure(new, np.array([False, True]))) == [True, False]


def test_the_doubtful_answers_become_unsure() -> None:
    """Wrong answers with low probabilities would be called sure."""
    confidences = np.linspace(0.5, 1, 200)
    targets, probabilities = _answers(confidences, confidences > 0.55)
    chosen = _choose(targets, probabilities)
    assert chosen.threshold is not None
    assert chosen.unsure == pytest.approx(0.1, abs=0.01)  # a tenth is wrong: 90% are tried
    assert chosen.error == pytest.approx(0, abs=0.01)
    sure = chosen.is_sure(probabilities, np.zeros(200, dtype=np.bool_))
    assert list(sure) == list(confidences >= chosen.threshold)


def test_what_cannot_be_promised_is_said() -> None:
    """Thirty images would promise an error of a hundredth, or not tell what they can promise."""
    targets, probabilities = _answers(np.linspace(0.6, 1, 30), np.ones(30, dtype=np.bool_))
    chosen = _choose(targets, probabilities, max_error=0.01)
    assert chosen.threshold is None
    assert not chosen.is_sure(probabilities, np.zeros(30, dtype=np.bool_)).any()
    possible = _choose(targets, probabilities, max_error=chosen.error_bound + 1e-9)
    assert possible.threshold is not None
    too_little = _choose(targets, probabilities, max_error=chosen.error_bound - 1e-9)
    assert too_little.threshold is None


def test_copies_count_once() -> None:
    """Near-identical pictures would prove what different ones must."""
    targets, probabilities = _answers(np.linspace(0.6, 1, 40), np.arange(40) > 1)
    once = _choose(targets, probabilities)
    copied = _choose(
        targets.repeat(5), probabilities.repeat(5, axis=0), groups=np.arange(40).repeat(5)
    )
    assert copied == once
    assert once.num_groups == 40


def test_barred_answers_are_never_sure() -> None:
    """Images far from everything seen would count as sure in the figures, and not be."""
    targets, probabilities = _answers(np.linspace(0.6, 1, 80), np.ones(80, dtype=np.bool_))
    barred = np.arange(80) < 8
    assert _choose(targets, probabilities, barred=barred).unsure == pytest.approx(0.1)


@pytest.mark.parametrize("max_error", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_promises_are_refused(max_error: float) -> None:
    """5 instead of 0.05 would make every answer sure."""
    targets, probabilities = _answers(np.full(20, 0.9), np.ones(20, dtype=np.bool_))
    with pytest.raises(UsageError, match=r"between 0 and 1.*Received: "):
        _choose(targets, probabilities, max_error=max_error)
