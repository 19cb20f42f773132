"""Power: the smallest lead of one configuration that data like these would usually show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.confidence_sets import (
    SIZE,
    as_normal,
    first_twins,
    largest_distances,
    pair_spreads,
)
from gelkit.heads.resampling import (
    REPLICATES,
    Floats,
    Integers,
    group_classes,
    group_sums,
    replicate_errors,
)

POWER = 0.8
_HALVINGS = 9  # 1 / 2**9: a fifth of a point
_ZERO = 1e-9


def detectable_difference(
    losses: npt.NDArray[np.floating],
    targets: Integers,
    groups: Integers,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> float | None:
    """Return the lead that the model confidence set shows with 80% power, as a fraction.

    The simulated truth: the best stays as it is, and all others lag behind it by that much. Their
    errors, with the correlations between them, are the observed ones, resampled as whole groups
    within their class. Who lags less is made worse: a right prediction becomes wrong in a share of
    the groups, drawn at random for each. Power is the share of the others that the set leaves out.

    :param losses: (configurations x repeats x images), 0 to 1, of the out-of-fold predictions.
    :returns: from 0 to 1, 1 also where no lead would be seen; None if no two configurations differ.
    :raises ValueError: a group with two targets, or no class with 2 groups.
    """
    distinct = np.unique(first_twins(losses))
    if len(distinct) < 2:
        return None
    means = losses[distinct].mean(axis=(1, 2), dtype=np.float64)
    best_first = losses[distinct[np.argsort(means, kind="stable")]]
    observed = _observe(best_first, targets, groups, seed, replicates)
    missed, seen = 0.0, 1.0
    for _ in range(_HALVINGS):
        lead = (missed + seen) / 2
        if _power(lead, observed) < POWER:
            missed = lead
        else:
            seen = lead
    return seen


@dataclass(frozen=True)
class _Observed:
    """What simulated data sets are made from; the best configuration comes first."""

    means: Floats
    """Mean losses, (configurations,)."""
    errors: Floats
    """Of the means, (replicates x configurations)."""
    flips: Floats
    """Errors that come from turning right predictions of whole groups wrong, to be multiplied by
    the standard deviation of a flip; (replicates x configurations)."""
    classes: Integers
    """Of each group."""


def _observe(
    losses: npt.NDArray[np.floating],
    targets: Integers,
    groups: Integers,
    seed: int,
    replicates: int,
) -> _Observed:
    right = group_sums(1 - losses, groups)
    flip = np.sqrt((right**2).sum(axis=2).mean(axis=1)) / len(groups)
    generator = np.random.default_rng(seed)
    return _Observed(
        means=losses.mean(axis=(1, 2), dtype=np.float64),
        errors=replicate_errors(losses, targets, groups, seed=seed, replicates=replicates),
        flips=flip * generator.standard_normal((replicates, len(losses))),
        classes=group_classes(targets, groups),
    )


def _power(lead: float, observed: _Observed) -> float:
    """Return the share of the others that are left out when all lag behind by ``lead``."""
    means = observed.means
    missing = np.maximum(means[0] + lead - means, 0)
    missing[0] = 0
    flipped = np.minimum(missing / np.maximum(1 - means, _ZERO), 1)
    errors = (1 - flipped) * observed.errors + np.sqrt(flipped * (1 - flipped)) * observed.flips
    spreads = pair_spreads(errors)
    by_chance = [*largest_distances(np.arange(len(means)), errors, spreads)][::-1]
    critical = [np.quantile(largest, 1 - SIZE) for largest in by_chance]
    behind = (lead + errors[:, 1:] - errors[:, [0]]) / np.maximum(spreads[0, 1:], _ZERO)
    worst_first = -np.sort(-np.maximum(behind, 0), axis=1)
    distances = as_normal(worst_first, observed.classes)
    return float(np.logical_and.accumulate(distances > critical, axis=1).mean())
