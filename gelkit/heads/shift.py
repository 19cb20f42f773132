"""Shift: do the images of a test set look like the training images of the same class?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, prod

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.heads.metrics import Probabilities, Scores, Targets, score
from gelkit.images.likeness import INTENSITY_STATISTICS

PERMUTATIONS = 999
MAX_IMAGES = 1000
"""About how many images of each set are compared at most: each pair of a class has a distance."""
SIGNIFICANCE = 0.025
"""Of each of the two tests, so that of both together is 5%."""

Values = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sample:
    """The images of one set, training or test."""

    values: Values
    """(images x columns): embeddings, or intensity statistics."""
    targets: Targets
    """Class numbers, (images,), of the same classes in both sets."""
    groups: npt.NDArray[np.int64]
    """Images of one group are no independent draws, (images,)."""


@dataclass(frozen=True)
class EmbeddingShift:
    """Whether embeddings are distributed otherwise in the test set than in the training data."""

    share: float
    """The part of the spread within classes that lies between the two sets, 0 to 1."""
    expected_share: float
    """Its mean where nothing but chance decides which groups are the test set."""
    p: float
    least_p: float
    """The smallest p that so few groups allow."""

    @property
    def excess(self) -> float:
        """The share beyond the expected one, 0 to 1."""
        return max(0.0, self.share - self.expected_share)


@dataclass(frozen=True)
class IntensityShift:
    """Whether one statistic of brightness lies elsewhere in the test set."""

    statistic: str
    """One of :data:`gelkit.images.likeness.INTENSITY_STATISTICS`."""
    difference: float
    """Test minus training within classes, in standard deviations within classes."""
    p: float
    """Adjusted for looking at all the statistics."""


def embedding_shift(training: Sample, test: Sample, *, seed: int = 0) -> EmbeddingShift:
    """Test whether embeddings of one class differ between training data and test set.

    The statistic is the share of the energy distance components (DISCO: Rizzo and Szekely 2010,
    Annals of Applied Statistics 4, 1034) that lies between the sets, summed over the classes, with
    Euclidean distances between columns that are standardised within classes. It answers to any
    difference of distribution. p is by permutation of whole groups within each class, which is
    exact for any number of columns, and to which other proportions of the classes are no shift.
    Images that are in both sets make them alike: leave them out.

    :raises UsageError: no class has images in both sets.
    """
    blocks = _blocks(training, test, seed)
    distances = [_distances(block.values) for block in blocks]
    between = sum(map(_energy_between, distances, (block.marks for block in blocks)))
    total = sum(its.sum() / (2 * len(its)) for its in distances)
    shares = between / total if total else np.zeros(PERMUTATIONS + 1)
    return EmbeddingShift(
        share=float(shares[0]),
        expected_share=float(shares.mean()),
        p=_permutation_p(shares, shares[0]),
        least_p=1 / min(PERMUTATIONS + 1, prod(block.possible for block in blocks)),
    )


def intensity_shift(training: Sample, test: Sample, *, seed: int = 0) -> tuple[IntensityShift, ...]:
    """Test which statistics of brightness differ in their mean, images of one class compared.

    p is by permutation of whole groups within each class, and adjusted by the distribution of the
    largest difference of any statistic (Westfall and Young 1993, single-step maxT), which takes
    account of how they hang together.

    :param training: ``values`` as of :data:`INTENSITY_STATISTICS`, (images x 13).
    :returns: one for each statistic, in their order.
    :raises UsageError: no class has images in both sets.
    """
    differences = _mean_differences(_blocks(training, test, seed))
    largest = np.abs(differences).max(axis=1)
    return tuple(
        IntensityShift(name, float(value), _permutation_p(largest, abs(value)))
        for name, value in zip(INTENSITY_STATISTICS, differences[0], strict=True)
    )


@dataclass(frozen=True)
class OverlapScores:
    """Scores of a test set with and without the images that overlap with the training data."""

    everything: Scores
    without: Scores | None
    """None if every test image overlaps."""
    overlapping: int


def score_without_overlap(
    targets: Targets,
    probabilities: Probabilities,
    overlapping: npt.NDArray[np.bool_],
    positive: int | None = None,
) -> OverlapScores:
    """Score a test set with and without the images that overlap with the training data.

    :param targets: class numbers, (images,).
    :param probabilities: (images x classes).
    :param overlapping: which test images are, exactly or nearly, training images, (images,).
    :param positive: as of :func:`gelkit.heads.metrics.score_out_of_fold`.
    """
    own = ~overlapping
    return OverlapScores(
        everything=score(targets, probabilities, positive),
        without=score(targets[own], probabilities[own], positive) if own.any() else None,
        overlapping=int(overlapping.sum()),
    )


def shift_sentences(embedding: EmbeddingShift, intensity: Sequence[IntensityShift]) -> list[str]:
    """Say in which way the test set is shifted, if it is, and what to do."""
    if embedding.least_p > SIGNIFICANCE:
        return [
            "Whether the test set is shifted from the training data cannot be told: it has too few "
            f"groups (no p below {embedding.least_p:.3f} is possible). Add test images."
        ]
    found = [shift for shift in intensity if shift.p <= SIGNIFICANCE]
    sentences = [_intensity_sentence(found)] if found else []
    if embedding.p <= SIGNIFICANCE:
        sentences.append(_embedding_sentence(embedding))
    if sentences:
        sentences.append(
            "A head may do better or worse on this test set than cross-validation says. If the "
            "test set is like the images to come, add some like it to the training data; if the "
            "difference comes from how images were exported, export both in one way."
        )
    return sentences


def overlap_sentences(scores: OverlapScores) -> list[str]:
    """Say how much of a test set is training data, and which score to quote."""
    if not scores.overlapping:
        return []
    if scores.without is None:
        return [
            "Every test image is, exactly or nearly, a training image: the test scores say nothing "
            "of new images. Use another test set."
        ]
    return [
        f"{scores.overlapping} test images are, exactly or nearly, training images: accuracy "
        f"{scores.everything.accuracy:.2f} with them, {scores.without.accuracy:.2f} without. Quote "
        "the latter, and remove them from one of the two sets."
    ]


@dataclass(frozen=True)
class _Block:
    """The images of one class from both sets, training first."""

    values: npt.NDArray[np.float64]
    """(images x columns), less the class's mean, in standard deviations within classes."""
    marks: npt.NDArray[np.float64]
    """(arrangements x images): 1 for the test set, 0 for training; row 0 is how it is."""
    possible: int
    """How many arrangements of the class's groups there are."""


def _blocks(training: Sample, test: Sample, seed: int) -> list[_Block]:
    generator = np.random.default_rng(seed)
    shared = np.intersect1d(training.targets, test.targets)
    if not len(shared):
        raise UsageError(
            "Expected a class that both the training data and the test set have. Received: none. "
            "Name the classes alike in both."
        )
    most = MAX_IMAGES // len(shared)
    chosen = [[_choose(its, n, most, generator) for its in (training, test)] for n in shared]
    values = [
        np.concatenate([training.values[one], test.values[other]]).astype(np.float64)
        for one, other in chosen
    ]
    return [
        _Block(its_values, *_arrangements(training.groups[one], test.groups[other], generator))
        for its_values, (one, other) in zip(_standardized(values), chosen, strict=True)
    ]


def _choose(
    sample: Sample, number: int, most: int, generator: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Return the images of a class; if there are too many, those of groups drawn by chance."""
    mine = np.flatnonzero(sample.targets == number)
    _, units, sizes = np.unique(sample.groups[mine], return_inverse=True, return_counts=True)
    order = generator.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    return mine[np.isin(units, order[before < most])]


def _standardized(values: Sequence[npt.NDArray[np.float64]]) -> list[npt.NDArray[np.float64]]:
    """Subtract each class's mean, and divide by the standard deviation within classes."""
    centred = [its - its.mean(axis=0) for its in values]
    spread = np.concatenate(centred).std(axis=0)
    largest = np.max([np.abs(its).max(axis=0) for its in values], axis=0)
    spread[spread <= 1e-9 * largest] = np.inf  # constant, rounding apart
    return [its / spread for its in centred]


def _arrangements(
    training_groups: npt.NDArray[np.int64],
    test_groups: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> tuple[npt.NDArray[np.float64], int]:
    """Draw which groups might as well have been the test set, as many as there are."""
    training_names, training_units = np.unique(training_groups, return_inverse=True)
    test_names, test_units = np.unique(test_groups, return_inverse=True)
    units = np.concatenate([training_units, test_units + len(training_names)])
    actual = np.repeat([0.0, 1.0], [len(training_names), len(test_names)])
    drawn = generator.permuted(np.tile(actual, (PERMUTATIONS, 1)), axis=1)
    marks = np.vstack([actual, drawn])[:, units]
    return marks, comb(len(actual), len(test_names))


def _distances(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Euclidean distances, (images x images)."""
    products = values @ values.T
    squares = np.diag(products)
    distances = np.sqrt(np.maximum(squares[:, np.newaxis] + squares - 2 * products, 0))
    np.fill_diagonal(distances, 0)
    return distances


def _energy_between(
    distances: npt.NDArray[np.float64], marks: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the part of a class's spread that lies between the two sets, (arrangements,).

    The spread is the sum of all distances / (2 x images).
    """
    to_test = marks @ distances
    within_test = (to_test * marks).sum(axis=1)
    across = to_test.sum(axis=1) - within_test
    within_training = distances.sum() - 2 * across - within_test
    test = marks.sum(axis=1)
    training = len(distances) - test
    energy = 2 * across / (test * training) - within_test / test**2 - within_training / training**2
    part: npt.NDArray[np.float64] = test * training / (2 * len(distances)) * energy
    return part


def _mean_differences(blocks: Sequence[_Block]) -> npt.NDArray[np.float64]:
    """Return test minus training, (arrangements x columns); classes weigh as their variances bid.

    The weight of a class is training x test / all of its images.
    """
    sums, weights = np.zeros((1, 1)), np.zeros(PERMUTATIONS + 1)
    for block in blocks:
        count = len(block.values)
        test = block.marks.sum(axis=1)
        # the values of a class sum to 0, so test mean - training mean is test sum / weight
        sums = sums + block.marks @ block.values
        weights += test * (count - test) / count
    differences: npt.NDArray[np.float64] = sums / weights[:, np.newaxis]
    return differences


def _permutation_p(drawn: npt.NDArray[np.float64], actual: float) -> float:
    """Return the share of arrangements, the actual one among them, that are as extreme.

    What differs by rounding alone is equal.
    """
    return float(np.mean(drawn >= actual - 1e-9 * abs(actual)))


_DIRECTIONS = {
    "mean": ("darker", "brighter"),
    "std": ("lower in contrast", "higher in contrast"),
    "fraction_at_0": ("less often clipped to black", "more often clipped to black"),
    "fraction_at_1": ("less often saturated", "more often saturated"),
}
"""What it means that a statistic is lower in the test set, and that it is higher."""

_LARGE_SHARES = (0.01, 0.07, 0.13)
"""Bounds of small, medium and large: half of Cohen's (1988) for R2, .02, .13 and .26.

A shift of all columns alike has about half the energy share that it has of the squares.
"""

_LARGE_DIFFERENCES = (0.2, 0.5, 0.8)
"""Cohen's (1988) bounds of d."""


def _size(value: float, bounds: Sequence[float]) -> str:
    words = ("very small", "small", "medium", "large")
    return words[int(np.searchsorted(bounds, value, side="right"))]


def _embedding_sentence(shift: EmbeddingShift) -> str:
    return (
        "The embeddings of the test images differ from those of training images of the same class "
        f"(p = {shift.p:.3f}; a {_size(shift.excess, _LARGE_SHARES)} difference: {shift.share:.1%} "
        f"of the spread lies between the two sets, by chance {shift.expected_share:.1%})."
    )


def _intensity_sentence(found: Sequence[IntensityShift]) -> str:
    """Name the differences that have a word; percentiles only if there are no others."""
    worded = [shift for shift in found if shift.statistic in _DIRECTIONS] or found
    parts = ", ".join(_intensity_words(shift) for shift in worded)
    return f"The test images are {parts} than training images of the same class."


def _intensity_words(shift: IntensityShift) -> str:
    lower, higher = _DIRECTIONS.get(
        shift.statistic, (f"lower in {shift.statistic}", f"higher in {shift.statistic}")
    )
    return (
        f"{higher if shift.difference > 0 else lower} (a "
        f"{_size(abs(shift.difference), _LARGE_DIFFERENCES)} difference of "
        f"{abs(shift.difference):.1f} standard deviations, p = {shift.p:.3f})"
    )
