"""Shift: what differs is found and named, and chance, copies and class proportions are no shift."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from scipy.stats import binomtest

from gelkit.errors import UsageError
from gelkit.heads import shift
from gelkit.heads.metrics import score
from gelkit.heads.shift import (
    EmbeddingShift,
    IntensityShift,
    Sample,
    embedding_shift,
    intensity_shift,
    overlap_sentences,
    score_without_overlap,
    shift_sentences,
)
from gelkit.images.likeness import INTENSITY_STATISTICS

WIDTH = len(INTENSITY_STATISTICS)


def _sample(
    seed: int,
    counts: tuple[int, int],
    *,
    moved: dict[int, float] | None = None,
    spread: float = 1.0,
    copies: int = 1,
    width: int = WIDTH,
) -> Sample:
    """Draw two classes that are far apart; groups hold ``copies`` images that are nearly equal.

    :param moved: by column, how many standard deviations further both classes lie.
    """
    generator = np.random.default_rng(seed)
    targets = np.repeat([0, 1], counts)
    values = spread * generator.normal(size=(len(targets), width)) + 5 * targets[:, np.newaxis]
    for column, distance in (moved or {}).items():
        values[:, column] += distance
    values = np.repeat(values, copies, axis=0)
    values += 0.01 * generator.normal(size=values.shape)
    groups = np.repeat(np.arange(len(targets)), copies)
    return Sample(values.astype(np.float32), np.repeat(targets, copies), groups)


def _embedding_p(training: Sample, test: Sample, seed: int) -> float:
    return embedding_shift(training, test, seed=seed).p


def _smallest_intensity_p(training: Sample, test: Sample, seed: int) -> float:
    return min(its.p for its in intensity_shift(training, test, seed=seed))


@pytest.mark.parametrize("copies", [1, 4], ids=["single images", "groups of four"])
@pytest.mark.parametrize("p_of", [_embedding_p, _smallest_intensity_p])
def test_chance_is_rarely_called_a_shift(
    p_of: Callable[[Sample, Sample, int], float], copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every twentieth user, and with near copies most, would mend a test set that is sound."""
    monkeypatch.setattr(shift, "PERMUTATIONS", 199)
    found = np.array(
        [
            p_of(
                _sample(2 * seed, (14, 16), copies=copies),
                _sample(2 * seed + 1, (9, 3), copies=copies),
                seed,
            )
            for seed in range(200)
        ]
    )
    for level in (0.05, 0.25, 0.5):
        interval = binomtest(int(np.sum(found <= level)), len(found)).proportion_ci(0.99)
        assert interval.low <= level <= interval.high


@pytest.mark.parametrize(
    "changed",
    [{"moved": dict.fromkeys(range(WIDTH), 1.0)}, {"spread": 2.0}, {"spread": 0.5}],
    ids=["moved", "wider", "narrower"],
)
def test_any_clear_difference_of_embeddings_is_found(changed: dict[str, Any]) -> None:
    """Test scores would be taken for an answer about the training data's kind of images."""
    test = _sample(1, (12, 12), **changed)
    found = embedding_shift(_sample(0, (35, 35)), test)
    assert found.p <= 0.005
    assert found.excess > 0.01


def test_more_columns_than_images_do_no_harm() -> None:
    """Embeddings have thousands of columns: every test set would look shifted, or none."""
    training = _sample(0, (35, 35), width=1500)
    assert embedding_shift(training, _sample(1, (12, 12), width=1500)).p > 0.05
    everywhere = dict.fromkeys(range(1500), 0.5)
    assert embedding_shift(training, _sample(1, (12, 12), width=1500, moved=everywhere)).p < 0.005


def test_the_share_is_the_energy_statistic_of_each_class() -> None:
    """The figure could not be compared with the literature."""
    training, test = _sample(0, (8, 9)), _sample(1, (4, 3), moved={0: 2.0})
    between = total = 0.0
    centred = []
    for number in (0, 1):
        one, other = (its.values[its.targets == number].astype(float) for its in (training, test))
        mean = np.concatenate([one, other]).mean(axis=0)
        centred.append((one - mean, other - mean))
    spread = np.concatenate([values for pair in centred for values in pair]).std(axis=0)
    for one, other in centred:
        across, within, within_other = (
            cdist(a / spread, b / spread).mean()
            for a, b in ((one, other), (one, one), (other, other))
        )
        n, m = len(one), len(other)
        between += n * m / (2 * (n + m)) * (2 * across - within - within_other)
        everything = np.concatenate([one, other]) / spread
        total += (n + m) / 2 * cdist(everything, everything).mean()
    assert embedding_shift(training, test).share == pytest.approx(between / total)


def test_other_proportions_of_the_classes_are_no_shift() -> None:
    """A balanced test set for unbalanced training data would be called shifted."""
    training, test = _sample(0, (50, 10)), _sample(1, (6, 30))
    assert embedding_shift(training, test).p > 0.05
    assert _smallest_intensity_p(training, test, 0) > 0.05


@settings(deadline=None)
@given(st.permutations(range(18)))
def test_the_order_of_images_does_not_matter(order: list[int]) -> None:
    """Sorting the files would change the answer."""
    training, test = _sample(0, (9, 9)), _sample(1, (4, 3), moved={0: 1.0})
    shuffled = Sample(*(its[order] for its in (training.values, training.targets, training.groups)))
    found, again = embedding_shift(training, test), embedding_shift(shuffled, test)
    assert again.share == pytest.approx(found.share)
    assert again.p == pytest.approx(found.p, abs=1e-9)


def test_the_same_sets_give_the_same_answer() -> None:
    """A second run would say something else."""
    training, test = _sample(0, (20, 20)), _sample(1, (8, 8), moved={0: 0.7})
    assert embedding_shift(training, test) == embedding_shift(training, test)
    assert intensity_shift(training, test) == intensity_shift(training, test)


def test_columns_that_never_change_say_nothing() -> None:
    """A statistic that is the same for all images, as is common, would end in NaN."""
    training, test = _sample(0, (9, 9)), _sample(1, (4, 4))
    for sample in (training, test):
        sample.values[:, 3] = 0.1
    found = intensity_shift(training, test)[3]
    assert (found.difference, found.p) == (0, 1)
    assert 0 <= embedding_shift(training, test).share < 0.5
    for sample in (training, test):
        sample.values[:] = 0.1
    assert (embedding_shift(training, test).share, embedding_shift(training, test).p) == (0, 1)


def test_a_large_data_set_is_compared_by_part_of_its_groups() -> None:
    """The distances of 20,000 images would need 3 GB."""
    training = _sample(0, (3000, 3000))
    test = _sample(1, (60, 60), moved=dict.fromkeys(range(WIDTH), 0.5))
    tracemalloc.start()
    assert embedding_shift(training, test).p <= 0.01
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    assert embedding_shift(training, _sample(1, (60, 60))).p > 0.05


def test_sets_without_a_common_class_are_refused() -> None:
    """Nothing would be compared, and no shift found."""
    training, test = _sample(0, (9, 0)), _sample(1, (0, 9))
    with pytest.raises(UsageError, match="a class that both"):
        embedding_shift(training, test)


def test_a_class_that_one_set_lacks_takes_no_part() -> None:
    """A test set of one class would be called shifted, or stop the evaluation."""
    test = _sample(1, (9, 0))
    found = embedding_shift(_sample(0, (15, 20)), test)
    assert found == embedding_shift(_first_class(_sample(0, (15, 20))), test)


def _first_class(sample: Sample) -> Sample:
    mine = sample.targets == 0
    return Sample(sample.values[mine], sample.targets[mine], sample.groups[mine])


def _named(name: str, by: float) -> dict[int, float]:
    return {INTENSITY_STATISTICS.index(name): by}


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (_named("mean", -2), "are darker (a large difference of 1.5"),
        (_named("mean", 2), "are brighter ("),
        (_named("std", -2), "are lower in contrast ("),
        (_named("std", 2), "are higher in contrast ("),
        (_named("fraction_at_1", 2), "are more often saturated ("),
        (_named("fraction_at_0", -2), "are less often clipped to black ("),
        (_named("percentile_5", 2), "are higher in percentile_5 ("),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shift_of_brightness_is_told_in_words(moved: dict[int, float], words: str) -> None:
    """The reader would know that something differs, but not what to look at."""
    training, test = _sample(0, (35, 35)), _sample(1, (12, 12), moved=moved)
    found = intensity_shift(training, test)
    assert {its.statistic for its in found if its.p <= 0.025} == {
        INTENSITY_STATISTICS[column] for column in moved
    }
    first, *_, last = shift_sentences(embedding_shift(training, test), found)
    assert words in first
    assert "than training images of the same class" in first
    assert "add some like it to the training data" in last


def test_percentiles_are_named_only_where_nothing_else_says_it() -> None:
    """The reader would have to read thirteen figures that all say "darker"."""
    names = ("mean", "std", "percentile_5", "percentile_95")
    moved = {INTENSITY_STATISTICS.index(name): -2.0 for name in names}
    training, test = _sample(0, (35, 35)), _sample(1, (12, 12), moved=moved)
    first, *_ = shift_sentences(embedding_shift(training, test), intensity_shift(training, test))
    assert "darker" in first
    assert "lower in contrast" in first
    assert "percentile" not in first


def _no_intensity() -> list[IntensityShift]:
    return [IntensityShift(name, 0.1, 0.9) for name in INTENSITY_STATISTICS]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (EmbeddingShift(0.3, 0.02, 0.001, 0.001), ["a large difference: 30.0% of", "A head may"]),
        (EmbeddingShift(0.1, 0.02, 0.02, 0.001), ["(p = 0.020; a medium diff", "A head may"]),
        (EmbeddingShift(0.025, 0.02, 0.001, 0.001), ["a very small difference", "A head may"]),
        (EmbeddingShift(0.03, 0.02, 0.03, 0.001), []),
        (EmbeddingShift(0.9, 0.5, 0.1, 0.1), ["cannot be told"]),
    ],
    ids=["large", "medium", "very small", "none", "too few groups"],
)
def test_a_shift_of_embeddings_is_told_with_its_size(
    found: EmbeddingShift, words: list[str]
) -> None:
    """A difference that hardly matters would be taken for one that does, or silence for proof."""
    sentences = shift_sentences(found, _no_intensity())
    assert len(sentences) == len(words)
    for sentence, its_words in zip(sentences, words, strict=True):
        assert its_words in sentence


def test_too_few_groups_are_known_for_it() -> None:
    """A test set of two images could never be found shifted, and would pass for sound."""
    far = dict.fromkeys(range(WIDTH), 9.0)
    found = embedding_shift(_sample(0, (5, 0)), _sample(1, (2, 0), moved=far, copies=9))
    assert found.least_p == pytest.approx(1 / 21)
    assert found.p == pytest.approx(1 / 21, abs=0.02)
    (sentence,) = shift_sentences(found, _no_intensity())
    assert "no p below 0.048 is possible" in sentence


@settings(deadline=None)
@given(arrays(np.bool_, 12), arrays(np.int64, 12, elements=st.integers(0, 1)))
def test_scores_without_overlap_are_those_of_the_other_images(
    overlapping: npt.NDArray[np.bool_], predicted: npt.NDArray[np.int64]
) -> None:
    """Memory of training images would count as skill."""
    targets = np.arange(12) % 2
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.75, 0.25).astype(np.float32)
    scores = score_without_overlap(targets, probabilities, overlapping)
    assert scores.overlapping == overlapping.sum()
    assert scores.everything.conf_mat == score(targets, probabilities).conf_mat
    if overlapping.all():
        assert scores.without is None
    else:
        assert scores.without is not None
        right = (predicted == targets)[~overlapping]
        assert scores.without.accuracy == pytest.approx(right.mean())
        assert np.sum(scores.without.conf_mat) == len(right)


@pytest.mark.parametrize(
    ("overlapping", "words"),
    [
        ([False] * 4, []),
        ([True, True, False, False], ["2 test images are", "0.75 with them, 0.50 without"]),
        ([True] * 4, ["Every test image is", "Use another test set"]),
    ],
    ids=["none", "some", "all"],
)
def test_an_overlap_is_told_with_the_score_to_quote(
    overlapping: list[bool], words: list[str]
) -> None:
    """The reader would quote a score that is memory in part."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    targets = np.array([0, 1, 0, 1])
    scores = score_without_overlap(targets, probabilities, np.array(overlapping))
    sentences = overlap_sentences(scores)
    assert len(sentences) == bool(words)
    assert all(word in sentences[0] for word in words)
