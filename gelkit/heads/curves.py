"""Curves: ROC, precision against recall, and reliability, of predictions by several models.

The probabilities of different models need not be comparable, so no threshold is laid across folds:
each fold sets its own to reach the wanted rate, and what it finds is then averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gelkit.heads.calibration import BINS
from gelkit.heads.metrics import Probabilities, Targets
from gelkit.heads.resampling import draw_group_weights, group_classes, group_sizes
from gelkit.heads.splits import Folds

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

_LEVEL = 0.95
_REPLICATES = 200  # they give a variance, not quantiles
_DRAWS = 500
_MOST_PLACES = 201
_ROUNDING = 1e-15  # a variance below this is a sum of rounding errors


@dataclass(frozen=True)
class Curve:
    """A curve and its pointwise 95% band, all (points,); ``x`` never falls."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats
    by_class: Floats
    """What ``y`` is the mean of, (classes x points); NaN for a class without pairs."""

    @property
    def area(self) -> float:
        """The area under the curve, by trapezoids."""
        return float(np.trapezoid(self.y, self.x))

    @property
    def areas(self) -> Floats:
        """The area under the curve of each class, (classes,)."""
        return np.asarray(np.trapezoid(self.by_class, self.x, axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Reliability:
    """How often predictions were right, by the probability of the predicted class; all (bins,)."""

    confidence: Floats
    """The mean probability of the predicted class."""
    observed: Floats
    """The share that was right."""
    images: Floats
    """Images in the bin, the mean over repeats."""
    low: Floats
    """95% of the shares are above this, and as many below ``high``, if the probabilities are
    right."""
    high: Floats


def roc_curve(
    targets: Targets,
    probabilities: Probabilities,
    splits: Folds,
    groups: Groups,
    classes: Sequence[int],
    *,
    seed: int,
) -> Curve | None:
    """Return the ROC curve, averaged over folds, over some classes against the rest, over repeats.

    At each false positive rate the true positive rates of folds are averaged, weighted by their
    pairs of a positive and a negative (vertical averaging: Fawcett 2006,
    doi:10.1016/j.patrec.2005.10.010). So the area is that of
    :func:`gelkit.heads.metrics.score_out_of_fold` if ``classes`` are all, exactly as long as folds
    rise at no more than 201 rates, otherwise within 1/200.

    The band is Wilson's interval at each rate, for as many images as the variance between bootstrap
    replicates of whole groups, each of one repeat, is worth; at most what is left of the class if
    the images of a group are alike. It is all of 0 to 1 if a class has one group only.

    :param targets: class numbers, (images,).
    :param probabilities: (repeats x images x classes).
    :param splits: the fold that predicted, (repeats x images).
    :param groups: (images,), numbered from 0 without gaps.
    :param classes: numbers of the classes that count as positive, one at a time.
    :param seed: of the bootstrap.
    :returns: each place twice, as the curve enters and leaves it; None if no fold holds an image of
        the classes and one of another.
    """
    places = _places(targets, splits, classes, of_positives=False)
    x = np.repeat(places, 2)
    along = _Along(x, _true_rates)
    curve = _curve(targets, probabilities, splits, groups, classes, along, seed)
    return None if curve is None else _never_falling(curve)


def precision_recall_curve(
    targets: Targets,
    probabilities: Probabilities,
    splits: Folds,
    groups: Groups,
    classes: Sequence[int],
    *,
    seed: int,
) -> Curve | None:
    """Return the precision at each recall, over folds, classes and repeats as of :func:`roc_curve`.

    Each fold takes the highest threshold that reaches the recall, and what the folds then find,
    right and wrong, is added. Of one fold, the area under the steps is the average precision of
    scikit-learn. Between two recalls nothing is interpolated: straight lines would promise too much
    (Davis and Goadrich 2006, doi:10.1145/1143844.1143874).

    :returns: each place twice, as the curve enters and leaves it; None as of :func:`roc_curve`.
    """
    places = _places(targets, splits, classes, of_positives=True)
    reached = np.repeat(places[1:], 2)
    curve = _curve(
        targets, probabilities, splits, groups, classes, _Along(reached, _precisions), seed
    )
    if curve is None:
        return None
    return replace(curve, x=np.repeat(places, 2)[1:-1])


def reliability(
    targets: Targets, probabilities: Probabilities, groups: Groups, *, seed: int
) -> Reliability:
    """Return how often predictions were right, in bins of equally many images of each repeat.

    Bins and the band are those of :func:`gelkit.heads.calibration.calibration`: equal probabilities
    share a bin, and by chance means that whether an image is predicted right is drawn from the
    probability of its predicted class, once for all repeats and all images of a group.

    :param targets: class numbers, (images,).
    :param probabilities: (repeats x images x classes).
    :param groups: (images,), numbered from 0.
    :param seed: of the draws.
    """
    confidences = probabilities.max(axis=2).astype(np.float64)
    right = probabilities.argmax(axis=2) == targets
    ranks = np.stack([np.searchsorted(np.sort(repeat), repeat) for repeat in confidences])
    bins = (ranks * BINS // len(targets)).ravel()
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0

    def shares(values: npt.NDArray[np.generic]) -> Floats:
        sums = np.bincount(bins, values.ravel().astype(np.float64), minlength=BINS)
        return np.asarray(sums[filled] / counts[filled], dtype=np.float64)

    draw = np.random.default_rng(seed).random
    drawn = [shares(draw(int(groups.max()) + 1)[groups] < confidences) for _ in range(_DRAWS)]
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
    images = counts[filled] / len(confidences)
    return Reliability(shares(confidences), shares(right), images, low, high)


@dataclass(frozen=True)
class _Ranked:
    """One fold's images, the highest score first, and what they are."""

    order: npt.NDArray[np.intp]
    positive: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.intp]
    """Positions of the last image of each distinct score."""

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the false and the true positives at each threshold, none taken first.

        :param weights: of all images, (images,).
        """
        its = weights[self.order]
        true = np.cumsum(its * self.positive)[self.ends]
        false = np.cumsum(its * ~self.positive)[self.ends]
        return np.append(0.0, false), np.append(0.0, true)


Counts = list[tuple[Floats, Floats]]
"""False and true positives of folds, each at all its thresholds."""


@dataclass(frozen=True)
class _Along:
    """What is read off where: a value for each ``x`` from the counts of folds."""

    x: Floats
    evaluate: Callable[[Counts, Floats], Floats]

    def by_class(self, ranked: list[list[_Ranked]], weights: Floats) -> Floats:
        """Return the values of each class, (classes x points); NaN without pairs.

        :param ranked: of each class, the folds.
        """
        values = np.full((len(ranked), len(self.x)), np.nan)
        for its, folds in zip(values, ranked, strict=True):
            counts = [fold.counts(weights) for fold in folds]
            known = [(false, true) for false, true in counts if false[-1] > 0 and true[-1] > 0]
            if known:
                its[:] = self.evaluate(known, self.x)
        return values


def _mean_over_classes(values: Floats) -> Floats:
    """Return the mean over the classes that have values; NaN without any.

    :param values: (classes x points).
    """
    known = values[~np.isnan(values[:, 0])]
    return known.mean(axis=0) if len(known) else np.full(values.shape[1], np.nan)


def _places(targets: Targets, splits: Folds, classes: Sequence[int], of_positives: bool) -> Floats:
    """Return the rates at which folds can rise, 0 and 1 among them; evenly laid if too many."""
    counts = {
        int(np.count_nonzero((targets[repeat == fold] == number) == of_positives))
        for repeat in splits
        for fold in np.unique(repeat)
        for number in classes
    }
    if max(counts) >= _MOST_PLACES:
        return np.linspace(0, 1, _MOST_PLACES)
    places = np.unique(np.concatenate([np.arange(count + 1) / max(count, 1) for count in counts]))
    return places if len(places) <= _MOST_PLACES else np.linspace(0, 1, _MOST_PLACES)


def _rank(positive: npt.NDArray[np.bool_], scores: Probabilities, folds: Folds) -> list[_Ranked]:
    ranked = []
    for fold in np.unique(folds):
        members = np.flatnonzero(folds == fold)
        order = members[np.argsort(-scores[members], kind="stable")]
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        ranked.append(_Ranked(order, positive[order], ends))
    return ranked


def _true_rates(folds: list[tuple[Floats, Floats]], x: Floats) -> Floats:
    """Return the true positive rate as each false positive rate is entered, then left."""
    weights = np.array([false[-1] * true[-1] for false, true in folds])
    rates = [_as_entered_and_left(false / false[-1], true / true[-1], x) for false, true in folds]
    return np.asarray(np.average(rates, axis=0, weights=weights), dtype=np.float64)


def _as_entered_and_left(false: Floats, true: Floats, x: Floats) -> Floats:
    entered = np.searchsorted(false, x[::2], side="left")
    left = np.searchsorted(false, x[1::2], side="right") - 1
    values = np.empty(len(x))
    values[::2] = _between(false, true, entered - 1, x[::2])
    values[1::2] = _between(false, true, left, x[1::2])
    return values


def _between(false: Floats, true: Floats, before: npt.NDArray[np.intp], x: Floats) -> Floats:
    """Follow the straight line from a threshold to the next; at either end there is none."""
    first, last = np.maximum(before, 0), np.minimum(before + 1, len(false) - 1)
    width = false[last] - false[first]
    share = np.divide(x - false[first], width, out=np.zeros(len(x)), where=width > 0)
    return np.asarray(true[first] + share * (true[last] - true[first]), dtype=np.float64)


def _precisions(folds: list[tuple[Floats, Floats]], x: Floats) -> Floats:
    """Return the precision at the highest thresholds that reach each recall."""
    found = np.zeros((2, len(x)))
    for false, true in folds:
        threshold = np.minimum(np.searchsorted(true / true[-1], x), len(true) - 1)
        found += np.stack([false[threshold], true[threshold]])
    return np.asarray(found[1] / found.sum(axis=0), dtype=np.float64)


def _curve(
    targets: Targets,
    probabilities: Probabilities,
    splits: Folds,
    groups: Groups,
    classes: Sequence[int],
    along: _Along,
    seed: int,
) -> Curve | None:
    ranked = [
        [_rank(targets == number, scores[:, number], folds) for number in classes]
        for scores, folds in zip(probabilities, splits, strict=True)
    ]
    observed = [along.by_class(repeat, np.ones(len(targets))) for repeat in ranked]
    by_class = np.mean(observed, axis=0)
    y = np.mean([_mean_over_classes(repeat) for repeat in observed], axis=0)
    if np.isnan(y).any():
        return None
    of_groups = group_classes(targets, groups)
    if (np.bincount(of_groups) == 1).any():
        return Curve(along.x, y, np.zeros_like(y), np.ones_like(y), by_class)
    values = [
        _mean_over_classes(along.by_class(ranked[number % len(ranked)], weight[groups]))
        for numbers, weights in draw_group_weights(of_groups, seed=seed, replicates=_REPLICATES)
        for number, weight in zip(numbers, weights, strict=True)
    ]
    low, high = _wilson_band(y, np.nanmean((values - y) ** 2, axis=0), groups, of_groups, classes)
    return Curve(along.x, y, low, high, by_class)


def _never_falling(curve: Curve) -> Curve:
    """Narrow the band of a curve that cannot fall to where no bound contradicts another."""
    low = np.maximum.accumulate(curve.low)
    high = np.minimum.accumulate(curve.high[::-1])[::-1]
    return replace(curve, low=low, high=high)


def _wilson_band(
    y: Floats, variance: Floats, groups: Groups, of_groups: Groups, classes: Sequence[int]
) -> tuple[Floats, Floats]:
    """Return Wilson's intervals of shares that vary so much (Wilson 1927, JASA 22:209)."""
    from scipy.special import stdtrit

    sizes = group_sizes(groups)
    alike = [_alike(sizes[of_groups == number]) for number in classes if number in of_groups]
    most = len(alike) ** 2 / sum(1 / images for images in alike)
    images = np.full(len(y), most)
    varies = (variance > _ROUNDING) & (y > 0) & (y < 1)
    images[varies] = np.minimum(y * (1 - y), most * variance)[varies] / variance[varies]
    quantile = stdtrit(len(sizes) - 1, (1 + _LEVEL) / 2)
    extra = quantile**2 / images
    center = (y + extra / 2) / (1 + extra)
    reach = np.sqrt(extra * y * (1 - y) + extra**2 / 4) / (1 + extra)
    return np.clip(center - reach, 0, y), np.clip(center + reach, y, 1)


def _alike(sizes: Floats) -> float:
    """Return how many images are left of groups whose images are all alike, in effect (Kish)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())
