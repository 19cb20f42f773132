"""Sign flips: does another configuration differ from the reference on a held-out test set?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.contrasts import holm
from gelkit.heads.resampling import Floats, Integers, group_sums

DRAWS = 10_000
_ZERO = 1e-9
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class AssessedDifference:
    """How much larger a configuration's mean loss is than the reference's, and its test."""

    difference: float
    p_value: float
    """Two-sided."""
    adjusted_p_value: float
    """By Holm's method, over all configurations compared with the reference."""


def assess_differences(
    losses: npt.NDArray[np.floating],
    reference: npt.NDArray[np.floating],
    groups: Integers,
    *,
    seed: int = 0,
) -> tuple[AssessedDifference, ...]:
    """Compare configurations with a reference that was fixed before, by flipping groups' signs.

    If a configuration is no better or worse, the sign of each group's summed difference is chance.
    Where all patterns of signs are at most 10,000, all are tried, else 10,000 are drawn. Groups
    without a difference play no part.

    :param losses: of the others, (configurations x images).
    :param reference: its losses, (images,).
    :param groups: (images,).
    """
    differences = losses.astype(np.float64) - reference
    sums = group_sums(differences, groups)
    p_values = _p_values(sums, seed)
    return tuple(
        AssessedDifference(float(mean), p_value, adjusted)
        for mean, p_value, adjusted in zip(
            differences.mean(axis=1), p_values, holm(p_values), strict=True
        )
    )


def _p_values(sums: Floats, seed: int) -> list[float]:
    """Return the p-value of each configuration's differences, (configurations x groups)."""
    differing = np.abs(sums) > _ZERO
    many = differing.sum(axis=1) > np.log2(DRAWS)
    p_values = np.empty(len(sums))
    for i in np.flatnonzero(~many):
        totals = np.abs(_all_totals(sums[i, differing[i]]))
        p_values[i] = (totals >= totals[0] - _ZERO).mean()
    drawn = np.abs(_drawn_totals(sums[many], seed))
    as_large = (drawn >= np.abs(sums[many].sum(axis=1)) - _ZERO).sum(axis=0)
    p_values[many] = (1 + as_large) / (1 + DRAWS)
    return [float(p_value) for p_value in p_values]


def _all_totals(sums: Floats) -> Floats:
    """Return the total of each pattern of signs, (2 ** groups,), the observed one first."""
    totals = np.zeros(1)
    for group in sums:
        totals = np.concatenate([totals + group, totals - group])
    return totals


def _drawn_totals(sums: Floats, seed: int) -> Floats:
    """Return totals of patterns drawn at random, the same for all, (draws x configurations)."""
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // sums.shape[1])
    sizes = [min(step, DRAWS - start) for start in range(0, DRAWS, step)] if len(sums) else []
    totals = [
        (2.0 * generator.integers(2, size=(size, sums.shape[1]), dtype=np.int8) - 1) @ sums.T
        for size in sizes
    ]
    return np.concatenate(totals) if totals else np.empty((0, 0))
