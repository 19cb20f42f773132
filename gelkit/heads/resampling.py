"""Resampling: bootstrap replicates of whole groups, each class keeping its number of groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

REPLICATES = 2000
_CELLS_AT_ONCE = 4_000_000


def group_sums(values: npt.NDArray[np.floating], groups: Integers) -> Floats:
    """Sum over the images of each group: (... x images) to (... x groups), by group number."""
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    sums: Floats = np.add.reduceat(values[..., order].astype(np.float64), starts, axis=-1)
    return sums


def group_sizes(groups: Integers) -> Floats:
    """Return the number of images in each group, (groups,), by group number."""
    return np.unique(groups, return_counts=True)[1].astype(np.float64)


def group_classes(targets: Integers, groups: Integers) -> Integers:
    """Return the class of each group, (groups,), by group number.

    :raises ValueError: images of one group have different targets.
    """
    _, firsts, inverse = np.unique(groups, return_index=True, return_inverse=True)
    classes = targets[firsts]
    mixed = np.flatnonzero(classes[inverse] != targets)
    if len(mixed):
        raise ValueError(
            "Expected one target for all images of a group. Received: two in group "
            f"{groups[mixed[0]]}. Give the group one label, or split it."
        )
    return classes


def draw_group_weights(
    classes: Integers, *, seed: int, replicates: int = REPLICATES
) -> Iterator[tuple[Integers, Floats]]:
    """Yield bootstrap replicates, some at a time: their numbers, and how often each group is in.

    Groups are drawn with replacement within their class.

    :param classes: the class of each group.
    :returns: pairs of (n,) and (n x groups); together all replicates, the same for the same seed.
    :raises ValueError: every class has one group: nothing can vary.
    """
    if len(np.unique(classes)) == len(classes):
        raise ValueError("Expected a class with 2 groups. Received: 1 in each. Add images.")
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(classes == number) for number in np.unique(classes)]
    step = max(1, _CELLS_AT_ONCE // len(classes))
    for start in range(0, replicates, step):
        numbers = np.arange(start, min(start + step, replicates))
        drawn = [m[generator.integers(len(m), size=(len(numbers), len(m)))] for m in members]
        cells = np.hstack(drawn) + len(classes) * np.arange(len(numbers))[:, np.newaxis]
        counts = np.bincount(cells.ravel(), minlength=len(numbers) * len(classes))
        yield numbers, counts.reshape(len(numbers), -1).astype(np.float64)


def replicate_errors(
    losses: npt.NDArray[np.floating],
    targets: Integers,
    groups: Integers,
    *,
    seed: int,
    replicates: int = REPLICATES,
) -> Floats:
    """Return how far each replicate's mean losses lie from the observed ones.

    Whole groups are drawn within their class, and one repeat for each replicate, in turn; means
    are weighted by image. The luck of a single split and fit stands in for that of the training
    images, which no resampling of predictions shows: without it, means of the repeats, equal heads
    differ far too often.

    :param losses: (configurations x repeats x images).
    :returns: (replicates x configurations).
    :raises ValueError: a group with two targets, or no class with 2 groups.
    """
    num_configurations, num_repeats, _ = losses.shape
    sums = group_sums(losses, groups).reshape(num_configurations * num_repeats, -1)
    sizes = group_sizes(groups)
    means = np.empty((replicates, num_configurations))
    for numbers, weights in draw_group_weights(
        group_classes(targets, groups), seed=seed, replicates=replicates
    ):
        totals = (weights @ sums.T).reshape(len(numbers), num_configurations, num_repeats)
        of_one_repeat = totals[np.arange(len(numbers)), :, numbers % num_repeats]
        means[numbers] = of_one_repeat / (weights @ sizes)[:, np.newaxis]
    errors: Floats = means - losses.mean(axis=(1, 2), dtype=np.float64)
    return errors
