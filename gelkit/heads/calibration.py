"""Calibration: whether predicted probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.metrics import Probabilities, Targets

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

BINS = 10
"""Bins of the expected calibration error, of equally many images each."""

_DRAWS = 1000

_SMALLEST = 1e-6
"""Probabilities are raised to this before their logarithm: a softmax in float32 may return 0."""

_MAX_STEPS = 50
_CONVERGED = 1e-8
_SLACK = 1e-9  # of a sum of logarithms in float64
_SINGULAR = 1e12


@dataclass(frozen=True)
class Calibration:
    """How predicted probabilities compare with what was seen; of several repeats, their means."""

    slope: float
    """1 if calibrated; below 1, predictions are too extreme, above 1 too timid.

    NaN where no finite slope fits best: a repeat whose classes the probabilities separate wholly
    (or that has the same ones for all images), or a class without images.
    """
    intercept: float
    """0 if calibrated on the whole.

    Two classes: in log odds, positive if the second is more frequent than predicted. More classes:
    the difference between the most under- and the most overpredicted one, never negative. NaN if a
    class has no images.
    """
    ece: float
    """Expected calibration error of the predicted class's probability: 0 to 1, biased upwards."""
    ece_if_calibrated: float
    """The 95% quantile of what ``ece`` would be by chance if the probabilities were right."""


def calibration(
    targets: Targets, probabilities: Probabilities, groups: Groups, *, seed: int
) -> Calibration:
    """Measure the calibration of each repeat, then take the mean over repeats.

    Slope b and intercepts a are those of multinomial logistic recalibration, the probabilities
    softmax(b log p + a); for two classes this is the regression of the outcome on logit p (Cox
    1958, Biometrika 45:562). The slope is fitted together with free intercepts, the intercepts with
    a slope of 1 (Van Calster et al. 2019, doi:10.1186/s12916-019-1466-7; for more classes Van
    Hoorde et al. 2014, doi:10.1002/sim.6114).

    By chance means: whether an image was predicted right is drawn from the probability of its
    predicted class, once for all repeats and for all images of a group, which share their label.

    :param targets: class numbers, (images,).
    :param probabilities: (repeats x images x classes).
    :param groups: (images,), numbered from 0.
    :param seed: of the draws for ``ece_if_calibrated``.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    bins = _Bins(probabilities.max(axis=2).astype(np.float64))
    right = probabilities.argmax(axis=2) == targets
    return Calibration(
        slope=float(np.mean([_slope(targets, repeat) for repeat in logs])),
        intercept=float(np.mean([_intercept(targets, repeat) for repeat in logs])),
        ece=float(bins.error(right)),
        ece_if_calibrated=_error_by_chance(bins, groups, seed),
    )


def _slope(targets: Targets, logs: Floats) -> float:
    design = np.concatenate([logs[..., np.newaxis], _intercept_columns(logs)], axis=2)
    fitted = _fit(targets, np.zeros_like(logs), design)
    return float("nan") if fitted is None else float(fitted[0])


def _intercept(targets: Targets, logs: Floats) -> float:
    fitted = _fit(targets, logs, _intercept_columns(logs))
    if fitted is None:
        return float("nan")
    intercepts = np.array([0.0, *fitted])
    return float(fitted[0] if len(fitted) == 1 else np.ptp(intercepts))


def _intercept_columns(logs: Floats) -> Floats:
    """Return a column for each class but the first, (images x classes x classes - 1)."""
    classes = logs.shape[1]
    return np.broadcast_to(np.eye(classes)[:, 1:], (*logs.shape, classes - 1))


def _fit(targets: Targets, offset: Floats, design: Floats) -> Floats | None:
    """Fit a multinomial logistic regression by Newton's method.

    :param offset: (images x classes), added to the linear predictors.
    :param design: (images x classes x coefficients).
    :returns: the coefficients, or None if the likelihood has no single finite maximum.
    """
    coefficients = np.zeros(design.shape[2])
    for _ in range(_MAX_STEPS):
        step = _newton_step(targets, offset + design @ coefficients, design)
        if step is None:
            return None
        reached = _log_likelihood(targets, offset + design @ coefficients)
        # far from the maximum, a whole step may overshoot it
        while _log_likelihood(targets, offset + design @ (coefficients + step)) < reached - _SLACK:
            step = step / 2
        coefficients = coefficients + step
        if np.abs(step).max() < _CONVERGED:
            return coefficients
    return None


def _newton_step(targets: Targets, predictors: Floats, design: Floats) -> Floats | None:
    expected = _softmax(predictors)
    seen = np.eye(predictors.shape[1])[targets]
    means = np.einsum("ik,ikp->ip", expected, design)
    gradient = np.einsum("ik,ikp->p", seen - expected, design)
    weighted = expected[..., np.newaxis] * design
    information = np.einsum("ikp,ikq->pq", weighted, design) - means.T @ means
    if np.linalg.cond(information) > _SINGULAR:
        return None
    return np.asarray(np.linalg.solve(information, gradient), dtype=np.float64)


def _softmax(predictors: Floats) -> Floats:
    powers = np.exp(predictors - predictors.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def _log_likelihood(targets: Targets, predictors: Floats) -> float:
    chosen = predictors[np.arange(len(targets)), targets]
    return float((chosen - np.logaddexp.reduce(predictors, axis=1)).sum())


class _Bins:
    """Bins of equally many images each by confidence, in each repeat; equal ones share a bin.

    :param confidences: the predicted class's probability, (repeats x images).
    """

    def __init__(self, confidences: Floats) -> None:
        repeats, images = confidences.shape
        ranks = np.stack([np.searchsorted(np.sort(repeat), repeat) for repeat in confidences])
        first = np.arange(repeats)[:, np.newaxis] * BINS
        self.confidences = confidences
        self._numbers = ranks * BINS // images + first

    def error(self, right: npt.NDArray[np.bool_]) -> float:
        """Return the expected calibration error, the mean of the repeats' (Naeini et al. 2015).

        :param right: whether the predicted class is the true one, (repeats x images).
        """
        surplus = np.bincount(self._numbers.ravel(), weights=(right - self.confidences).ravel())
        return float(np.abs(surplus).sum() / right.size)


def _error_by_chance(bins: _Bins, groups: Groups, seed: int) -> float:
    """Return the 95% quantile of the error if every image is right as often as it is confident."""
    draw = np.random.default_rng(seed).random
    count = int(groups.max()) + 1
    errors = [bins.error(draw(count)[groups] < bins.confidences) for _ in range(_DRAWS)]
    return float(np.quantile(errors, 0.95))
