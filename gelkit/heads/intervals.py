"""95% intervals of the metrics, for images that come in groups and predictions in repeats.

Images of one group are near copies of each other, and repeats predict the same images again: both
say less than as many new images would. Every variance is therefore one between whole groups, within
each repeat, averaged over repeats. The bounds come from formulas that also hold for a few dozen
groups and near 0 and 1, where the quantiles of a bootstrap lie too close together. Nothing is drawn
at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gelkit.heads.metrics import Probabilities, Targets
from gelkit.heads.splits import Folds

Groups = npt.NDArray[np.int64]
"""The group of each image, (images,), numbered from 0; the images of a group share their class."""

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_LEVEL = 0.95
_ROUNDING = 1e-15  # a variance below this is a sum of rounding errors
_BRIER_BOUND = 3
"""A bound on a Brier score's n_eff, as a multiple of a share's.

The variance of squared errors is below that of a share of the same mean. How far below, few images
do not show: the rare large error is missing. Of 1, 2, 3, 4 and no bound, this comes nearest to 95%
in simulations of 40 to 400 images (docs/coverage.md; 2 is too wide in half of the cells, without a
bound 71% are covered at worst).
"""
_BISECTIONS = 50  # to the last digits of float64


@dataclass(frozen=True)
class Interval:
    """A 95% interval: all values where a class has one group only, NaN where the metric is."""

    low: float
    high: float


_UNDEFINED = Interval(float("nan"), float("nan"))
_EVERYTHING = Interval(0.0, 1.0)


def estimand(folds: int) -> str:
    """Say what cross-validated figures, and so their intervals, are figures of.

    >>> estimand(5)
    'heads trained on 4/5 of these groups, on images from the same sources, weighted by image, \
at the sampled class proportions'
    """
    return (
        f"heads trained on {folds - 1}/{folds} of these groups, on images from the same sources, "
        "weighted by image, at the sampled class proportions"
    )


def intervals(
    targets: Targets,
    probabilities: Probabilities,
    splits: Folds,
    groups: Groups,
    positive: int | None = None,
) -> Mapping[str, Interval]:
    """Return the interval of each metric of :func:`gelkit.heads.metrics.score_out_of_fold`.

    A plain test set is one repeat, all of one fold.

    :param targets: class numbers, (images,).
    :param probabilities: (repeats x images x classes).
    :param splits: the fold that predicted, (repeats x images).
    :param groups: (images,), numbered from 0 without gaps.
    :param positive: the class whose precision, recall and F1 are meant; None: their means.
    :returns: by metric: accuracy, precision, recall, f1, balanced_accuracy, roc_auc, brier.
    :raises ValueError: a group has images of two classes, or a number has no image.
    """
    sample = _group(targets, groups)
    predicted = probabilities.argmax(axis=2)
    counts = _count(targets, predicted, probabilities.shape[2], sample)
    return {
        "accuracy": accuracy_interval(predicted == targets, groups),
        **{
            name: _macro_interval(_of_class(macro, positive), counts, sample)
            for name, macro in _MACROS.items()
        },
        "roc_auc": auc_interval(targets, probabilities, splits, groups),
        "brier": _brier_interval(targets, probabilities, sample),
    }


def bound_columns(bounds: Mapping[str, Interval], prefix: str = "") -> dict[str, float]:
    """Return intervals as columns of a table, ``<metric>_low`` and ``<metric>_high``."""
    lows = {f"{prefix}{name}_low": interval.low for name, interval in bounds.items()}
    return lows | {f"{prefix}{name}_high": interval.high for name, interval in bounds.items()}


def accuracy_interval(right: Flags, groups: Groups, around: float | None = None) -> Interval:
    """Return the interval of the mean share of right predictions: Wilson's at n_eff, with t.

    :param right: whether each prediction is right, (repeats x images).
    :param groups: (images,), numbered from 0 without gaps.
    :param around: another estimate of that share, as sure as this one; None: the share itself.
    """
    num_groups = int(groups.max()) + 1
    if num_groups == 1:
        return _EVERYTHING
    share = float(right.mean()) if around is None else around
    return _wilson(share, effective_images(right, groups), _quantile(num_groups))


def effective_images(right: Flags, groups: Groups) -> float:
    """Return n_eff: how many independent images would make the accuracy as uncertain.

    By the variance between groups, and at most what is left if all images of a group are alike.
    The variance alone would say too many where few predictions are wrong. (After Korn and Graubard
    1998, Survey Methodology 24:193, on shares in surveys of clusters.)

    :param right: whether each prediction is right, (repeats x images).
    :param groups: (images,), numbered from 0 without gaps.
    """
    sizes = np.bincount(groups).astype(np.float64)
    surplus = _sum_by_group(right - right.mean(axis=1, keepdims=True), groups, len(sizes))
    variance = float((surplus**2).sum(axis=1).mean()) / len(groups) ** 2
    return _effective(float(right.mean()), variance, _alike(sizes))


def auc_interval(
    targets: Targets, probabilities: Probabilities, splits: Folds, groups: Groups
) -> Interval:
    """Return the interval of the ROC AUC, of one class against the rest, averaged over classes.

    A jackknife leaves out one group after another, within its class, and what repeats differ by,
    having trained on other images, is added; the interval is symmetric in log odds. Where no group
    makes a difference, as at an AUC of 1, it is Newcombe's instead, for as many images of each
    class as are left if those of a group are alike.

    :param targets: class numbers, (images,).
    :param probabilities: (repeats x images x classes).
    :param splits: the fold that predicted, (repeats x images).
    :param groups: (images,), numbered from 0 without gaps.
    :raises ValueError: a group has images of two classes, or a number has no image.
    """
    sample = _group(targets, groups)
    areas, areas_without = _areas(targets, probabilities, splits, sample)
    area = float(areas.mean())
    if np.isnan(area):
        return _UNDEFINED
    variance = _jackknife_variance(areas_without, sample) + _variance_between(areas)
    if sample.has_single or np.isnan(variance):
        return _EVERYTHING
    if variance < _ROUNDING or area in (0, 1):
        return _newcombe_over_classes(area, sample)
    return _symmetric_in_log_odds(area, variance, _quantile(len(sample.sizes)))


def newcombe_interval(area: float, images: tuple[float, float], quantile: float) -> Interval:
    """Return the interval of an AUC from itself and the numbers of images alone.

    Method 5 of Newcombe 2006, Statistics in Medicine 25:559: the areas that lie within so many of
    their own standard errors, those of Hanley and McNeil for exponential scores.

    :param images: of the two classes.
    :param quantile: standard errors on either side.
    """
    return Interval(
        _newcombe_low(area, images, quantile), 1 - _newcombe_low(1 - area, images, quantile)
    )


def _newcombe_low(area: float, images: tuple[float, float], quantile: float) -> float:
    others = sum(images) / 2 - 1
    low, high = 0.0, area
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        spread = 1 + others * ((1 - middle) / (2 - middle) + middle / (1 + middle))
        variance = middle * (1 - middle) * spread / (images[0] * images[1])
        low, high = (middle, high) if area - middle > quantile * variance**0.5 else (low, middle)
    return low


def _newcombe_over_classes(area: float, sample: _Sample) -> Interval:
    """Average the intervals over classes, as the area is."""
    bounds = []
    for number in np.unique(sample.classes):
        mine = sample.classes == number
        images = (_alike(sample.sizes[mine]), _alike(sample.sizes[~mine]))
        bounds.append(newcombe_interval(area, images, _quantile(len(mine))))
    return Interval(
        float(np.mean([bound.low for bound in bounds])),
        float(np.mean([bound.high for bound in bounds])),
    )


def _symmetric_in_log_odds(value: float, variance: float, quantile: float) -> Interval:
    from scipy.special import expit, logit

    reach = quantile * variance**0.5 / (value * (1 - value))
    return Interval(float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def _wilson(value: float, images: float, quantile: float) -> Interval:
    """Return the interval of a share among so many images (Wilson 1927, JASA 22:209)."""
    extra = quantile**2 / images
    center = (value + extra / 2) / (1 + extra)
    reach = (extra * value * (1 - value) + extra**2 / 4) ** 0.5 / (1 + extra)
    # at 0 and 1, rounding must not put the share itself outside
    return Interval(max(min(center - reach, value), 0.0), min(max(center + reach, value), 1.0))


def _effective(value: float, variance: float, most: float) -> float:
    """Return how many independent images would give a share this variance."""
    if variance < _ROUNDING or not 0 < value < 1:
        return most
    return min(value * (1 - value) / variance, most)


def _alike(sizes: Floats) -> float:
    """Return how many images are left of groups whose images are all alike, in effect (Kish)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _quantile(num_groups: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(num_groups - 1, (1 + _LEVEL) / 2))


@dataclass(frozen=True)
class _Sample:
    """Images in groups."""

    groups: Groups
    sizes: Floats
    """Images of each group."""
    classes: npt.NDArray[np.int64]
    """The class of each group."""

    @property
    def has_single(self) -> bool:
        """Whether a class has one group only: nothing says how much its groups vary."""
        return bool((np.bincount(self.classes) == 1).any())

    @property
    def alike_by_class(self) -> float:
        """As of :func:`_alike`, for a mean over classes: each class counts the same."""
        numbers = np.unique(self.classes)
        each = [_alike(self.sizes[self.classes == number]) for number in numbers]
        return float(len(each) ** 2 / sum(1 / images for images in each))

    def sum(self, values: npt.NDArray[Any]) -> Floats:
        """Sum (repeats x images) by group."""
        return _sum_by_group(values, self.groups, len(self.sizes))


def _group(targets: Targets, groups: Groups) -> _Sample:
    sizes = np.bincount(groups).astype(np.float64)
    classes = np.zeros(len(sizes), dtype=np.int64)
    classes[groups] = targets
    if not (sizes.all() and np.array_equal(classes[groups], targets)):
        raise ValueError(
            "Expected groups numbered from 0 without gaps, each of images of one class. Received: "
            f"{int((sizes == 0).sum())} numbers without images, "
            f"{len(np.unique(groups[classes[groups] != targets]))} groups of several classes. "
            "Number groups as gelkit.heads.splits.group_images does, and give each one label."
        )
    return _Sample(groups, sizes, classes)


def _sum_by_group(values: npt.NDArray[Any], groups: Groups, num_groups: int) -> Floats:
    """Sum (repeats x images) by group, (repeats x groups)."""
    places = groups + num_groups * np.arange(len(values))[:, np.newaxis]
    sums = np.bincount(places.ravel(), values.ravel(), minlength=len(values) * num_groups)
    return sums.reshape(len(values), num_groups).astype(np.float64, copy=False)


def _jackknife_variance(values_without: Floats, sample: _Sample) -> float:
    """Return the variance of a metric when groups are drawn anew within each class.

    :param values_without: the metric without each group, (repeats x groups).
    """
    variance = 0.0
    for number in np.unique(sample.classes):
        mine = values_without[:, sample.classes == number]
        variance += float(mine.var(axis=1).mean()) * (mine.shape[1] - 1)
    return variance


@dataclass(frozen=True)
class _Counts:
    """Images by class, (... x classes)."""

    right: Floats
    predicted: Floats
    true: Floats


def _count(
    targets: Targets, predicted: npt.NDArray[np.int64], num_classes: int, sample: _Sample
) -> _Counts:
    """Count the images of each group, (repeats x groups x classes)."""
    numbers = range(num_classes)
    by_prediction = np.stack([sample.sum(predicted == number) for number in numbers], axis=2)
    true = sample.sizes[:, np.newaxis] * (sample.classes[:, np.newaxis] == np.array(numbers))
    return _Counts(
        right=by_prediction * (true > 0),
        predicted=by_prediction,
        true=np.broadcast_to(true, by_prediction.shape),
    )


@dataclass(frozen=True)
class _Macro:
    """A metric that is the mean of a ratio over classes."""

    parts: Callable[[_Counts], tuple[Floats, Floats]]
    """Numerators and denominators; 0 / 0 counts as 0."""
    over: Callable[[_Counts], Flags]
    """The classes that count."""
    is_share: bool
    """Whether all repeats have the same denominators, as a share of images."""
    positive: int | None = None
    """The only class that counts."""


def _occurring(counts: _Counts) -> Flags:
    return (counts.true > 0) | (counts.predicted > 0)


_MACROS: Mapping[str, _Macro] = {
    "precision": _Macro(
        lambda counts: (counts.right, counts.predicted), _occurring, is_share=False
    ),
    "recall": _Macro(lambda counts: (counts.right, counts.true), _occurring, is_share=True),
    "f1": _Macro(
        lambda counts: (2 * counts.right, counts.predicted + counts.true),
        _occurring,
        is_share=False,
    ),
    "balanced_accuracy": _Macro(
        lambda counts: (counts.right, counts.true), lambda counts: counts.true > 0, is_share=True
    ),
}
"""As of :class:`gelkit.heads.metrics.Scores`."""


def _of_class(macro: _Macro, positive: int | None) -> _Macro:
    """Return a metric of one class; balanced accuracy is always one of all."""
    if positive is None or macro is _MACROS["balanced_accuracy"]:
        return macro

    def is_positive(counts: _Counts) -> Flags:
        return np.broadcast_to(np.arange(counts.true.shape[2]) == positive, counts.true.shape)

    return _Macro(macro.parts, is_positive, macro.is_share, positive)


def _macro_interval(macro: _Macro, counts: _Counts, sample: _Sample) -> Interval:
    """Return Wilson's interval of a metric, as if it were a share, at n_eff by a jackknife.

    What hangs on how many images a head predicts as a class also varies with the training images:
    what repeats differ by is added. The quantiles of a bootstrap over groups cover the truth in as
    few as 56% of cases of 40 to 400 images; what this covers is in docs/coverage.md.
    """
    totals, rest = _totals(counts), _without_each(counts)
    over = macro.over(totals)
    values, without = (_mean_ratio(*macro.parts(kept), over) for kept in (totals, rest))
    most = (
        sample.alike_by_class
        if macro.positive is None
        else _alike(sample.sizes[sample.classes == macro.positive])
    )
    more = 0.0 if macro.is_share else _variance_between(values[:, 0])
    return _interval_at_effective(values, without, sample, most, more)


def _totals(counts: _Counts) -> _Counts:
    parts = (counts.right, counts.predicted, counts.true)
    return _Counts(*(part.sum(axis=1, keepdims=True) for part in parts))


def _without_each(counts: _Counts) -> _Counts:
    parts = (counts.right, counts.predicted, counts.true)
    return _Counts(*(part.sum(axis=1, keepdims=True) - part for part in parts))


def _mean_ratio(numerators: Floats, denominators: Floats, over: Flags) -> Floats:
    ratios = np.divide(
        numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0
    )
    return np.asarray((ratios * over).sum(axis=2) / over.sum(axis=2), dtype=np.float64)


def _brier_interval(targets: Targets, probabilities: Probabilities, sample: _Sample) -> Interval:
    """Return Wilson's interval, as if the score were a share, at n_eff by a jackknife.

    Its n_eff is bounded as :data:`_BRIER_BOUND` says.
    """
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=2, keepdims=True)
    halves = ((np.eye(exact.shape[2])[targets] - exact) ** 2).sum(axis=2) / 2
    totals = halves.sum(axis=1, keepdims=True)
    without = (totals - sample.sum(halves)) / np.maximum(len(targets) - sample.sizes, 1)
    of_halves = _interval_at_effective(
        totals / len(targets), without, sample, _BRIER_BOUND * _alike(sample.sizes)
    )
    scale = 1 if exact.shape[2] == 2 else 2
    return Interval(scale * of_halves.low, scale * of_halves.high)


def _variance_between(repeats: Floats) -> float:
    """Return the variance of a metric between repeats; 0 if there is one."""
    return float(repeats.var(ddof=1)) if len(repeats) > 1 else 0.0


def _interval_at_effective(
    values: Floats, values_without: Floats, sample: _Sample, most: float, more: float = 0.0
) -> Interval:
    """Return Wilson's interval of a metric of 0 to 1, at n_eff by a jackknife, at most ``most``.

    :param more: variance that comes in addition.
    """
    if sample.has_single:
        return _EVERYTHING
    value = float(values.mean())
    images = _effective(value, _jackknife_variance(values_without, sample) + more, most)
    return _wilson(value, images, _quantile(len(sample.sizes)))


def _areas(
    targets: Targets, probabilities: Probabilities, splits: Folds, sample: _Sample
) -> tuple[Floats, Floats]:
    """Return the ROC AUC of each repeat, (repeats,), and without each group, (repeats x groups).

    A class without pairs is left out of the mean; without any, it is NaN.
    """
    totals, without = [], []
    for number in range(probabilities.shape[2]):
        positive = targets == number
        won, pairs = _pairs(positive, probabilities[..., number], splits)
        all_won, all_pairs = (part[:, positive].sum(axis=1, keepdims=True) for part in (won, pairs))
        totals.append((all_won, all_pairs))
        without.append((all_won - sample.sum(won), all_pairs - sample.sum(pairs)))
    return _mean_area(totals)[:, 0], _mean_area(without)


def _mean_area(won_and_pairs: list[tuple[Floats, Floats]]) -> Floats:
    won, pairs = (np.stack(part) for part in zip(*won_and_pairs, strict=True))
    areas = np.divide(won, pairs, out=np.zeros_like(won), where=pairs > 0)
    known = (pairs > 0).sum(axis=0)
    means = np.divide(
        areas.sum(axis=0), known, out=np.full(known.shape, float("nan")), where=known > 0
    )
    return np.asarray(means, dtype=np.float64)


def _pairs(positive: Flags, scores: Probabilities, splits: Folds) -> tuple[Floats, Floats]:
    """Count the pairs, positive and negative of one fold, that each image is in.

    :returns: the pairs that are ranked right, equal scores half, and all, both (repeats x images).
    """
    repeats = np.arange(len(splits))[:, np.newaxis]
    blocks = (splits + repeats * (int(splits.max()) + 1)).ravel()
    is_positive = np.broadcast_to(positive, splits.shape).ravel()
    num_positives = np.bincount(blocks, is_positive)[blocks]
    num_negatives = np.bincount(blocks, ~is_positive)[blocks]
    lower = _lower_negatives_and_positives(is_positive, scores.ravel(), blocks)
    won = np.where(is_positive, lower[0], num_positives - lower[1])
    pairs = np.where(is_positive, num_negatives, num_positives)
    return won.reshape(splits.shape), pairs.reshape(splits.shape)


def _lower_negatives_and_positives(
    positive: Flags, scores: Probabilities, blocks: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Count, for each score, the lower ones of its block; equal ones half, itself among them."""
    order = np.lexsort((scores, blocks))
    ordered, sorted_blocks = scores[order], blocks[order]
    new = (np.diff(ordered) != 0) | (np.diff(sorted_blocks) != 0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    ends = np.append(starts[1:], len(order))
    first_of_block = np.searchsorted(sorted_blocks, sorted_blocks[starts])

    def lower(side: Flags) -> Floats:
        before = np.concatenate([[0], np.cumsum(side[order])])
        middles = (before[starts] + before[ends]) / 2 - before[first_of_block]
        counted = np.empty(len(order))
        counted[order] = np.repeat(middles, ends - starts)
        return counted

    return lower(~positive), lower(positive)
