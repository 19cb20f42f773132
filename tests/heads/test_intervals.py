"""Intervals: as wide as the groups warrant, around the scores, and of known methods."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gelkit.heads.intervals import (
    Interval,
    accuracy_interval,
    auc_interval,
    effective_images,
    estimand,
    intervals,
    newcombe_interval,
)
from gelkit.heads.metrics import score_out_of_fold
from gelkit.heads.results import COLUMNS

METRICS = [name.removesuffix("_low") for name in COLUMNS if name.endswith("_low")][:7]

AGAIN = settings(deadline=None, max_examples=40)


@dataclass(frozen=True)
class Predicted:
    """What the intervals are of."""

    targets: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    splits: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    def intervals(self) -> dict[str, Interval]:
        """Return all intervals."""
        return dict(intervals(self.targets, self.probabilities, self.splits, self.groups))

    def only(self, images: npt.NDArray[np.intp]) -> Predicted:
        """Take some images, in their order; groups keep their numbers."""
        return Predicted(
            self.targets[images],
            self.probabilities[:, images],
            self.splits[:, images],
            self.groups[images],
        )


def _predict(
    classes: list[int], sizes: list[int], *, repeats: int = 3, effect: float = 1.0, seed: int = 0
) -> Predicted:
    """Draw predictions of groups, given the class and the number of images of each; two folds."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(classes)), sizes)
    targets = np.array(classes)[groups]
    num_classes = max(classes) + 1
    own = np.eye(num_classes)[targets] * effect
    noise = rng.normal(size=(len(classes), num_classes))[groups]
    logits = own + noise + 0.7 * rng.normal(size=(repeats, len(groups), num_classes))
    # probabilities of few values, so that some are equal; none are equal within a row
    powers = np.exp(np.round(logits, 1) + 0.01 * np.arange(num_classes))
    probabilities = (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32)
    splits = np.stack([rng.permutation(len(classes)) % 2 for _ in range(repeats)])[:, groups]
    return Predicted(targets, probabilities, splits, groups)


@st.composite
def _predictions(draw: st.DrawFn, num_classes: int | None = None) -> Predicted:
    """Draw predictions with at least two groups of each class."""
    number = num_classes or draw(st.integers(2, 4))
    more = draw(st.lists(st.integers(0, number - 1), max_size=12))
    classes = [*range(number), *range(number), *more]
    sizes = draw(st.lists(st.integers(1, 3), min_size=len(classes), max_size=len(classes)))
    effect = draw(st.sampled_from([0.0, 1.0, 4.0, 20.0]))
    return _predict(
        classes,
        sizes,
        repeats=draw(st.integers(1, 3)),
        effect=effect,
        seed=draw(st.integers(0, 10**6)),
    )


def _close(mine: dict[str, Interval], other: dict[str, Interval]) -> None:
    assert mine.keys() == other.keys()
    for name, interval in mine.items():
        expected = (other[name].low, other[name].high)
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-6, nan_ok=True), name


def _width(interval: Interval) -> float:
    return interval.high - interval.low


@AGAIN
@given(_predictions())
def test_every_interval_is_around_its_score_and_in_range(predicted: Predicted) -> None:
    """A reader would see a score outside its own interval, or an accuracy of up to 104%."""
    scores = score_out_of_fold(predicted.targets, predicted.probabilities, predicted.splits)
    found = predicted.intervals()
    assert sorted(found) == sorted(METRICS)
    for name, interval in found.items():
        value = getattr(scores, name)
        if name == "roc_auc" and math.isnan(value):
            assert math.isnan(interval.low)
            continue
        most = 2 if name == "brier" and predicted.probabilities.shape[2] > 2 else 1
        assert 0 <= interval.low <= value + 1e-6, name
        assert value - 1e-6 <= interval.high <= most, name
        assert interval.low < interval.high, name


@AGAIN
@given(_predictions(num_classes=2), st.integers(0, 1))
def test_intervals_of_a_positive_class_are_around_its_scores(
    predicted: Predicted, positive: int
) -> None:
    """Sensitivity would stand in the interval of the macro average."""
    arrays = (predicted.targets, predicted.probabilities, predicted.splits)
    scores = score_out_of_fold(*arrays, positive)
    found = intervals(*arrays, predicted.groups, positive)
    macro = predicted.intervals()
    for name in ("precision", "recall", "f1"):
        assert found[name].low <= getattr(scores, name) + 1e-6
        assert found[name].high >= getattr(scores, name) - 1e-6
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "brier"):
        assert found[name] == macro[name] or math.isnan(found[name].low)


def test_the_recall_of_a_class_of_single_images_is_a_share_of_them() -> None:
    """The other class would narrow the interval of the sensitivity."""
    targets = np.repeat([0, 1], [200, 20])
    right = np.concatenate([np.ones(200, bool), np.arange(20) < 15])
    predicted = np.where(right, targets, 1 - targets)
    probabilities = np.eye(2, dtype=np.float32)[predicted][np.newaxis]
    splits = np.zeros((1, 220), np.int64)
    found = intervals(targets, probabilities, splits, np.arange(220), positive=1)["recall"]
    alone = accuracy_interval(right[np.newaxis, 200:], np.arange(20))
    assert found.low == pytest.approx(alone.low, abs=0.02)
    assert found.high == pytest.approx(alone.high, abs=0.02)


@AGAIN
@given(_predictions(), st.randoms(use_true_random=False))
def test_order_and_numbers_do_not_matter(predicted: Predicted, random: object) -> None:
    """Renaming a file would change how sure one is of a result."""
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    shuffled = predicted.only(rng.permutation(len(predicted.targets)))
    numbers = rng.permutation(int(predicted.groups.max()) + 1)
    renumbered = Predicted(
        shuffled.targets, shuffled.probabilities, shuffled.splits, numbers[shuffled.groups]
    )
    _close(renumbered.intervals(), predicted.intervals())


@AGAIN
@given(_predictions())
def test_the_order_of_classes_does_not_matter(predicted: Predicted) -> None:
    """The interval would hang on which class comes first in the alphabet."""
    last = predicted.probabilities.shape[2] - 1
    swapped = Predicted(
        last - predicted.targets,
        predicted.probabilities[..., ::-1],
        predicted.splits,
        predicted.groups,
    )
    _close(swapped.intervals(), predicted.intervals())


@AGAIN
@given(_predictions())
def test_copies_within_groups_add_no_certainty(predicted: Predicted) -> None:
    """Saving each picture twice would make a head look proved."""
    doubled = predicted.only(np.repeat(np.arange(len(predicted.targets)), 2))
    _close(doubled.intervals(), predicted.intervals())


@pytest.mark.parametrize("metric", METRICS)
def test_more_groups_make_narrower_intervals(metric: str) -> None:
    """Collecting more gels would not pay."""
    few = _predict([0, 1] * 20, [2] * 40).intervals()[metric]
    many = _predict([0, 1] * 320, [2] * 640).intervals()[metric]
    assert 0.15 < _width(many) / _width(few) < 0.4  # one quarter, give or take the draw


@pytest.mark.parametrize(("right", "images"), [(0, 9), (1, 10), (17, 24), (30, 30)])
def test_single_images_have_wilsons_interval(right: int, images: int) -> None:
    """The common case would differ from the textbook by more than Student's quantile."""
    flags = np.arange(images) < right
    found = accuracy_interval(flags[np.newaxis], np.arange(images))
    confidence = 1 - 2 * stats.norm.sf(stats.t.ppf(0.975, images - 1))
    wilson = stats.binomtest(right, images).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))


EFFECTIVE = {
    "single images": ([1, 0, 1, 1], [0, 1, 2, 3], 4),
    "pairs alike": ([1, 1, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3], 4),
    "pairs that differ, bounded": ([1, 0, 1, 0], [0, 0, 1, 1], 2),
    "one large group": ([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 2], 36 / 18),
    # the variance alone would say 4.5: 1/4 over 2/36
    "pairs of both kinds, bounded": ([1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2], 3),
    # the means are 1/2, the sums of surplus by group 3/2 and three times -1/2
    "large group right, single ones wrong": (
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 2, 3],
        0.25 * 36 / (9 / 4 + 3 / 4),
    ),
}


@pytest.mark.parametrize(("right", "groups", "expected"), EFFECTIVE.values(), ids=EFFECTIVE)
def test_effective_images_by_hand(right: list[int], groups: list[int], expected: float) -> None:
    """Near copies would count as evidence."""
    found = effective_images(np.array([right], dtype=bool), np.array(groups))
    assert found == pytest.approx(expected)


def test_repeats_are_no_new_images() -> None:
    """Five repeats would seem to prove as much as five times the images."""
    once = _predict([0, 1] * 10, [1] * 20, repeats=1)
    again = Predicted(
        once.targets,
        np.repeat(once.probabilities, 5, axis=0),
        np.repeat(once.splits, 5, axis=0),
        once.groups,
    )
    _close(again.intervals(), once.intervals())


def _log_odds(value: float) -> float:
    return math.log(value / (1 - value))


@settings(AGAIN, max_examples=6)
@given(_predictions())
def test_auc_jackknife_equals_scoring_again_without_each_group(predicted: Predicted) -> None:
    """The short way to the jackknife would be a wrong way."""

    def areas(some: Predicted) -> list[float]:
        return [
            score_out_of_fold(
                some.targets, some.probabilities[[repeat]], some.splits[[repeat]]
            ).roc_auc
            for repeat in range(len(some.splits))
        ]

    area = float(np.mean(areas(predicted)))
    num_groups = int(predicted.groups.max()) + 1
    without = np.array(
        [areas(predicted.only(np.flatnonzero(predicted.groups != g))) for g in range(num_groups)]
    )
    classes = np.array([predicted.targets[predicted.groups == g][0] for g in range(num_groups)])
    variance = sum(
        (len(mine) - 1) / len(mine) * ((mine - mine.mean(axis=0)) ** 2).sum(axis=0).mean()
        for mine in (without[classes == number] for number in np.unique(classes))
    )
    repeats = areas(predicted)
    variance += np.var(repeats, ddof=1) if len(repeats) > 1 else 0
    found = auc_interval(
        predicted.targets, predicted.probabilities, predicted.splits, predicted.groups
    )
    if math.isnan(area):
        assert math.isnan(found.low)
    elif math.isnan(variance):
        assert found == Interval(0, 1)
    elif variance > 1e-12:
        half = stats.t.ppf(0.975, num_groups - 1) * math.sqrt(variance) / (area * (1 - area))
        assert _log_odds(found.low) == pytest.approx(_log_odds(area) - half, abs=1e-6)
        assert _log_odds(found.high) == pytest.approx(_log_odds(area) + half, abs=1e-6)


@pytest.mark.parametrize(("images", "quantile"), [((4, 4), math.sqrt(16 / 3)), ((1, 1), 1.0)])
def test_newcombes_interval_by_hand(images: tuple[int, int], quantile: float) -> None:
    """A perfect AUC of a handful of images would look more certain than it is.

    At 1/2 the variance is (1 + 2/3 n*) / (4 m n), n* the mean of the numbers less one; so 1/2 is
    the bound where the quantile is the root of m n / (1 + 2/3 n*).
    """
    found = newcombe_interval(1.0, images, quantile)
    assert (found.low, found.high) == pytest.approx((0.5, 1.0))
    mirrored = newcombe_interval(0.0, images, quantile)
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 0.5))


@pytest.mark.parametrize(("area", "images"), [(0.7, (12, 5)), (0.93, (40, 80)), (0.2, (6, 6))])
def test_newcombes_bounds_solve_his_equation(area: float, images: tuple[int, int]) -> None:
    """The bounds would be those of another method."""
    m, n = images
    star = (m + n) / 2 - 1
    found = newcombe_interval(area, images, 1.96)
    for bound in (found.low, found.high):
        q1, q2 = bound / (2 - bound), 2 * bound**2 / (1 + bound)
        # as Hanley and McNeil write it, with n* for each number less one
        variance = bound * (1 - bound) + star * (q1 - bound**2) + star * (q2 - bound**2)
        assert (area - bound) ** 2 == pytest.approx(1.96**2 * variance / (m * n))


def test_perfect_predictions_have_newcombes_and_wilsons_bounds() -> None:
    """A head without an error would be reported as certainly perfect."""
    perfect = _predict([0] * 6 + [1] * 14, [2] * 20, effect=30)
    found = perfect.intervals()
    quantile = float(stats.t.ppf(0.975, 19))
    newcombe = newcombe_interval(1.0, (6, 14), quantile)
    assert (found["roc_auc"].low, found["roc_auc"].high) == pytest.approx((newcombe.low, 1))
    assert found["accuracy"].low == pytest.approx(20 / (20 + quantile**2))
    balanced = 4 / (1 / 6 + 1 / 14)
    for name in ("balanced_accuracy", "recall", "precision", "f1"):
        assert found[name].low == pytest.approx(balanced / (balanced + quantile**2)), name
    assert found["brier"].low == pytest.approx(0, abs=1e-6)
    assert 0.02 < found["brier"].high < 0.2


def test_balanced_single_images_have_the_same_macro_intervals_as_accuracy() -> None:
    """Recall would be surer than accuracy where both are the same figure."""
    targets = np.array([0] * 20 + [1] * 20)
    predicted = np.where(np.arange(40) % 5 == 0, 1 - targets, targets)
    probabilities = np.eye(2, dtype=np.float32)[predicted][np.newaxis] * 0.6 + 0.2
    folds = np.zeros((1, 40), dtype=np.int64)
    found = intervals(targets, probabilities, folds, np.arange(40))
    for name in ("recall", "balanced_accuracy", "precision", "f1"):
        # the jackknife's variance is that of n - 1 images a class
        assert _width(found[name]) == pytest.approx(_width(found["accuracy"]), rel=0.04), name


def test_brier_interval_by_hand() -> None:
    """The mean squared error would have an interval of something else."""
    targets = np.array([0, 1] * 100)
    losses = np.tile([0.01, 0.01, 0.01, 0.01, 0.9, 0.9], 34)[: len(targets)]
    probabilities = np.stack([1 - losses, losses], axis=1)
    probabilities[targets == 1] = probabilities[targets == 1, ::-1]
    folds = np.zeros((1, len(targets)), dtype=np.int64)
    found = intervals(
        targets, probabilities[np.newaxis].astype(np.float32), folds, np.arange(len(targets))
    )["brier"]
    value = (losses**2).mean()
    parts = [losses[targets == number] ** 2 for number in (0, 1)]
    variance = sum(len(part) * part.var() for part in parts) / len(targets) ** 2
    quantile = stats.t.ppf(0.975, len(targets) - 1)
    assert (found.low + found.high) / 2 == pytest.approx(value, rel=0.05)
    assert _width(found) == pytest.approx(2 * quantile * math.sqrt(variance), rel=0.02)


TOO_FEW = {
    "one group": ([0, 0, 0], [0, 0, 0], {"accuracy", "recall", "brier"}),
    "one group of a class": ([0, 0, 0, 1, 1], [0, 1, 2, 3, 3], {"recall", "roc_auc", "brier"}),
}


@pytest.mark.parametrize(("targets", "groups", "unknown"), TOO_FEW.values(), ids=TOO_FEW)
def test_a_single_group_tells_nothing(
    targets: list[int], groups: list[int], unknown: set[str]
) -> None:
    """A figure that rests on one picture would have an interval, or stop the evaluation."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1], (2, len(targets))).astype(np.float32)
    folds = np.zeros((2, len(targets)), dtype=np.int64)
    found = intervals(np.array(targets), probabilities, folds, np.array(groups))
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown, Interval(0, 1))


def test_a_test_set_of_one_class_has_no_area() -> None:
    """A test set of gels alone could not be evaluated."""
    targets, folds = np.zeros(20, dtype=np.int64), np.zeros((1, 20), dtype=np.int64)
    probabilities = np.array([[[0.9, 0.1]] * 18 + [[0.3, 0.7]] * 2], dtype=np.float32)
    found = intervals(targets, probabilities, folds, np.arange(20))
    assert math.isnan(found["roc_auc"].low)
    assert math.isnan(found["roc_auc"].high)
    # the recall of the class that is only predicted is 0
    for name, value in (("accuracy", 0.9), ("balanced_accuracy", 0.9), ("recall", 0.45)):
        assert value - 0.25 < found[name].low < value < found[name].high < value + 0.25, name


def test_a_constant_head_has_an_interval_of_its_area() -> None:
    """A head that learnt nothing would have an AUC of exactly one half."""
    constant = _predict([0, 1] * 8, [1] * 16)
    area = auc_interval(
        constant.targets,
        np.full_like(constant.probabilities, 0.5),
        constant.splits,
        constant.groups,
    )
    assert area.low + area.high == pytest.approx(1)
    assert 0.1 < area.low < 0.3


WRONG_GROUPS = {"two classes": [0, 1, 1, 2], "a gap": [0, 0, 2, 3]}


@pytest.mark.parametrize("groups", WRONG_GROUPS.values(), ids=WRONG_GROUPS)
def test_groups_that_cannot_be_are_refused(groups: list[int]) -> None:
    """Intervals of groups that straddle classes would be too narrow, silently."""
    probabilities = np.full((1, 4, 2), 0.5, dtype=np.float32)
    folds = np.zeros((1, 4), dtype=np.int64)
    with pytest.raises(ValueError, match=r"Expected groups numbered.*Received"):
        intervals(np.array([0, 0, 1, 1]), probabilities, folds, np.array(groups))


COVERAGE = {
    "40 images": ([0, 1] * 20, [1] * 40, 1.8),
    "40 images, few errors": ([0, 1] * 20, [1] * 40, 3.5),
    "60 images in groups, three to one": ([0, 0, 0, 1] * 8, [1, 2, 3] * 10 + [2, 2], 1.8),
}


@pytest.mark.parametrize(("classes", "sizes", "effect"), COVERAGE.values(), ids=COVERAGE)
def test_intervals_cover_the_truth(classes: list[int], sizes: list[int], effect: float) -> None:
    """Intervals would be too short for the data sets that people have, as a bootstrap's are."""
    large = _predict(classes * 400, sizes * 400, effect=effect, repeats=1, seed=1)
    truth = score_out_of_fold(large.targets, large.probabilities, large.splits)
    samples = 200
    covered = dict.fromkeys(METRICS, 0)
    for seed in range(samples):
        for name, interval in (
            _predict(classes, sizes, effect=effect, seed=seed).intervals().items()
        ):
            covered[name] += interval.low <= getattr(truth, name) <= interval.high
    # if the coverage is 95%, 200 samples fall below 90% once in 500 times
    assert min(covered.values()) >= 0.9 * samples, covered


def test_the_estimand_names_the_share_of_groups() -> None:
    """A reader would take the interval for one of the final head."""
    assert estimand(10).startswith("heads trained on 9/10 of these groups")
