"""Abstention: which answers may be called sure, so that few of them are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.heads.metrics import Probabilities, Targets

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.int64]

MAX_ERROR = 0.05
"""Of the sure answers, wrong at most. It takes 80 groups without a single error to show that, and
a tenth takes 39."""

CONFIDENCE = 0.95
"""How sure one can be that no more are wrong: over data sets like this one, in 19 of 20."""

CHAINS = ((0.9, 1.0), (0.5, 0.6, 0.7, 0.8))
"""Shares of answers to call sure that are tried in turn; a chain ends where one fails."""


@dataclass(frozen=True)
class Abstention:
    """From which probability on an answer is sure. Shares are of groups, cross-validated."""

    threshold: float | None
    """Of the predicted class's probability; None: no answer may be called sure."""
    max_error: float
    """What was asked for."""
    error: float
    """The share of the sure answers that are wrong; without a threshold, see ``error_bound``."""
    error_bound: float
    """Its upper confidence bound; without a threshold, the smallest ``max_error`` with one."""
    unsure: float
    """The share of answers that are not sure."""
    num_groups: int

    def is_sure(self, probabilities: Probabilities, barred: Flags) -> Flags:
        """Tell which answers are sure, (... images), of probabilities (... images x classes).

        :param barred: images that are sure in no case, (images,).
        """
        if self.threshold is None:
            return np.zeros(probabilities.shape[:-1], dtype=np.bool_)
        return np.asarray((probabilities.max(axis=-1) >= self.threshold) & ~barred)


@dataclass(frozen=True)
class _Trial:
    """What calling a share of the answers sure would mean."""

    threshold: float
    sure: float
    wrong: float
    bound: float


def choose_threshold(
    targets: Targets,
    probabilities: Probabilities,
    groups: Groups,
    barred: Flags,
    *,
    max_error: float = MAX_ERROR,
) -> Abstention:
    """Call as many answers sure as one can while few of them are wrong, with 95% confidence.

    This is selective classification with guaranteed risk (Geifman and El-Yaniv 2017,
    arXiv:1705.08500): a threshold is taken if the exact binomial (Clopper and Pearson 1934) bound
    of the error among the answers above it is small enough. Thresholds are quantiles of the
    probabilities, tried in two chains of fixed order that share the permitted 5% (fixed-sequence
    testing with several starts, Angelopoulos et al. 2021, arXiv:2110.01052). Each group counts as
    one, by the mean over its images and repeats: its images are as good as copies of each other.

    What is promised holds for images like those of the data set, classes as frequent as there, and
    for heads as they were cross-validated, which trained on fewer images than the final one.

    :param targets: class numbers, (images,).
    :param probabilities: out of fold, (repeats x images x classes).
    :param groups: (images,).
    :param barred: images whose answers are sure in no case, (images,).
    :raises UsageError: ``max_error`` is no share between 0 and 1.
    """
    if not 0 < max_error < 1:
        raise UsageError(
            f"Expected as the largest error a share between 0 and 1, such as 0.05. Received: "
            f"{max_error:g}."
        )
    trials = [
        [_try(share, targets, probabilities, groups, barred) for share in chain] for chain in CHAINS
    ]
    passed = [trial for chain in trials for trial in _passed(chain, max_error)]
    nearest = min((chain[0] for chain in trials), key=lambda trial: trial.bound)
    best = max(passed, key=lambda trial: trial.sure) if passed else nearest
    num_groups = len(np.unique(groups))
    return Abstention(
        threshold=best.threshold if passed else None,
        max_error=max_error,
        error=best.wrong / best.sure if best.sure else 0.0,
        error_bound=best.bound,
        unsure=1 - best.sure / num_groups,
        num_groups=num_groups,
    )


def _try(
    share: float, targets: Targets, probabilities: Probabilities, groups: Groups, barred: Flags
) -> _Trial:
    confidences = probabilities.max(axis=-1)
    weights = np.broadcast_to(_weights(groups), confidences.shape)
    threshold = 0.0 if share == 1 else _quantile(confidences.ravel(), weights.ravel(), 1 - share)
    sure = (confidences >= threshold) & ~barred
    wrong = sure & (probabilities.argmax(axis=-1) != targets)
    num_sure, num_wrong = (float((weights * its).sum() / len(weights)) for its in (sure, wrong))
    return _Trial(threshold, num_sure, num_wrong, _bound(num_wrong, num_sure))


def _passed(chain: list[_Trial], max_error: float) -> list[_Trial]:
    """Return the trials before the first that fails."""
    fails = [trial.bound > max_error for trial in chain]
    return chain[: fails.index(True)] if any(fails) else chain


def _bound(wrong: float, sure: float) -> float:
    """Return the upper bound of a share; mean counts over repeats need not be whole."""
    from scipy.special import betaincinv

    if sure <= wrong:
        return 1.0
    level = 1 - (1 - CONFIDENCE) / len(CHAINS)
    return float(betaincinv(wrong + 1, sure - wrong, level))


def _weights(groups: Groups) -> Floats:
    """Return the weight of each image, (images,): those of a group add up to 1."""
    _, positions, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / sizes[positions], dtype=np.float64)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    """Return the largest value below which at most a share of the weight lies."""
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order]
    return float(values[order[np.searchsorted(below, share * weights.sum(), side="right") - 1]])
