"""Contrasts: differences that are fixed before the data are seen, and their tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from gelkit.heads.configurations import Configuration
from gelkit.heads.resampling import Floats, Integers

AXES = ("hardware", "backbone", "head", "optimizer")

_ZERO = 1e-9


@dataclass(frozen=True)
class Contrast:
    """A mean difference of matched pairs: first minus second."""

    name: str
    """Such as ``head: multi - single``."""
    pairs: tuple[tuple[int, int], ...]
    """Positions of the first and the second."""


@dataclass(frozen=True)
class AssessedContrast:
    """A difference and how well chance explains it."""

    name: str
    difference: float
    t: float
    p_value: float
    adjusted_p_value: float
    """By Holm's method, over all contrasts that were assessed together."""


def axis_contrasts(configurations: Sequence[Configuration]) -> tuple[Contrast, ...]:
    """Compare all pairs of values on each axis, matched on the other axes.

    What has no match takes no part, and an axis with one value gives no contrast.
    """
    places = {_coordinates(c): i for i, c in enumerate(configurations)}
    contrasts = []
    for axis, name in enumerate(AXES):
        for second, first in combinations(dict.fromkeys(place[axis] for place in places), 2):
            pairs = _matched(places, axis, first, second)
            if pairs:
                contrasts.append(Contrast(f"{name}: {first} - {second}", pairs))
    return tuple(contrasts)


def anchor_contrasts(
    configurations: Sequence[Configuration], anchors: Sequence[tuple[str, str]], name: str
) -> tuple[Contrast, ...]:
    """Compare each head with an anchor that was trained on the same embeddings.

    :param anchors: hardware and backbone of each anchor; its position is counted on from the
        configurations'.
    :param name: what the anchor is, such as ``logistic regression``.
    """
    places = {place: len(configurations) + i for i, place in enumerate(anchors)}
    contrasts = []
    for head in dict.fromkeys(c.head for c in configurations):
        pairs = tuple(
            (i, places[c.hardware, c.backbone])
            for i, c in enumerate(configurations)
            if c.head == head and (c.hardware, c.backbone) in places
        )
        if pairs:
            contrasts.append(Contrast(f"head: {head} - {name}", pairs))
    return tuple(contrasts)


def fold_scores(scores: npt.NDArray[np.floating], folds: Integers) -> Floats:
    """Return the mean score of each fold, (configurations x repeats x folds).

    :param scores: of single images, such as 1 for right and 0 for wrong,
        (configurations x repeats x images).
    :param folds: the fold that predicts the image, (repeats x images), numbered from 0.
    """
    held_out = _held_out(folds)
    sums = np.einsum("crn,rnf->crf", scores, held_out)
    means: Floats = sums / held_out.sum(axis=1)
    return means


def predicted_to_trained(folds: Integers) -> float:
    """Return predicted over training images of a fit, the mean over folds and repeats."""
    shares = _held_out(folds).mean(axis=1)
    return float((shares / (1 - shares)).mean())


def assess_contrasts(
    contrasts: Sequence[Contrast], scores: Floats, ratio: float
) -> tuple[AssessedContrast, ...]:
    """Assess contrasts by the corrected resampled t test, adjusted by Holm.

    :param scores: of each fold, (configurations x repeats x folds), anchors after configurations.
    :param ratio: of :func:`predicted_to_trained`.
    """
    assessed = []
    for contrast in contrasts:
        firsts, seconds = np.array(contrast.pairs).T
        differences = (scores[firsts] - scores[seconds]).mean(axis=0)
        t, p_value = corrected_t_test(differences, ratio)
        assessed.append(
            AssessedContrast(contrast.name, float(differences.mean()), t, p_value, p_value)
        )
    adjusted = holm([contrast.p_value for contrast in assessed])
    return tuple(
        replace(contrast, adjusted_p_value=p_value)
        for contrast, p_value in zip(assessed, adjusted, strict=True)
    )


def corrected_t_test(differences: Floats, ratio: float) -> tuple[float, float]:
    """Return t and the two-sided p of the corrected resampled t test.

    The variance of the mean of J differences is (1 / J + ratio) times theirs, as training sets
    overlap; t has J - 1 degrees of freedom (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366).
    Differences that never vary give a t of 0 if they are zero, infinite otherwise.

    :param differences: of each fold, of any shape, at least 2.
    :param ratio: predicted over training images.
    """
    from scipy.stats import t as student

    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread < _ZERO:
        return (0.0, 1.0) if abs(mean) < _ZERO else (float(np.copysign(np.inf, mean)), 0.0)
    t = mean / (spread * np.sqrt(1 / differences.size + ratio))
    return float(t), float(2 * student.sf(abs(t), differences.size - 1))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values of tests made together (Holm 1979, https://www.jstor.org/stable/4615733)."""
    ordered = np.argsort(p_values, kind="stable")
    factors = np.arange(len(ordered), 0, -1)
    raised = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[ordered] * factors)
    adjusted = np.empty(len(ordered))
    adjusted[ordered] = np.minimum(raised, 1)
    return tuple(adjusted.tolist())


def _coordinates(configuration: Configuration) -> tuple[str, ...]:
    return tuple(getattr(configuration, axis) for axis in AXES)


def _matched(
    places: dict[tuple[str, ...], int], axis: int, first: str, second: str
) -> tuple[tuple[int, int], ...]:
    """Return positions that differ on one axis alone, of the first value and of the second."""
    partners = {
        place: (*place[:axis], second, *place[axis + 1 :])
        for place in places
        if place[axis] == first
    }
    return tuple(
        (places[place], places[partner]) for place, partner in partners.items() if partner in places
    )


def _held_out(folds: Integers) -> Floats:
    """Return 1 where a fold predicts an image, (repeats x images x folds)."""
    return np.asarray(folds[..., np.newaxis] == np.arange(folds.max() + 1), dtype=np.float64)
