"""Selection: the answer to which configuration is best, and what may be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.confidence_sets import model_confidence_set
from gelkit.heads.intervals import Interval, accuracy_interval
from gelkit.heads.power import detectable_difference
from gelkit.heads.resampling import (
    REPLICATES,
    Floats,
    Integers,
    draw_group_weights,
    group_classes,
    group_sizes,
    group_sums,
)


@dataclass(frozen=True, order=True)
class Cost:
    """What a configuration costs to use; the smaller in this order is the cheaper.

    Times are left out: they differ from run to run, and the answer must not.
    """

    giga_operations: float
    """Of the backbone, for one image."""
    head_parameters: int
    model_id: int


@dataclass(frozen=True)
class Answer:
    """Which configuration is best, and how sure one can be. Scores are fractions: 1 - loss."""

    winner: int
    """The id of the one with the highest score; of equal ones, the first."""
    raw_score: float
    """The winner's own score: optimistic, as it was chosen for it."""
    corrected_score: float
    """What choosing the best in this way gives on other groups."""
    interval: Interval
    """Hull of the 95% intervals around the raw and the corrected score. The latter is Wilson's,
    with as many images as the winner's accuracy is worth: percentiles of the bootstrap cover as
    well, but are up to 1.4 times as wide."""
    tied: tuple[int, ...]
    """Ids that are not separable from the best, the winner among them."""
    cheapest: int
    """Id of the cheapest of the tied."""
    detectable_difference: float | None
    """A smaller lead would usually be missed; None if no configurations differ."""
    num_groups: int


def choose_best(
    losses: npt.NDArray[np.floating],
    targets: Integers,
    groups: Integers,
    *,
    costs: Sequence[Cost],
    seed: int = 0,
) -> Answer:
    """Answer which configuration is best.

    :param losses: (configurations x repeats x images), of the out-of-fold
        predictions: 1 for a wrong one, else 0.
    :param targets: class numbers, (images,).
    :param groups: (images,), numbered from 0 without gaps; a group has one class.
    :param costs: of each configuration, with its id.
    :raises ValueError: a group with two targets, or no class with 2 groups.
    """
    scores = 1 - losses.mean(axis=(1, 2), dtype=np.float64)
    winner = int(scores.argmax())
    right = losses[winner] == 0
    corrected = corrected_score(losses, targets, groups, seed=seed)
    tied = [costs[i] for i in model_confidence_set(losses, targets, groups, seed=seed).members]
    return Answer(
        winner=costs[winner].model_id,
        raw_score=float(scores[winner]),
        corrected_score=corrected,
        interval=hull(
            accuracy_interval(right, groups), accuracy_interval(right, groups, around=corrected)
        ),
        tied=tuple(cost.model_id for cost in tied),
        cheapest=min(tied).model_id,
        detectable_difference=detectable_difference(losses, targets, groups, seed=seed),
        num_groups=len(group_sizes(groups)),
    )


def corrected_score(
    losses: npt.NDArray[np.floating],
    targets: Integers,
    groups: Integers,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> float:
    """Return what the best configuration scores on groups that did not choose it (BBC-CV).

    In each bootstrap replicate of whole groups the best is chosen by its loss on the groups drawn,
    and scored, in one repeat, on those that were not. The score is the mean over the replicates.
    Where several are best in a replicate, the mean of their scores counts. (Tsamardinos, Greasidou,
    Borboudakis 2018, doi:10.1007/s10994-018-5714-4.)

    :param losses: (configurations x repeats x images), 0 to 1.
    :raises ValueError: a group with two targets, or no class with 2 groups.
    """
    num_repeats = losses.shape[1]
    sums = group_sums(losses, groups)
    sizes = group_sizes(groups)
    scores = []
    for numbers, weights in draw_group_weights(
        group_classes(targets, groups), seed=seed, replicates=replicates
    ):
        chosen = _best_in_bag(weights @ sums.mean(axis=1).T)
        for repeat in range(num_repeats):
            its = numbers % num_repeats == repeat
            scores.append(_out_of_bag(weights[its], chosen[its], sums[:, repeat], sizes))
    return float(np.concatenate(scores).mean())


def hull(*intervals: Interval) -> Interval:
    """Return the smallest interval that holds all of them."""
    return Interval(min(each.low for each in intervals), max(each.high for each in intervals))


def _best_in_bag(totals: Floats) -> Floats:
    """Return the share of each configuration in the choice, (replicates x configurations)."""
    best = np.isclose(totals, totals.min(axis=1, keepdims=True), rtol=0, atol=1e-9)
    shares: Floats = best / best.sum(axis=1, keepdims=True)
    return shares


def _out_of_bag(weights: Floats, chosen: Floats, sums: Floats, sizes: Floats) -> Floats:
    """Score what was chosen on the groups of weight zero; without any, the replicate is dropped."""
    out = (weights == 0).astype(np.float64)
    num_images = out @ sizes
    losses = (chosen * (out @ sums.T)).sum(axis=1)
    scored = num_images > 0
    scores: Floats = 1 - losses[scored] / num_images[scored]
    return scores
