"""Curves, learning curves and maps: what plots show is what the metrics say, with honest bands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.heads.calibration import calibration
from gelkit.heads.curves import Curve, precision_recall_curve, reliability, roc_curve
from gelkit.heads.learning_curves import MOST_TRAINING_IMAGES, learning_curve
from gelkit.heads.maps import map_embeddings
from gelkit.heads.metrics import score_out_of_fold
from gelkit.heads.splits import make_splits

Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray]


def _draw(
    seed: int = 0, *, classes: int = 2, groups: int = 24, lead: float = 1.5, digits: int = 2
) -> Drawn:
    """Draw targets, probabilities, splits and groups of one to three images.

    :param digits: of the scores: few make many equal.
    """
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), generator.integers(1, 4, size=groups))
    targets = numbers % classes
    names = [str(number) for number in range(classes)]
    splits = make_splits(targets, numbers, names, folds=3, repeats=2, seed=seed)
    scores = generator.normal(size=(2, len(targets), classes)) + lead * np.eye(classes)[targets]
    powers = np.exp(scores.round(digits))
    probabilities = powers / powers.sum(axis=2, keepdims=True)
    return targets, probabilities.astype(np.float32), splits, numbers


CURVES: dict[str, Callable[..., Curve | None]] = {
    "roc": roc_curve,
    "precision-recall": precision_recall_curve,
}


def _curve(name: str, drawn: Drawn, classes: list[int]) -> Curve:
    curve = CURVES[name](*drawn, classes, seed=0)
    assert curve is not None
    return curve


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(2, 4),
    lead=st.floats(-1, 4),
    digits=st.integers(0, 3),
)
def test_the_area_under_the_drawn_roc_is_the_metric(
    seed: int, classes: int, lead: float, digits: int
) -> None:
    """The plot and the table would show two figures of the same thing."""
    targets, probabilities, splits, _ = drawn = _draw(
        seed, classes=classes, lead=lead, digits=digits
    )
    expected = score_out_of_fold(targets, probabilities, splits).roc_auc
    assert _curve("roc", drawn, list(range(classes))).area == pytest.approx(expected, abs=1e-9)


def test_the_roc_of_many_images_is_drawn_at_fewer_places_and_keeps_its_area() -> None:
    """A report of a large data set would weigh megabytes, or show another area."""
    targets, probabilities, splits, _ = drawn = _draw(groups=900)
    curve = _curve("roc", drawn, [0, 1])
    assert len(curve.x) == 402
    expected = score_out_of_fold(targets, probabilities, splits).roc_auc
    assert curve.area == pytest.approx(expected, abs=1 / 200)


def test_of_one_fold_the_area_under_precisions_is_the_average_precision() -> None:
    """The precision-recall plot would promise more than a threshold can give."""
    from sklearn.metrics import average_precision_score

    targets, probabilities, splits, groups = _draw(digits=0)
    one = (targets, probabilities[:1], np.zeros_like(splits[:1]), groups)
    expected = average_precision_score(targets == 1, probabilities[0, :, 1])
    assert _curve("precision-recall", one, [1]).area == pytest.approx(expected)


@pytest.mark.parametrize("name", CURVES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), lead=st.floats(-1, 8))
def test_bands_hold_their_curve_and_lie_between_0_and_1(name: str, seed: int, lead: float) -> None:
    """A band would lie beside its curve, or promise rates that there are not."""
    curve = _curve(name, _draw(seed, lead=lead), [0, 1])
    assert (curve.low <= curve.y + 1e-12).all()
    assert (curve.y <= curve.high + 1e-12).all()
    assert curve.low.min() >= 0
    assert curve.high.max() <= 1
    assert (np.diff(curve.x) >= 0).all()
    assert (curve.x[0], curve.x[-1]) == (0, 1)


@pytest.mark.parametrize("name", CURVES)
def test_a_band_is_wide_where_a_perfect_curve_never_varies(name: str) -> None:
    """Perfect predictions of a dozen gels would look certain."""
    curve = _curve(name, _draw(groups=12, lead=50), [0])
    assert curve.y[1:].min() == pytest.approx(1)
    assert curve.low.max() < 0.9


@pytest.mark.parametrize("name", CURVES)
def test_copies_of_images_do_not_narrow_a_band(name: str) -> None:
    """Ten pictures of each gel would make an AUC look ten times as sure."""
    targets, probabilities, splits, groups = drawn = _draw(groups=30)
    copies = (
        np.repeat(targets, 4),
        np.repeat(probabilities, 4, axis=1),
        np.repeat(splits, 4, axis=1),
        np.repeat(groups, 4),
    )
    width, copied = (
        float(np.mean(curve.high - curve.low))
        for curve in (_curve(name, drawn, [1]), _curve(name, copies, [1]))
    )
    assert copied == pytest.approx(width, rel=0.1)


def test_a_band_mostly_holds_the_true_curve_where_it_is_steep() -> None:
    """A band would count the positives' chance alone, and forget that of the threshold."""
    from scipy.stats import norm

    generator = np.random.default_rng(0)
    targets = np.arange(80) % 2
    rate, lead = 0.1, 1.2
    truth = norm.cdf(lead - norm.ppf(1 - rate))
    covered = []
    for _ in range(60):
        first = norm.cdf(generator.normal(size=80) + lead * targets)
        probabilities = np.stack([1 - first, first], axis=1)[np.newaxis]
        one_fold = np.zeros((1, 80), dtype=np.int64)
        curve = roc_curve(targets, probabilities, one_fold, np.arange(80), [1], seed=0)
        assert curve is not None
        place = int(np.argmax(curve.x >= rate))
        covered.append(curve.low[place] <= truth <= curve.high[place])
    assert np.mean(covered) >= 0.87


def test_more_groups_narrow_a_band() -> None:
    """A band would say nothing of how much the data say."""
    few, many = (_curve("roc", _draw(groups=count), [1]) for count in (20, 320))
    assert np.mean(many.high - many.low) < 0.5 * np.mean(few.high - few.low)


@pytest.mark.parametrize("name", CURVES)
def test_a_class_of_one_group_has_a_band_of_everything(name: str) -> None:
    """Nothing says how much a single gel's class varies, and the plot would claim to know."""
    targets, probabilities, splits, groups = _draw()
    groups = np.where(targets == 1, 0, np.unique(groups, return_inverse=True)[1] + 1)
    groups = np.unique(groups, return_inverse=True)[1]
    curve = _curve(name, (targets, probabilities, splits, groups), [1])
    assert (curve.low.max(), curve.high.min()) == (0, 1)


@pytest.mark.parametrize("name", CURVES)
def test_without_pairs_there_is_no_curve(name: str) -> None:
    """A data set of one class would end the report with an error, or show a made-up curve."""
    _, probabilities, splits, groups = _draw()
    targets = np.zeros(len(groups), dtype=np.int64)
    assert CURVES[name](targets, probabilities, splits, groups, [0, 1], seed=0) is None


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 4), digits=st.integers(0, 3))
def test_reliability_adds_up_to_the_accuracy(seed: int, classes: int, digits: int) -> None:
    """The calibration plot would contradict the accuracy, or leave images out."""
    targets, probabilities, _, groups = _draw(seed, classes=classes, digits=digits)
    points = reliability(targets, probabilities, groups, seed=0)
    right = probabilities.argmax(axis=2) == targets
    assert np.average(points.observed, weights=points.images) == pytest.approx(right.mean())
    means = np.average(points.confidence, weights=points.images)
    assert means == pytest.approx(probabilities.max(axis=2).mean())
    assert points.images.sum() == pytest.approx(len(targets))
    assert (points.low <= points.high).all()


@pytest.mark.parametrize("seed", range(4))
def test_reliability_has_the_bins_of_the_calibration_error(seed: int) -> None:
    """The plot would not be of the error that the results name."""
    targets, probabilities, _, groups = _draw(seed, digits=1)
    points = reliability(targets, probabilities[:1], groups, seed=0)
    errors = np.abs(points.observed - points.confidence)
    measured = calibration(targets, probabilities[:1], groups, seed=0)
    assert np.average(errors, weights=points.images) == pytest.approx(measured.ece)


def test_most_calibrated_probabilities_lie_in_the_reliability_band() -> None:
    """Good probabilities would look bad, or bad ones good."""
    generator = np.random.default_rng(0)
    groups = np.arange(600)
    first = generator.uniform(size=600)
    honest = np.stack([first, 1 - first], axis=1)[np.newaxis].astype(np.float32)
    targets = (generator.uniform(size=600) > first).astype(np.int64)
    shy, sure = honest, honest**6 / (honest**6).sum(axis=2, keepdims=True)
    outside = []
    for probabilities in (shy, sure):
        points = reliability(targets, probabilities, groups, seed=0)
        outside.append(np.mean((points.observed < points.low) | (points.observed > points.high)))
    assert outside[0] <= 0.2
    assert outside[1] >= 0.5


def _embed(targets: npt.NDArray[np.int64], lead: float = 1.0) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(1).normal(size=(len(targets), 30))
    return (noise + lead * np.eye(30)[targets]).astype(np.float32)


def test_a_learning_curve_ends_with_the_anchor_on_all_training_groups() -> None:
    """The curve would be of some other model than the logistic regression of baselines.csv."""
    from gelkit.heads.probes import cross_validate

    targets, _, splits, groups = _draw(groups=60)
    values = _embed(targets)
    curve = learning_curve(values, targets, splits, groups, seed=0)
    assert curve is not None
    everything = cross_validate(values, targets, splits).argmax(axis=2) == targets
    assert curve.repeats[-1] == pytest.approx(everything.mean(axis=1))
    assert curve.accuracy == pytest.approx(curve.repeats.mean(axis=1))
    assert curve.groups.tolist() == [4, 10, 20, 30, 40]
    assert not curve.is_cut


def test_a_learning_curve_rises_where_there_is_something_to_learn_and_only_there() -> None:
    """A user would collect more images for nothing, or not collect them where they help."""
    targets, _, splits, groups = _draw(groups=120)
    learns = learning_curve(_embed(targets, 2.0), targets, splits, groups, seed=0)
    blind = learning_curve(_embed(targets, 0.0), targets, splits, groups, seed=0)
    assert learns is not None
    assert blind is not None
    assert learns.accuracy[-1] - learns.accuracy[0] > 0.1
    assert abs(blind.accuracy[-1] - 0.5) < 0.12
    assert blind.p_value > 0.05
    assert (learns.low < learns.accuracy).all()
    assert (learns.accuracy < learns.high).all()


def test_images_of_a_group_train_together_and_never_on_their_own_fold() -> None:
    """Near copies would teach the answer, and the curve would be too high."""
    targets, _, splits, groups = _draw(groups=60)
    generator = np.random.default_rng(0)
    of_group = generator.normal(size=(60, 40))  # tells the group, nothing of the class
    curve = learning_curve(of_group[groups], targets, splits, groups, seed=0)
    assert curve is not None
    assert curve.accuracy.max() < 0.75


def test_too_few_groups_have_no_learning_curve() -> None:
    """The report of a handful of gels would end with an error."""
    targets, _, splits, groups = _draw(groups=6)
    assert learning_curve(_embed(targets), targets, splits, groups, seed=0) is None


def test_many_images_are_cut_and_that_is_said() -> None:
    """The report of a large data set would take hours, or hide that it did not use all images."""
    count = 2 * MOST_TRAINING_IMAGES
    groups = np.arange(count)
    targets = groups % 2
    splits = np.stack([groups // 2 % 2, groups // 4 % 2])
    curve = learning_curve(_embed(targets)[:, :2], targets, splits, groups, seed=0)
    assert curve is not None
    assert curve.repeats.shape[1] == 1
    assert curve.groups[-1] == pytest.approx(MOST_TRAINING_IMAGES, abs=2)


def test_a_map_is_the_same_again_and_keeps_neighbours() -> None:
    """The map would differ from report to report, or show classes that are apart as one."""
    targets = np.repeat(np.arange(3), 15)
    values = _embed(targets, lead=12.0)[:, :5]
    places = map_embeddings(values)
    assert places.shape == (45, 2)
    assert np.array_equal(places, map_embeddings(values))
    distances = np.linalg.norm(places[:, np.newaxis] - places, axis=2) + 1e9 * np.eye(45)
    assert (targets[distances.argmin(axis=1)] == targets).mean() > 0.9


@pytest.mark.parametrize("shape", [(3, 5), (4, 1), (6, 2)], ids=str)
def test_small_and_constant_embeddings_have_a_map(shape: tuple[int, int]) -> None:
    """The report of the smallest data set would end with an error."""
    assert np.isfinite(map_embeddings(np.ones(shape, np.float32))).all()
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.isfinite(map_embeddings(values)).all()


def test_two_embeddings_have_no_map() -> None:
    """An error deep in a library would not say what to do."""
    with pytest.raises(ValueError, match=r"at least 3 embeddings\. Received: 2"):
        map_embeddings(np.ones((2, 4), np.float32))
