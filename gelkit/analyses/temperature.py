"""Temperature: make a head's probabilities mean what they say, where that is shown to help."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.metrics import Probabilities, Targets
from gelkit.heads.resampling import group_sums
from gelkit.heads.splits import make_splits

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

FOLDS = 5
"""The temperature is tried on one of so many parts; of fewer where a class has fewer groups."""

SIGNIFICANT = 0.05
"""A temperature is applied if its gain has at most this p-value."""

DRAWS = 2000

RANGE = (0.05, 20.0)
"""Between these the temperature is sought."""

SMALLEST = 1e-6
"""Probabilities are raised to this before their logarithm: a softmax in float32 may return 0."""


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it does on groups that had no say in it.

    Losses are means over images and repeats.
    """

    temperature: float
    """Above 1 it makes probabilities more timid, below 1 bolder; the classes keep their order."""
    applied: bool
    """Whether it is shown to help; otherwise probabilities are left alone."""
    log_loss: float
    """Of the probabilities as they are."""
    scaled_log_loss: float
    brier: float
    scaled_brier: float
    p_value: float
    """How often the gain in log loss would be as large if the head's own probabilities held."""

    def apply(self, probabilities: Probabilities) -> Floats:
        """Return calibrated probabilities (... x classes), or the same if it is not to help."""
        exact = probabilities.astype(np.float64)
        return scale(exact, self.temperature) if self.applied else exact


def scale(probabilities: Probabilities, temperature: float) -> Floats:
    """Return softmax(log p / temperature), (... x classes), in which classes keep their order.

    Guo et al. 2017, arXiv:1706.04599; of the logits only differences matter, so log p will do.
    """
    powers = _logarithms(probabilities) / temperature
    powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def fit_temperature(targets: Targets, probabilities: Probabilities, groups: Groups) -> float:
    """Return the temperature that minimises the cross-entropy with softened targets.

    Softened as by Platt (1999, Probabilistic outputs for support vector machines): with N groups of
    a class and K classes, its images' target is (N + 1) / (N + K), and 1 / (N + K) for each other
    class. Without, predictions that are all right would be made certain.

    :param targets: class numbers, (images,).
    :param probabilities: out of fold, (repeats x images x classes).
    :param groups: (images,); images of one group have one class.
    """
    from scipy.optimize import brentq

    logarithms = _logarithms(probabilities)
    goal = (_softened(targets, groups, probabilities.shape[-1]) * logarithms).sum(axis=-1).mean()

    def slope(log_temperature: float) -> float:
        """Return the derivative of the cross-entropy by the inverse temperature: it only rises."""
        expected = scale(probabilities, float(np.exp(log_temperature)))
        return float((expected * logarithms).sum(axis=-1).mean() - goal)

    low, high = np.log(RANGE)
    if slope(low) <= 0 or slope(high) >= 0:
        return RANGE[0] if slope(low) <= 0 else RANGE[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-6)))


def assess_temperature(
    targets: Targets, probabilities: Probabilities, groups: Groups, *, seed: int = 0
) -> Temperature:
    """Fit a temperature, and find out on held-out groups whether it helps.

    Groups are split into folds; each fold's images are scaled by the temperature that fits the
    others. It is applied if the log loss is then smaller by more than chance would have it if the
    head's own probabilities held: labels are drawn from these, one for each group, and at most 5%
    of the draws may gain as much. Flipping the signs of groups' gains would not do: a good head
    errs on so few that nothing could be shown.

    :param targets: class numbers, (images,).
    :param probabilities: out of fold, (repeats x images x classes).
    :param groups: (images,), numbered from 0; images of one group have one class.
    :param seed: of the folds and the draws.
    """
    scaled = _scaled_by_others(targets, probabilities, groups, seed)
    (log_loss, brier), (scaled_log_loss, scaled_brier) = (
        _losses(targets, its) for its in (probabilities, scaled)
    )
    gain = len(targets) * (log_loss - scaled_log_loss)
    p_value = _chance_of(gain, probabilities, scaled, groups, seed)
    return Temperature(
        temperature=fit_temperature(targets, probabilities, groups),
        applied=p_value <= SIGNIFICANT and scaled_log_loss < log_loss,
        log_loss=log_loss,
        scaled_log_loss=scaled_log_loss,
        brier=brier,
        scaled_brier=scaled_brier,
        p_value=p_value,
    )


def _chance_of(
    gain: float, probabilities: Probabilities, scaled: Floats, groups: Groups, seed: int
) -> float:
    """Return how often so large a gain in log loss comes by chance if the probabilities hold.

    All images of a group get one label, drawn by the mean of their probabilities.
    """
    gains = (_logarithms(scaled) - _logarithms(probabilities)).mean(axis=0)
    shares = group_sums(probabilities.mean(axis=0).T, groups)
    ends = np.cumsum(shares / shares.sum(axis=0), axis=0)
    ends[-1] = 1
    draws = np.random.default_rng(seed).random((DRAWS, ends.shape[1]))
    drawn, start = np.zeros(DRAWS), np.zeros(ends.shape[1])
    for end, its_gains in zip(ends, group_sums(gains.T, groups), strict=True):
        drawn += ((draws >= start) & (draws < end)) @ its_gains
        start = end
    return float((1 + (drawn >= gain - 1e-9).sum()) / (1 + DRAWS))


def _scaled_by_others(
    targets: Targets, probabilities: Probabilities, groups: Groups, seed: int
) -> Floats:
    """Scale each fold's images by the other folds' temperature; none if there are no two folds."""
    classes = np.unique(targets)
    fewest = min(len(np.unique(groups[targets == number])) for number in classes)
    names = [str(number) for number in range(int(classes.max()) + 1)]
    if fewest < 2:
        return probabilities.astype(np.float64)
    folds = make_splits(targets, groups, names, folds=min(FOLDS, fewest), repeats=1, seed=seed)[0]
    scaled = np.empty(probabilities.shape)
    for fold in np.unique(folds):
        others, own = folds != fold, folds == fold
        temperature = fit_temperature(targets[others], probabilities[:, others], groups[others])
        scaled[:, own] = scale(probabilities[:, own], temperature)
    return scaled


def _losses(targets: Targets, probabilities: Probabilities) -> tuple[float, float]:
    """Return the log loss and the Brier score, means over images and repeats."""
    logarithms = _logarithms(probabilities)[:, np.arange(len(targets)), targets]
    seen = np.eye(probabilities.shape[-1])[targets]
    squares = ((probabilities.astype(np.float64) - seen) ** 2).sum(axis=-1)
    return float(-logarithms.mean()), float(squares.mean())


def _softened(targets: Targets, groups: Groups, num_classes: int) -> Floats:
    """Return the targets of the fit, (images x classes)."""
    softened = np.empty((len(targets), num_classes))
    for number in np.unique(targets):
        its = targets == number
        total = len(np.unique(groups[its])) + num_classes
        softened[its] = 1 / total
        softened[its, number] = 1 - (num_classes - 1) / total
    return softened


def _logarithms(probabilities: Probabilities) -> Floats:
    return np.asarray(np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)))
