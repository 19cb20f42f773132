"""Tuning: a learning rate and a number of epochs for each fit, chosen within its training images.

A fit's training images are split once more, by group. Heads trained on one part are scored on the
other; the fit itself then trains on both with what scored best. Its held-out images take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.heads.fits import Fit, Fitted, Probabilities, Task, loss_weights
from gelkit.heads.splits import make_splits

INNER_FOLDS = 5
"""One of so many parts of the training images scores; of fewer where a class has fewer groups."""

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tuning:
    """What is tried for each fit."""

    learning_rates: tuple[float, ...] = ()
    """Empty: the fit's own alone."""
    patience: int = 0
    """Epochs without a smaller loss after which training stops; 0: it never does."""


def tune(
    task: Task,
    fits: Sequence[Fit],
    groups: npt.NDArray[np.int64],
    tuning: Tuning,
    fit_all: Callable[[Task, Sequence[Fit]], Sequence[Fitted]],
) -> list[Fit]:
    """Return the fits with the learning rate and the epochs that scored best within each.

    The score is the cross-entropy on the inner split's images; with class weights, of classes that
    count alike. Of equal ones the earlier rate wins; a training that diverged never does.

    :param groups: of all images, (images,); the inner splits keep them together.
    :param fit_all: trains heads and returns their outcomes in the same order.
    :raises UsageError: a class has a single group among a fit's training images.
    """
    trials = [_trials(task, fit, groups, tuning) for fit in fits]
    fitted = iter(fit_all(task, [trial for its in trials for trial in its]))
    curves = [[_losses(task, t, next(fitted).probabilities) for t in its] for its in trials]
    return [
        _best(fit, its, its_curves, tuning.patience)
        for fit, its, its_curves in zip(fits, trials, curves, strict=True)
    ]


def inner_split(
    targets: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.bool_]:
    """Return which of a fit's training images score its trials, (images,); the others train.

    :raises UsageError: a class has a single group.
    """
    classes = np.unique(targets)
    fewest = min(len(np.unique(groups[targets == number])) for number in classes)
    if fewest < 2:
        raise UsageError(
            "Expected at least 2 distinct images or groups of each class among the training images "
            "of every fold, for early stopping or a choice of learning rates. Received: 1. Add "
            "images, use more folds, or set the learning rate and the epochs yourself."
        )
    names = [str(number) for number in range(int(classes.max()) + 1)]
    folds = min(INNER_FOLDS, fewest)
    scoring: npt.NDArray[np.bool_] = (
        make_splits(targets, groups, names, folds=folds, repeats=1, seed=seed)[0] == 0
    )
    return scoring


def best_epoch(losses: Losses, patience: int) -> int:
    """Return the epoch, from 1, with the least loss until ``patience`` epochs brought none less."""
    best = 0
    for epoch, loss in enumerate(losses):
        if epoch - best > patience:
            break
        if loss < losses[best]:
            best = epoch
    return best + 1


def _trials(task: Task, fit: Fit, groups: npt.NDArray[np.int64], tuning: Tuning) -> list[Fit]:
    scoring = inner_split(task.targets[fit.train], groups[fit.train], fit.seed)
    trial = replace(
        fit,
        train=fit.train[~scoring],
        held_out=fit.train[scoring],
        followed=True,
        kept=False,
    )
    rates = tuning.learning_rates or (fit.learning_rate,)
    return [replace(trial, learning_rate=rate) for rate in rates]


def _losses(task: Task, trial: Fit, probabilities: Probabilities) -> Losses:
    """Return the cross-entropy after each epoch; infinite where the training diverged."""
    targets = task.targets[trial.held_out]
    weights = loss_weights(task, replace(trial, train=trial.held_out))
    picked = probabilities[:, np.arange(len(targets)), targets].astype(np.float64)
    losses: Losses = -(weights * np.log(np.maximum(picked, 1e-7))).mean(axis=1)
    return np.where(np.isnan(losses), np.inf, losses)


def _best(fit: Fit, trials: Sequence[Fit], curves: Sequence[Losses], patience: int) -> Fit:
    epochs = [best_epoch(curve, patience) if patience else fit.epochs for curve in curves]
    scores = [curve[epoch - 1] for curve, epoch in zip(curves, epochs, strict=True)]
    best = int(np.argmin(scores))
    return replace(fit, learning_rate=trials[best].learning_rate, epochs=epochs[best])
