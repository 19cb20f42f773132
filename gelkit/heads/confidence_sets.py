"""Confidence sets: the configurations that the data cannot tell from the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.resampling import (
    REPLICATES,
    Floats,
    Integers,
    group_classes,
    replicate_errors,
)

SIZE = 0.05
"""The chance that the best is left out of the set."""

_SAME_LOSS = 1e-4
"""Devices that differ by rounding alone (1e-5 of an embedding) give the same predictions."""
_ZERO = 1e-9


@dataclass(frozen=True)
class ConfidenceSet:
    """The 95% model confidence set: it holds the truly best with that confidence."""

    p_values: tuple[float, ...]
    """Of each configuration: the smallest size at which the set leaves it out; 1 of the best."""
    eliminated: tuple[int, ...]
    """Positions of the distinct configurations from the first left out to the best; configurations
    with the same losses are named by their first."""

    @property
    def members(self) -> tuple[int, ...]:
        """Positions of the configurations that are in the set, the best among them."""
        return tuple(i for i, p_value in enumerate(self.p_values) if p_value > SIZE)


def model_confidence_set(
    losses: npt.NDArray[np.floating],
    targets: Integers,
    groups: Integers,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> ConfidenceSet:
    """Return the 95% model confidence set (Hansen, Lunde, Nason 2011, doi:10.3982/ECTA5771).

    The statistic is T_R, the largest of all pairs' standardised differences. As long as it is
    larger than chance explains, the configuration that is worst by it goes. Whole groups are
    resampled within their class, and one repeat for each replicate; the observed statistic is taken
    for Student's t, which few groups make larger than the replicates show. Configurations with the
    same losses enter once. A pair whose difference never varies is tied if that difference is zero,
    and infinitely far apart otherwise.

    :param losses: (configurations x repeats x images), 0 to 1: of the out-of-fold predictions, 1
        for a wrong one, or any other loss of single images.
    :param targets: class numbers, (images,).
    :param groups: (images,); a group has one class.
    :raises ValueError: a group with two targets, or no class with 2 groups.
    """
    twins = first_twins(losses)
    distinct = np.unique(twins)
    errors = replicate_errors(losses[distinct], targets, groups, seed=seed, replicates=replicates)
    means = losses[distinct].mean(axis=(1, 2), dtype=np.float64)
    spreads = pair_spreads(errors)
    distances = _standardised(means[:, np.newaxis] - means, spreads)
    order = _elimination_order(distances)
    observed = as_normal(_largest_left(order, distances), group_classes(targets, groups))
    by_chance = [*largest_distances(order[::-1], errors, spreads)][::-1]
    steps = [_p_value(*step) for step in zip(observed, by_chance, strict=True)]
    p_values = dict(zip(order, np.maximum.accumulate([*steps, 1.0]), strict=True))
    return ConfidenceSet(
        p_values=tuple(float(p_values[int(i)]) for i in np.searchsorted(distinct, twins)),
        eliminated=tuple(int(distinct[i]) for i in order),
    )


def first_twins(losses: npt.NDArray[np.floating]) -> Integers:
    """Return the first configuration with the same losses as each, itself if it has no twin.

    :param losses: (configurations x repeats x images).
    """
    firsts: list[int] = []
    twins = np.empty(len(losses), dtype=np.int64)
    for i, its in enumerate(losses):
        twins[i] = next((j for j in firsts if np.abs(losses[j] - its).max() < _SAME_LOSS), i)
        if twins[i] == i:
            firsts.append(i)
    return twins


def pair_spreads(errors: Floats) -> Floats:
    """Return the standard deviation of each pair's difference, (configurations x configurations).

    :param errors: (replicates x configurations).
    """
    squares = [((errors[:, [i]] - errors) ** 2).mean(axis=0) for i in range(errors.shape[1])]
    return np.sqrt(squares)


def largest_distances(order: Integers, errors: Floats, spreads: Floats) -> Iterator[Floats]:
    """Yield T_R of each replicate, (replicates,), for more and more configurations.

    :param order: the configurations as they join; the first set has two.
    :param spreads: of :func:`pair_spreads`.
    """
    largest = np.zeros(len(errors))
    for number in range(1, len(order)):
        joining, inside = order[number], order[:number]
        differences = errors[:, [joining]] - errors[:, inside]
        distances = np.abs(_standardised(differences, spreads[joining, inside]))
        largest = np.maximum(largest, distances.max(axis=1))
        yield largest


def as_normal(distances: Floats, classes: Integers) -> Floats:
    """Return what is as improbable in a normal distribution as distances are in Student's t.

    The replicates' spread is that of a known variance; the data's is estimated from the groups, and
    too small by their degrees of freedom: groups less classes.

    :param distances: not negative, in units of the replicates' spread.
    :param classes: the class of each group.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    degrees = len(classes) - len(np.unique(classes))
    shrunk = distances * np.sqrt(degrees / len(classes))
    return np.asarray(norm.isf(student.sf(shrunk, degrees)), dtype=np.float64)


def _standardised(differences: Floats, spreads: Floats) -> Floats:
    """Divide by the spread; by none, what is not zero becomes infinite."""
    certain = spreads < _ZERO
    ratios = differences / np.where(certain, 1.0, spreads)
    infinite = np.where(np.abs(differences) < _ZERO, 0.0, np.copysign(np.inf, differences))
    return np.where(certain, infinite, ratios)


def _elimination_order(distances: Floats) -> Integers:
    """Return the configurations in the order in which they go, the best last."""
    left = np.arange(len(distances))
    order = []
    while len(left):
        worst = distances[np.ix_(left, left)].max(axis=1).argmax()
        order.append(left[worst])
        left = np.delete(left, worst)
    return np.array(order)


def _largest_left(order: Integers, distances: Floats) -> Floats:
    """Return the observed T_R before each elimination."""
    left = [order[step:] for step in range(len(order) - 1)]
    return np.array([distances[np.ix_(those, those)].max() for those in left])


def _p_value(observed: float, by_chance: Floats) -> float:
    """Return the share at least as large, the observed one counted among them."""
    as_large = int((by_chance >= observed - _ZERO).sum())
    return (1 + as_large) / (1 + len(by_chance))
