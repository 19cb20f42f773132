"""Novelty: whether an image lies far from everything that a head was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.splits import derived_seed

Values = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.int64]

FAR = 0.05
"""The share of images like the training ones that may be called far."""

FOLDS = 5
_CELLS_AT_ONCE = 2**24
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Novelty:
    """From which distance on an image is far; see :func:`assess_novelty`."""

    usual: tuple[float, float]
    """The 95% quantiles of the training images' distances by angle (1 - cosine) and by length."""
    threshold: float
    """Of :meth:`distances`."""
    expected_false_alarms: float
    """The share of images like the training ones that are called far, by the rule."""
    measured_false_alarms: float
    """The same, measured on groups that were held out in turn, each counting as one; NaN where
    there are too few groups."""
    num_groups: int

    def distances(self, values: Values, known: Values) -> Floats:
        """Return how far images lie from the known ones, (images,), 1 being what is usual.

        :param values: embeddings, (images x width).
        :param known: those that the rule was made of, (known images x width).
        """
        return _relative(nearest(values, known), self.usual)


def nearest(
    values: Values, known: Values, groups: Groups | None = None, own: Groups | None = None
) -> Floats:
    """Return the distance of each image to the nearest known one, (2 x images).

    First by angle, 1 - cosine (0 to 2), then by length, Euclid's. Not always to the same image.

    :param values: embeddings, (images x width).
    :param groups: of the known images.
    :param own: the groups of the images; known images of these do not count.
    """
    lengths, its_lengths = (np.linalg.norm(its, axis=1) for its in (known, values))
    step = max(1, _CELLS_AT_ONCE // len(known))
    blocks = [np.zeros((2, 0))]
    for first in range(0, len(values), step):
        rows = slice(first, first + step)
        products = values[rows] @ known.T
        both = np.maximum(its_lengths[rows, np.newaxis] * lengths, _TINY)
        squares = its_lengths[rows, np.newaxis] ** 2 + lengths**2 - 2 * products
        by_both = np.stack([1 - products / both, np.sqrt(np.maximum(squares, 0))])
        if own is not None:
            by_both[:, own[rows, np.newaxis] == groups] = np.inf
        blocks.append(by_both.min(axis=2))
    return np.concatenate(blocks, axis=1)


def assess_novelty(known: Values, groups: Groups, *, seed: int = 0) -> tuple[Novelty, Flags]:
    """Find the distance beyond which an image is far, and how often that is a false alarm.

    The distance of an image is that to the nearest known one (Sun et al. 2022, arXiv:2204.06507,
    use neighbours likewise): by angle or by length of the difference of embeddings, each divided by
    what is usual, whichever is larger. Either alone overlooks much: noise often has a usual
    direction, an inverted gel a usual length. Each known image's distance to other groups shows
    what is usual, and the threshold is the split-conformal quantile of it (Lei et al. 2018,
    arXiv:1604.04173) at 95%, each group counting as one. With fewer than 19 groups it is the
    largest distance, and the rate of false alarms higher.

    :param known: embeddings, (images x width).
    :param groups: (images,); at least two.
    :param seed: of the folds.
    :returns: the rule, and which of the known images would be far were their group unknown.
    """
    between = nearest(known, known, groups, own=groups)
    usual, distances, threshold, expected = _fitted(between, groups)
    novelty = Novelty(
        usual=usual,
        threshold=threshold,
        expected_false_alarms=expected,
        measured_false_alarms=_false_alarms(known, groups, seed),
        num_groups=len(np.unique(groups)),
    )
    return novelty, distances > threshold


def _fitted(between: Floats, groups: Groups) -> tuple[tuple[float, float], Floats, float, float]:
    """Return what is usual, the distances relative to it, their threshold, and how many are far."""
    usual = (_quantile(between[0], groups)[0], _quantile(between[1], groups)[0])
    distances = _relative(between, usual)
    return usual, distances, *_quantile(distances, groups)


def _relative(distances: Floats, usual: tuple[float, float]) -> Floats:
    scales = np.maximum(usual, _TINY)[:, np.newaxis]
    return np.asarray((distances / scales).max(axis=0), dtype=np.float64)


def _quantile(distances: Floats, groups: Groups) -> tuple[float, float]:
    """Return the conformal quantile of the images' distances, and the share of new ones beyond."""
    _, positions, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(distances)
    within = np.cumsum(1 / sizes[positions[order]]) / (len(sizes) + 1)
    place = min(int(np.searchsorted(within, 1 - FAR - 1e-9)), len(order) - 1)
    return float(distances[order[place]]), float(1 - within[place])


def _false_alarms(known: Values, groups: Groups, seed: int) -> float:
    """Return the mean over groups of the share of images far from the other folds' groups."""
    numbers, positions = np.unique(groups, return_inverse=True)
    if len(numbers) < 2 * FOLDS:
        return float("nan")
    generator = np.random.default_rng(derived_seed(seed))
    folds = generator.permutation(np.arange(len(numbers)) % FOLDS)[positions]
    far = np.zeros(len(groups))
    for fold in range(FOLDS):
        others, held_out = folds != fold, folds == fold
        between = nearest(known[others], known[others], groups[others], own=groups[others])
        usual, _, threshold, _ = _fitted(between, groups[others])
        distances = _relative(nearest(known[held_out], known[others]), usual)
        far[held_out] = distances > threshold
    return float((np.bincount(positions, far) / np.bincount(positions)).mean())
