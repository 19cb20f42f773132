"""Learning curves: how the accuracy of a simple model grows with the groups that it trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.contrasts import corrected_t_test, fold_scores, predicted_to_trained
from gelkit.heads.intervals import accuracy_interval
from gelkit.heads.metrics import Targets
from gelkit.heads.probes import Matrix, cross_validate
from gelkit.heads.splits import TRAINS_ALWAYS, Folds, derived_seed

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Of the groups of a training part; half of them and all are compared."""

MOST_TRAINING_IMAGES = 1500
"""Of more, a share trains: a regression on thousands of wide embeddings takes minutes."""

_REPEATED_IMAGES = 1000  # summed over repeats
_FEWEST_GROUPS = 2  # of each class: with one, luck decides
_ROUNDING = 1e-9


@dataclass(frozen=True)
class LearningCurve:
    """The cross-validated accuracy of logistic regressions that train on more and more groups."""

    groups: Floats
    """Groups that a regression trains on, the mean over fits, (points,)."""
    accuracy: Floats
    """(points,)"""
    low: Floats
    """95% intervals, as those of results.csv, (points,)."""
    high: Floats
    repeats: Floats
    """The accuracy of each repeat, which draws groups of its own, (points x repeats)."""
    rise: float
    """Accuracy at all groups minus that at half of them; NaN if half are too few."""
    p_value: float
    """Of the rise, by the corrected resampled t test, two-sided."""
    is_cut: bool
    """Whether not even the largest share is all training groups."""


def learning_curve(
    values: Matrix, targets: Targets, splits: Folds, groups: Groups, *, seed: int
) -> LearningCurve | None:
    """Cross-validate logistic regressions on shares of each training part, whole groups at a time.

    The regressions are those of :func:`gelkit.heads.probes.cross_validate`. Smaller shares lie
    within larger ones, each class gives the same share of its groups, and every image is predicted
    at every share, by the folds of the split. Many images are split fewer times.

    :param values: embeddings, (images x width).
    :param targets: class numbers, (images,).
    :param splits: the fold that predicts, (repeats x images).
    :param groups: (images,), numbered from 0 without gaps.
    :param seed: of which groups come first.
    :returns: None if only all groups are enough: there is no curve.
    """
    splits = splits[: max(1, _REPEATED_IMAGES // len(targets))]
    most = min(1.0, MOST_TRAINING_IMAGES / np.count_nonzero(splits[0] != 0))
    entering = _entering(targets, splits, groups, seed) / most
    fewest = _FEWEST_GROUPS * max(
        float(entering[..., targets == number].min(axis=-1).max()) for number in np.unique(targets)
    )
    shares = [share for share in SHARES if share >= fewest - _ROUNDING]
    if len(shares) < 2:
        return None
    trained = [entering <= share + _ROUNDING for share in shares]
    right = np.stack([_right(values, targets, splits, its) for its in trained])
    bounds = [accuracy_interval(its, groups) for its in right]
    rise, p_value = _rise(shares, right, splits)
    return LearningCurve(
        groups=np.array([_mean_groups(its, groups) for its in trained]),
        accuracy=right.mean(axis=(1, 2)),
        low=np.array([bound.low for bound in bounds]),
        high=np.array([bound.high for bound in bounds]),
        repeats=right.mean(axis=2),
        rise=rise,
        p_value=p_value,
        is_cut=most < 1,
    )


def _entering(targets: Targets, splits: Folds, groups: Groups, seed: int) -> Floats:
    """Return the share at which each image begins to train, (repeats x folds x images).

    Infinite for those that the fold predicts.
    """
    shape = (len(splits), int(splits.max()) + 1, len(targets))
    entering = np.full(shape, np.inf)
    for repeat, fold in np.ndindex(shape[:2]):
        generator = np.random.default_rng(derived_seed(seed, repeat, fold))
        trains = splits[repeat] != fold
        for number in np.unique(targets):
            mine = np.flatnonzero(trains & (targets == number))
            names, positions = np.unique(groups[mine], return_inverse=True)
            ranks = generator.permutation(len(names))
            entering[repeat, fold, mine] = (ranks[positions] + 1) / len(names)
    return entering


def _right(
    values: Matrix, targets: Targets, splits: Folds, trained: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return whether each image is predicted right, (repeats x images).

    :param trained: (repeats x folds x images).
    """
    right = np.zeros(splits.shape, dtype=bool)
    for repeat, fold in np.ndindex(trained.shape[:2]):
        held_out = splits[repeat] == fold
        kept = held_out | trained[repeat, fold]
        split = np.where(held_out, 0, TRAINS_ALWAYS)[np.newaxis, kept]
        probabilities = cross_validate(values[kept], targets[kept], split)[0, held_out[kept]]
        right[repeat, held_out] = probabilities.argmax(axis=1) == targets[held_out]
    return right


def _mean_groups(trained: npt.NDArray[np.bool_], groups: Groups) -> float:
    fits = trained.reshape(-1, len(groups))
    return float(np.mean([len(np.unique(groups[fit])) for fit in fits]))


def _rise(shares: list[float], right: npt.NDArray[np.bool_], splits: Folds) -> tuple[float, float]:
    if 0.5 not in shares:
        return float("nan"), float("nan")
    scores = fold_scores(right[[-1, shares.index(0.5)]].astype(np.float64), splits)
    differences = scores[0] - scores[1]
    _, p_value = corrected_t_test(differences, predicted_to_trained(splits))
    return float(differences.mean()), p_value
