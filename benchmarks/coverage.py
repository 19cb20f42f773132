"""Coverage of the intervals, and errors of the comparison, on simulated data of known truth.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --cells equal power --workers 2
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --quick --csv coverage.csv

Two classes are Gaussian clouds; images of a group share most of their deviation from the class
mean. Configurations are linear discriminants with a ridge, each on some of the dimensions: heads in
closed form, whose scores on all images that there could ever be follow from the normal
distribution. Splits, intervals and comparison are gelkit's own.

- intervals: of all metrics, for a configuration fixed beforehand, and of the winner's accuracy;
- equal: how often equally good configurations are told apart, and their winner's accuracy;
- power: how often configurations that lag behind a leader are left out;
- labels: what gelkit's own heads score, by Keras, where the labels mean nothing.

docs/coverage.md has the tables, and what they mean. The same seed gives the same tables, but for
what rounding in linear algebra may turn.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy.special import expit
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from gelkit.heads.confidence_sets import model_confidence_set
from gelkit.heads.intervals import Interval, accuracy_interval, intervals
from gelkit.heads.power import detectable_difference
from gelkit.heads.selection import corrected_score, hull
from gelkit.heads.splits import Folds, make_splits
from gelkit.heads.training import Job, Settings, train

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

IMAGES = (40, 100, 200, 400)
SHARES = (0.5, 0.3)
"""Of the second class."""
ACCURACIES = (0.6, 0.75, 0.9, 0.97)
"""What the effect sizes are set to give, where both classes are as frequent."""
EQUAL_ACCURACIES = (0.75, 0.9)
LEADS = (0.04, 0.08, 0.16)

FOLDS = 5
GROUP_SIZES = (1, 1, 2, 4)
"""Images of the groups of a class, in turn."""
ALIKE = 0.9
"""The correlation between the images of one group and class, in every dimension."""

DIMENSIONS = 24
RIDGES = (1.0, 0.1, 0.01, 10.0)
"""Added to a variance of 1."""
CONFIGURATIONS = 24
FIXED = 0
"""The configuration that is fixed beforehand."""
TWIN_ERROR = 1e-5
"""Relative: the difference between a device and its emulation."""

BATCH = 100
"""Data sets that share their splits, which know nothing of what is drawn."""
DETECTABLE = 10
"""Data sets whose detectable difference is asked for."""
PILOTS = 200
"""Data sets that effect sizes are set with."""
BISECTIONS = 12
QUICK = 400
STRATA = 200

LABEL_DATASETS = 24
LABEL_WIDTH = 64
LABEL_VIEWS = 3
"""Each sees half of the dimensions, as backbones see different things."""
HEADS_AND_OPTIMIZERS = tuple(product(("single", "multi"), ("adam", "sgd")))
TUNED = Settings(learning_rates=(1e-3, 1e-2), early_stopping=5)

METRICS = ("accuracy", "roc_auc", "brier", "precision", "f1", "balanced_accuracy")
"""Recall is the balanced accuracy, where every class is among the targets."""

NOMINAL = (0.93, 0.97)
"""The coverage of a 95% interval must not surely lie outside."""
FALSE_DIFFERENCES = (0.0, 0.05)
ANY_RATE = (0.0, 1.0)


@dataclass(frozen=True)
class Layout:
    """The images of a data set: how many there are, of which class and group."""

    images: int
    grouped: bool
    share: float
    """Of the second class."""

    @cached_property
    def targets(self) -> Integers:
        """The class of each image, (images,)."""
        return (np.arange(self.images) >= round(self.images * (1 - self.share))).astype(np.int64)

    @cached_property
    def groups(self) -> Integers:
        """The group of each image, (images,), numbered from 0."""
        if not self.grouped:
            return np.arange(self.images)
        starts = [_group_starts(int(count)) for count in np.bincount(self.targets)]
        return np.cumsum(np.concatenate(starts)) - 1

    @property
    def is_accepted(self) -> bool:
        """Whether gelkit would take it: two groups for each fold in either class."""
        classes = self.targets[np.unique(self.groups, return_index=True)[1]]
        return bool(np.bincount(classes).min() >= 2 * FOLDS)


def _group_starts(count: int) -> Integers:
    """Mark the first image of each group among so many of a class."""
    ends = np.cumsum(np.resize(GROUP_SIZES, count))
    starts = np.zeros(count, dtype=np.int64)
    starts[[0, *ends[ends < count]]] = 1
    return starts


@dataclass(frozen=True)
class World:
    """What data sets are drawn from, and the configurations that are trained on them."""

    signal: Floats
    """The distance between the class means, (dimensions,); the variance is 1."""
    views: Integers
    """The dimensions that each configuration sees, (configurations x seen)."""
    ridges: Floats
    """Of each configuration."""

    def only(self, configuration: int) -> World:
        """Return the same with one configuration."""
        its = slice(configuration, configuration + 1)
        return replace(self, views=self.views[its], ridges=self.ridges[its])


@dataclass(frozen=True)
class Heads:
    """Linear heads that give the log odds of the second class."""

    weights: Floats
    """(... x configurations x dimensions)."""
    biases: Floats
    """(... x configurations)."""


def unlike_world(strength: float) -> World:
    """Return three views, the first the best, with four ridges each."""
    signal = np.linspace(1, 0.5, DIMENSIONS)
    starts = np.repeat([0, DIMENSIONS // 4, DIMENSIONS // 2], len(RIDGES))
    return World(
        signal=strength * signal / np.linalg.norm(signal),
        views=starts[:, np.newaxis] + np.arange(DIMENSIONS // 2),
        ridges=np.tile(RIDGES, 3),
    )


def equal_world(
    strength: float, extra: float, configurations: int, generator: np.random.Generator
) -> World:
    """Return configurations that see halves of equally telling dimensions, drawn at random.

    One more dimension, the last, only the first configuration sees. It tells as much as each of the
    others, and ``extra``.
    """
    drawn = [generator.permutation(DIMENSIONS)[: DIMENSIONS // 2] for _ in range(configurations)]
    views = np.stack(drawn)
    views[0, -1] = DIMENSIONS
    signal = np.full(DIMENSIONS + 1, strength / DIMENSIONS**0.5)
    signal[-1] += extra
    return World(signal, views, np.full(configurations, RIDGES[0]))


def draw(layout: Layout, signal: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Draw the embeddings of data sets, (count x images x dimensions)."""
    shape = (count, layout.images, len(signal))
    noise = generator.standard_normal(shape)
    if layout.grouped:
        shared = generator.standard_normal((count, layout.groups.max() + 1, len(signal)))
        noise = ALIKE**0.5 * shared[:, layout.groups] + (1 - ALIKE) ** 0.5 * noise
    return noise + (layout.targets[:, np.newaxis] - 0.5) * signal


def fit(values: Floats, targets: Integers, world: World) -> Heads:
    """Train all configurations on each data set: discriminants with a ridge.

    :param values: (data sets x images x dimensions).
    :param targets: (images,).
    """
    means = [values[:, targets == number].mean(axis=1) for number in (0, 1)]
    centered = values - np.stack(means, axis=1)[:, targets]
    covariance = centered.transpose(0, 2, 1) @ centered / (len(targets) - 2)
    views, seen = world.views, world.views.shape[1]
    blocks = covariance[:, views[:, :, np.newaxis], views[:, np.newaxis]]
    blocks = blocks + world.ridges[:, np.newaxis, np.newaxis] * np.eye(seen)
    difference = (means[1] - means[0])[:, views]
    weights = np.zeros((len(values), len(views), values.shape[2]))
    its_weights = np.linalg.solve(blocks, difference[..., np.newaxis])[..., 0]
    np.put_along_axis(weights, np.broadcast_to(views, its_weights.shape), its_weights, axis=2)
    middle = (means[1] + means[0])[..., np.newaxis] / 2
    prior = np.log(targets.sum() / (targets == 0).sum())
    return Heads(weights, prior - (weights @ middle)[..., 0])


def cross_validate(values: Floats, targets: Integers, splits: Folds, world: World) -> Floats:
    """Return out-of-fold log odds, (data sets x configurations x repeats x images)."""
    odds = np.empty((len(values), len(world.views), *splits.shape))
    for repeat, fold in product(range(len(splits)), range(FOLDS)):
        held_out = splits[repeat] == fold
        heads = fit(values[:, ~held_out], targets[~held_out], world)
        its = heads.weights @ values[:, held_out].transpose(0, 2, 1)
        odds[:, :, repeat, held_out] = its + heads.biases[..., np.newaxis]
    return odds


@dataclass(frozen=True)
class Truth:
    """What heads score on all images of the two classes, (... x configurations)."""

    recalls: Floats
    """Of each class, (... x configurations x 2)."""
    roc_auc: Floats
    brier: Floats

    def mean(self) -> Truth:
        """Return the mean over all heads of each configuration."""
        return Truth(
            self.recalls.mean(axis=tuple(range(self.recalls.ndim - 2))),
            self.roc_auc.mean(axis=tuple(range(self.roc_auc.ndim - 1))),
            self.brier.mean(axis=tuple(range(self.brier.ndim - 1))),
        )

    def scores(self, share: float) -> Mapping[str, Floats]:
        """Return each of :data:`METRICS`; precision, recall and F1 are means over the classes."""
        frequencies = np.array([1 - share, share])
        right = frequencies * self.recalls
        predicted = right + (frequencies * (1 - self.recalls))[..., ::-1]
        return {
            "accuracy": right.sum(axis=-1),
            "roc_auc": self.roc_auc,
            "brier": self.brier,
            "precision": (right / predicted).mean(axis=-1),
            "f1": (2 * right / (predicted + frequencies)).mean(axis=-1),
            "balanced_accuracy": self.recalls.mean(axis=-1),
        }


def true_scores(heads: Heads, signal: Floats, share: float) -> Truth:
    """Return what heads score on all images of two classes."""
    spread = np.linalg.norm(heads.weights, axis=-1)
    reach = heads.weights @ signal / 2
    high, low = (heads.biases + reach) / spread, (heads.biases - reach) / spread
    strata = norm.ppf((np.arange(STRATA) + 0.5) / STRATA)
    errors = [
        (expit(sign * spread[..., np.newaxis] * (middle[..., np.newaxis] + strata)) ** 2).mean(-1)
        for sign, middle in ((1, low), (-1, high))
    ]
    return Truth(
        recalls=np.stack([norm.cdf(-low), norm.cdf(high)], axis=-1),
        roc_auc=norm.cdf(2 * reach / spread / 2**0.5),
        brier=np.stack(errors, axis=-1) @ np.array([1 - share, share]),
    )


@lru_cache(maxsize=64)
def splits_of(layout: Layout, number: int) -> Folds:
    """Return gelkit's own splits, (repeats x images)."""
    classes = ("first", "second")
    return make_splits(layout.targets, layout.groups, classes, folds=FOLDS, seed=number)


def expected_scores(
    layout: Layout, world: World, count: int, generator: np.random.Generator
) -> Mapping[str, Floats]:
    """Return the estimand: what heads of so many data sets score on average, (configurations,).

    The data sets are drawn for this alone. Each trains on 4/5 of its images, in five ways.
    """
    truths = [
        true_scores(heads, world.signal, layout.share).mean()
        for number in range(count // BATCH)
        for heads in _heads_of_folds(layout, world, splits_of(layout, number)[0], generator)
    ]
    parts = [[getattr(its, part.name) for its in truths] for part in fields(Truth)]
    return Truth(*map(np.stack, parts)).mean().scores(layout.share)


def _heads_of_folds(
    layout: Layout, world: World, folds: Integers, generator: np.random.Generator
) -> Iterator[Heads]:
    values = draw(layout, world.signal, BATCH, generator)
    for fold in range(FOLDS):
        yield fit(values[:, folds != fold], layout.targets[folds != fold], world)


@lru_cache(maxsize=64)
def unlike_strength(layout: Layout, accuracy: float) -> float:
    """Return the effect that gives the fixed configuration this accuracy."""
    return _bisect(lambda tried: _pilot(layout, unlike_world(tried), FIXED), accuracy)


@lru_cache(maxsize=64)
def equal_strengths(layout: Layout, accuracy: float, lead: float) -> tuple[float, float]:
    """Return the effect that gives all but the first this accuracy, and the first's extra."""

    def world(strength: float, extra: float) -> World:
        return equal_world(strength, extra, 2, np.random.default_rng(0))

    strength = _bisect(lambda tried: _pilot(layout, world(tried, 0), 1), accuracy)
    if not lead:
        return strength, 0.0
    extra = _bisect(lambda tried: _pilot(layout, world(strength, tried), 0), accuracy + lead)
    return strength, extra


def _pilot(layout: Layout, world: World, configuration: int) -> float:
    generator = np.random.default_rng(0)
    its = expected_scores(layout, world.only(configuration), PILOTS, generator)
    return float(its["accuracy"][0])


def _bisect(function: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 10.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return high


@dataclass(frozen=True)
class Cell:
    """One kind of data sets, and what is asked of them."""

    part: str
    layout: Layout
    accuracy: float
    """What the effect size is set to give."""
    lead: float = 0.0
    """Of the first configuration over the others."""
    twice: bool = False
    """12 configurations, each there twice but for rounding, instead of 24."""

    def generator(self, seed: int, purpose: int) -> np.random.Generator:
        """Return the cell's own random numbers, whatever runs beside it."""
        layout = self.layout
        numbers = (self.accuracy, self.lead, self.twice, layout.share, layout.grouped)
        place = [round(100 * number) for number in numbers]
        part = PARTS.index(self.part)
        return np.random.default_rng([seed, purpose, part, layout.images, *place])


@dataclass(frozen=True)
class Finding:
    """How often something held among the data sets of a cell, and what was seen on average."""

    cell: Cell
    figure: str
    datasets: int
    hits: int
    truth: float = float("nan")
    """What is to be covered."""
    estimate: float = float("nan")
    width: float = float("nan")
    """Of the intervals."""
    expected: tuple[float, float] = NOMINAL
    """Where the rate must not surely lie outside."""

    @property
    def rate(self) -> float:
        """Hits among data sets."""
        return self.hits / self.datasets

    @property
    def bounds(self) -> tuple[float, float]:
        """The exact 95% interval of the rate (Clopper, Pearson 1934)."""
        exact = binomtest(self.hits, self.datasets).proportion_ci(method="exact")
        return float(exact.low), float(exact.high)

    @property
    def verdict(self) -> str:
        """Say on which side of what it should be the rate surely is; empty if on neither."""
        (low, high), (least, most) = self.bounds, self.expected
        return "below" if high < least else "above" if low > most else ""


def covering(
    cell: Cell, figure: str, its: Sequence[Interval], truth: npt.ArrayLike, estimates: npt.ArrayLike
) -> Finding:
    """Count the intervals that hold the truth, one for all or each its own."""
    low, high = np.array([(each.low, each.high) for each in its]).T
    return Finding(
        cell,
        figure,
        datasets=len(its),
        hits=int(((low <= truth) & (truth <= high)).sum()),
        truth=float(np.asarray(truth).mean()),
        estimate=float(np.asarray(estimates).mean()),
        width=float((high - low).mean()),
    )


def run_intervals(cell: Cell, datasets: int, seed: int) -> list[Finding]:
    """Cover the truth of the fixed configuration by each metric's interval, and the winner's."""
    layout = cell.layout
    world = unlike_world(unlike_strength(replace(layout, share=SHARES[0]), cell.accuracy))
    truths = expected_scores(layout, world, datasets, cell.generator(seed, 0))
    generator = cell.generator(seed, 1)
    fixed: list[Mapping[str, Interval]] = []
    winners: list[Winner] = []
    for number in range(datasets // BATCH):
        values, splits = draw(layout, world.signal, BATCH, generator), splits_of(layout, number)
        odds = cross_validate(values, layout.targets, splits, world)
        probabilities = expit(np.stack([-odds[:, FIXED], odds[:, FIXED]], axis=-1))
        fixed += [intervals(layout.targets, its, splits, layout.groups) for its in probabilities]
        winners += [find_winner(its, layout) for its in _losses(odds, layout)]
    of_fixed = [
        covering(cell, metric, [its[metric] for its in fixed], truths[metric][FIXED], np.nan)
        for metric in METRICS
    ]
    return of_fixed + _of_winners(cell, winners, truths["accuracy"])


def run_equal(cell: Cell, datasets: int, seed: int) -> list[Finding]:
    """Count where any of equal configurations is left out, and cover the winner's truth."""
    left_out: list[Flags] = []
    winners: list[Winner] = []
    for odds in _equal_batches(cell, datasets, seed):
        losses = _losses(odds, cell.layout)
        left_out += [_left_out(its, cell.layout) for its in losses]
        winners += [find_winner(its, cell.layout) for its in losses]
    truth = _truth_of_others(cell, datasets, seed)
    of_winners = _of_winners(cell, winners, np.full(CONFIGURATIONS, truth))
    return [_told_apart(cell, left_out, truth), *of_winners]


def run_power(cell: Cell, datasets: int, seed: int) -> list[Finding]:
    """Count where any of the others, and where the leader, is left out; ask what would show."""
    left_out: list[Flags] = []
    for odds in _equal_batches(cell, datasets, seed):
        losses = _losses(odds, cell.layout)
        left_out += [_left_out(its, cell.layout) for its in losses]
    out = np.array(left_out)
    others, leader = out[:, 1:], out[:, 0]
    return [
        _counted(cell, "others", others.any(axis=1), float(others.mean()), ANY_RATE),
        _counted(cell, "leader", leader, float(leader.mean()), FALSE_DIFFERENCES),
        _detectable(cell, losses[:DETECTABLE]),
    ]


def _equal_batches(cell: Cell, datasets: int, seed: int) -> Iterator[Floats]:
    """Yield out-of-fold log odds, some data sets at a time."""
    layout, generator = cell.layout, cell.generator(seed, 1)
    strengths = equal_strengths(layout, cell.accuracy, cell.lead)
    for number in range(datasets // BATCH):
        world = equal_world(*strengths, CONFIGURATIONS // (1 + cell.twice), generator)
        values = draw(layout, world.signal, BATCH, generator)
        odds = cross_validate(values, layout.targets, splits_of(layout, number), world)
        if cell.twice:
            error = TWIN_ERROR * np.abs(odds).mean() * generator.standard_normal(odds.shape)
            odds = np.concatenate([odds, odds + error], axis=1)
        yield odds


def _truth_of_others(cell: Cell, datasets: int, seed: int) -> float:
    generator = cell.generator(seed, 0)
    strengths = equal_strengths(cell.layout, cell.accuracy, cell.lead)
    other = equal_world(*strengths, 2, generator).only(1)
    return float(expected_scores(cell.layout, other, datasets, generator)["accuracy"][0])


def _left_out(losses: Floats, layout: Layout) -> Flags:
    """Tell which configurations the model confidence set leaves out, (configurations,)."""
    members = model_confidence_set(losses, layout.targets, layout.groups).members
    return ~np.isin(np.arange(len(losses)), members)


def _told_apart(cell: Cell, left_out: Sequence[Flags], truth: float) -> Finding:
    return _counted(cell, "told apart", np.any(left_out, axis=1), truth, FALSE_DIFFERENCES)


def _detectable(cell: Cell, losses: Floats) -> Finding:
    """Count where gelkit says that the cell's lead would usually be seen; the median of leads."""
    layout = cell.layout
    leads = [detectable_difference(its, layout.targets, layout.groups) or 1.0 for its in losses]
    would = np.array(leads) <= cell.lead
    return _counted(cell, "detectable", would, float(np.median(leads)), ANY_RATE)


def _counted(
    cell: Cell, figure: str, held: npt.ArrayLike, estimate: float, expected: tuple[float, float]
) -> Finding:
    flags = np.asarray(held, dtype=np.bool_)
    hits = int(flags.sum())
    return Finding(cell, figure, len(flags), hits, estimate=estimate, expected=expected)


def _losses(odds: Floats, layout: Layout) -> Floats:
    """Return 1 for each wrong prediction, of the same shape."""
    wrong: Floats = ((odds > 0) != layout.targets).astype(np.float64)
    return wrong


@dataclass(frozen=True)
class Winner:
    """The configuration with the highest cross-validated accuracy of a data set."""

    chosen: int
    raw: float
    corrected: float
    raw_interval: Interval
    corrected_interval: Interval


def find_winner(losses: Floats, layout: Layout) -> Winner:
    """Choose as gelkit does.

    :param losses: (configurations x repeats x images).
    """
    scores = 1 - losses.mean(axis=(1, 2))
    chosen = int(scores.argmax())
    right = losses[chosen] == 0
    corrected = corrected_score(losses, layout.targets, layout.groups)
    return Winner(
        chosen=chosen,
        raw=float(scores[chosen]),
        corrected=corrected,
        raw_interval=accuracy_interval(right, layout.groups),
        corrected_interval=accuracy_interval(right, layout.groups, around=corrected),
    )


def _of_winners(cell: Cell, winners: Sequence[Winner], truths: Floats) -> list[Finding]:
    """Cover the truth of what was chosen, and what choosing gives on average.

    :param truths: of each configuration.
    """
    chosen = truths[[its.chosen for its in winners]]
    raw = [its.raw_interval for its in winners]
    corrected = [its.corrected_interval for its in winners]
    hulls = [hull(*pair) for pair in zip(raw, corrected, strict=True)]
    raw_scores = [its.raw for its in winners]
    corrected_scores = [its.corrected for its in winners]
    return [
        covering(cell, "raw", raw, chosen, raw_scores),
        covering(cell, "corrected", corrected, chosen, corrected_scores),
        covering(cell, "hull", hulls, chosen, corrected_scores),
        covering(cell, "choosing", hulls, chosen.mean(), corrected_scores),
    ]


def run_labels(cell: Cell, datasets: int, seed: int) -> list[Finding]:
    """Cover chance by the intervals of heads that Keras trained on labels without meaning.

    The images of a group are near copies under one label, so that what straddles a split would
    tell; learning rates and epochs are chosen by inner splits.
    """
    losses = [_label_losses(cell, number, seed) for number in range(min(datasets, LABEL_DATASETS))]
    winners = [find_winner(its, cell.layout) for its in losses]
    left_out = [_left_out(its, cell.layout) for its in losses]
    return [
        _told_apart(cell, left_out, 0.5),
        *_of_winners(cell, winners, np.full(len(losses[0]), 0.5)),
        *(
            _mean_accuracy(cell, name, values)
            for name, values in (
                ("all configurations", [1 - float(its.mean()) for its in losses]),
                ("winner, raw", [its.raw for its in winners]),
                ("winner, corrected", [its.corrected for its in winners]),
            )
        ),
    ]


def _mean_accuracy(cell: Cell, figure: str, values: Sequence[float]) -> Finding:
    """Return a mean over data sets with its own 95% interval, by t, as the width."""
    reach = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    found = _counted(cell, figure, np.array(values) > 0.5, float(np.mean(values)), ANY_RATE)
    return replace(found, width=2 * reach)


def _label_losses(cell: Cell, number: int, seed: int) -> Floats:
    """Train twelve configurations on one data set; return (configurations x repeats x images)."""
    layout, generator = cell.layout, cell.generator(seed, number)
    values = draw(layout, np.zeros(2 * LABEL_WIDTH), 1, generator)[0].astype(np.float32)
    views = [generator.permutation(2 * LABEL_WIDTH)[:LABEL_WIDTH] for _ in range(LABEL_VIEWS)]
    wrong = []
    for view, (head, optimizer) in product(views, HEADS_AND_OPTIMIZERS):
        job = Job(
            name=f"{head} {optimizer}",
            head=head,
            optimizer=optimizer,
            values=np.ascontiguousarray(values[:, view]),
            targets=layout.targets,
            num_classes=2,
            splits=splits_of(layout, number),
            settings=replace(TUNED, seed=number),
            groups=layout.groups,
        )
        wrong.append(train(job).probabilities.argmax(axis=2) != layout.targets)
    print(f"labels: data set {number + 1}", file=sys.stderr, flush=True)
    return np.array(wrong, dtype=np.float64)


RUNS: Mapping[str, Callable[[Cell, int, int], list[Finding]]] = {
    "intervals": run_intervals,
    "equal": run_equal,
    "power": run_power,
    "labels": run_labels,
}
PARTS = tuple(RUNS)


def all_cells() -> Iterator[Cell]:
    """Yield the cells of all parts, without those whose data gelkit would refuse."""
    for images, grouped, share in product(IMAGES, (False, True), SHARES):
        layout = Layout(images, grouped, share)
        if layout.is_accepted:
            yield from (Cell("intervals", layout, accuracy) for accuracy in ACCURACIES)
    for images, grouped in product(IMAGES, (False, True)):
        layout = Layout(images, grouped, SHARES[0])
        yield from (Cell("equal", layout, accuracy) for accuracy in EQUAL_ACCURACIES)
        yield Cell("equal", layout, EQUAL_ACCURACIES[0], twice=True)
        yield from (Cell("power", layout, EQUAL_ACCURACIES[0], lead=lead) for lead in LEADS)
    yield Cell("labels", Layout(IMAGES[0], True, SHARES[0]), 0.5)


Found = Mapping[str, Finding]
"""The findings of one cell, by figure."""
Columns = dict[str, Callable[[Found], str]]
"""A table's columns: titles, and what a cell's row says."""


def _place(found: Found) -> Cell:
    return next(iter(found.values())).cell


def _group_count(found: Found) -> str:
    layout = _place(found).layout
    return str(layout.groups.max() + 1) if layout.grouped else "-"


def _covered(figure: str) -> Callable[[Found], str]:
    """Say how often intervals held the truth, and how wide they are."""
    return lambda found: f"{_rate(found[figure])}, {_fraction(found[figure].width)}"


def _covered_truth(figure: str) -> Callable[[Found], str]:
    return lambda found: f"{_fraction(found[figure].truth)}: {_covered(figure)(found)}"


def _mean_and_reach(figure: str) -> Callable[[Found], str]:
    return lambda found: (
        f"{_fraction(found[figure].estimate)} ± {_fraction(found[figure].width / 2)}"
    )


def _rate(finding: Finding) -> str:
    """Return the rate in percent with its exact interval; what fails is bold, and says how."""
    low, high = finding.bounds
    text = f"{100 * finding.rate:.1f} ({100 * low:.1f}-{100 * high:.1f})"
    return f"**{text} {finding.verdict}**" if finding.verdict else text


def _fraction(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


PLACE: Columns = {
    "images": lambda found: str(_place(found).layout.images),
    "groups": _group_count,
    "second class": lambda found: f"{_place(found).layout.share:.0%}",
}
WINNER: Columns = {
    "truth": lambda found: _fraction(found["raw"].truth),
    "raw": lambda found: _fraction(found["raw"].estimate),
    "corrected": lambda found: _fraction(found["corrected"].estimate),
    "raw interval": _covered("raw"),
    "corrected interval": _covered("corrected"),
    "hull": _covered("hull"),
    "hull, truth of choosing": _covered("choosing"),
}
EQUAL: Columns = {
    "configurations": lambda found: "12 twice" if _place(found).twice else str(CONFIGURATIONS),
    **PLACE,
}
LABEL_MEANS = ("all configurations", "winner, raw", "winner, corrected")

TABLES: Sequence[tuple[str, str, Columns]] = (
    (
        "A configuration fixed beforehand",
        "intervals",
        PLACE | {metric: _covered_truth(metric) for metric in METRICS[:3]},
    ),
    (
        "The same, metrics of the classes",
        "intervals",
        PLACE | {metric: _covered_truth(metric) for metric in METRICS[3:]},
    ),
    ("The winner of 12 configurations that differ", "intervals", PLACE | WINNER),
    (
        "Equal configurations",
        "equal",
        EQUAL
        | {
            "accuracy": lambda found: _fraction(found["told apart"].estimate),
            "told apart": lambda found: _rate(found["told apart"]),
        },
    ),
    ("The winner of equal configurations", "equal", EQUAL | WINNER),
    (
        "Power",
        "power",
        PLACE
        | {
            "lead": lambda found: f"{_place(found).lead:.0%}",
            "of the others left out": lambda found: f"{found['others'].estimate:.0%}",
            "any left out": lambda found: _rate(found["others"]),
            "leader left out": lambda found: _rate(found["leader"]),
            "detectable, says gelkit": lambda found: f"{found['detectable'].estimate:.0%}",
        },
    ),
    (
        "Labels without meaning",
        "labels",
        PLACE
        | {name: _mean_and_reach(name) for name in LABEL_MEANS}
        | {"hull covers": _covered("hull"), "told apart": lambda found: _rate(found["told apart"])},
    ),
)
"""Title, part and columns."""


def report(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of all tables, in Markdown."""
    by_cell: dict[Cell, dict[str, Finding]] = {}
    for finding in findings:
        by_cell.setdefault(finding.cell, {})[finding.figure] = finding
    yield from _table("Summary", SUMMARY, summary(findings))
    for title, part, columns in TABLES:
        its = [found for cell, found in by_cell.items() if cell.part == part]
        if its:
            rows = ([show(found) for show in columns.values()] for found in its)
            yield from _table(title, list(columns), rows)


SUMMARY = ("part", "figure", "cells", "hold", "below", "above", "lowest", "median", "highest")


def summary(findings: Sequence[Finding]) -> Iterator[list[str]]:
    """Yield, for each figure, the counts of verdicts and the extremes of the rates."""
    judged: dict[tuple[str, str], list[Finding]] = {}
    for its in findings:
        if its.expected != ANY_RATE and its.cell.part != "labels":
            judged.setdefault((its.cell.part, its.figure), []).append(its)
    for place, cells in judged.items():
        verdicts = [its.verdict for its in cells]
        counts = [str(verdicts.count(verdict)) for verdict in ("", "below", "above")]
        rates = np.percentile([its.rate for its in cells], [0, 50, 100])
        yield [*place, str(len(cells)), *counts, *(f"{rate:.1%}" for rate in rates)]


def _table(title: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from (f"### {title}", "")
    for line in (titles, ["--:"] * len(titles), *rows):
        yield f"| {' | '.join(line)} |"
    yield ""


def write_csv(findings: Sequence[Finding], path: Path) -> None:
    """Write every finding, a row for each."""
    rows = [
        {
            **{part.name: getattr(its.cell, part.name) for part in fields(Cell)},
            **{part.name: getattr(its.cell.layout, part.name) for part in fields(Layout)},
            **{part.name: getattr(its, part.name) for part in fields(Finding)},
            "low": its.bounds[0],
            "high": its.bounds[1],
            "verdict": its.verdict,
        }
        for its in findings
    ]
    names = [name for name in rows[0] if name not in ("cell", "layout", "expected")]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def run_cell(cell: Cell, datasets: int, seed: int) -> list[Finding]:
    """Run one cell and say so."""
    findings = RUNS[cell.part](cell, datasets, seed)
    said = ", ".join(f"{its.figure} {_rate(its)}" for its in findings)
    print(f"{cell.part}, {cell.layout}: {said}", file=sys.stderr, flush=True)
    return findings


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", type=int, default=2000, help="a cell, in hundreds [2000]")
    parser.add_argument("--cells", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="[0]")
    parser.add_argument("--workers", type=int, default=1, help="processes [1]")
    parser.add_argument("--quick", action="store_true", help="40 images, 400 data sets, no labels")
    parser.add_argument("--csv", type=Path, help="write every figure to this file")
    return parser.parse_args()


def main() -> None:
    """Run the cells, print the tables."""
    options = parse_options()
    cells = [cell for cell in all_cells() if cell.part in options.cells]
    datasets = max(1, options.datasets // BATCH) * BATCH
    if options.quick:
        cells = [its for its in cells if its.layout.images == IMAGES[0] and its.part != "labels"]
        datasets = QUICK
    longest_first = sorted(cells, key=lambda cell: (cell.part != "labels", -cell.layout.images))
    run = Parallel(n_jobs=options.workers, backend="multiprocessing")  # others pickle this script
    found = run(delayed(run_cell)(cell, datasets, options.seed) for cell in longest_first)
    by_cell = dict(zip(longest_first, found, strict=True))
    findings = [finding for cell in cells for finding in by_cell[cell]]
    print(f"{datasets} data sets a cell, seed {options.seed}\n")
    print("\n".join(report(findings)))
    if options.csv:
        write_csv(findings, options.csv)


if __name__ == "__main__":
    main()
