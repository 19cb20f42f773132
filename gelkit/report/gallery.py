"""The gallery: the images that tell most about the best head, and what lies near them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.heads.grouping import Groups
from gelkit.heads.metrics import Probabilities, Targets
from gelkit.report.contents import ComparedImages, Contents

EXHIBITS = 6
"""Of each kind."""
NEIGHBORS = 3


@dataclass(frozen=True)
class Neighbor:
    """An image that looks alike to the backbone."""

    position: int
    cosine: float


@dataclass(frozen=True)
class Exhibit:
    """An image, and what the best head says of it when it has not trained on it."""

    position: int
    label: int
    predicted: int
    probability_of_label: float
    probability_of_predicted: float
    """Means over the repeats."""
    neighbors: tuple[Neighbor, ...]
    """Of other groups, the nearest first; empty without embeddings."""


@dataclass(frozen=True)
class Wall:
    """Images that were chosen by one rule."""

    title: str
    rule: str
    exhibits: tuple[Exhibit, ...]


@dataclass(frozen=True)
class _Judged:
    """Predictions of the best, means over the repeats."""

    targets: Targets
    means: Probabilities
    """(images x classes)"""

    @property
    def predicted(self) -> npt.NDArray[np.intp]:
        predicted: npt.NDArray[np.intp] = self.means.argmax(axis=1)
        return predicted

    @property
    def of_label(self) -> npt.NDArray[np.floating]:
        of_label: npt.NDArray[np.floating] = self.means[np.arange(len(self.means)), self.targets]
        return of_label


@dataclass(frozen=True)
class _Rule:
    title: str
    text: str
    rank: Callable[[_Judged], npt.NDArray[np.floating]]
    """Gives each image a number, the smallest hangs first, infinity never."""


def _wrongness(judged: _Judged) -> npt.NDArray[np.floating]:
    return np.where(judged.predicted != judged.targets, judged.of_label, np.inf)


def _lead(judged: _Judged) -> npt.NDArray[np.floating]:
    ordered = np.sort(judged.means, axis=1)
    lead: npt.NDArray[np.floating] = ordered[:, -1] - ordered[:, -2]
    return lead


def _confidence(judged: _Judged) -> npt.NDArray[np.floating]:
    return np.where(judged.predicted == judged.targets, -judged.of_label, np.inf)


_RULES = (
    _Rule(
        "Most wrong",
        "Predicted as another class; the least probability of their own label first.",
        _wrongness,
    ),
    _Rule(
        "Most uncertain",
        "The smallest lead of the most probable class over the next, right or wrong.",
        _lead,
    ),
    _Rule("Most confident", "Right; the highest probability first.", _confidence),
)


def hang_gallery(contents: Contents) -> tuple[Wall, ...]:
    """Choose the images to show, of each group the first; empty without their predictions."""
    images, probabilities = contents.images, contents.probabilities
    if images is None or probabilities is None:
        return ()
    judged = _Judged(contents.targets, probabilities.mean(axis=0, dtype=np.float64))
    return tuple(
        Wall(
            rule.title,
            rule.text,
            tuple(
                _exhibit(position, judged, images, contents.embeddings)
                for position in _first_of_groups(rule.rank(judged), images.groups)
            ),
        )
        for rule in _RULES
    )


def nearest(
    position: int,
    embeddings: npt.NDArray[np.float32],
    groups: Groups,
    most: int = NEIGHBORS,
) -> tuple[Neighbor, ...]:
    """Return the images of other groups that are nearest to one by cosine.

    :param embeddings: (images x width); of a zero the cosine is 0.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64))
    products = embeddings @ embeddings[position]
    scales = np.maximum(lengths * lengths[position], np.finfo(np.float64).tiny)
    cosines = np.where(groups == groups[position], -np.inf, products / scales)
    ranked = np.argsort(-cosines, kind="stable")[:most]
    return tuple(Neighbor(int(i), float(cosines[i])) for i in ranked if np.isfinite(cosines[i]))


def list_copies(groups: Groups) -> tuple[tuple[int, ...], ...]:
    """Return the positions of each group of several images, the largest group first."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    several = [part for part in np.split(order, starts) if len(part) > 1]
    return tuple(tuple(part.tolist()) for part in sorted(several, key=len, reverse=True))


def _exhibit(
    position: int,
    judged: _Judged,
    images: ComparedImages,
    embeddings: npt.NDArray[np.float32] | None,
) -> Exhibit:
    predicted = int(judged.predicted[position])
    return Exhibit(
        position=position,
        label=int(judged.targets[position]),
        predicted=predicted,
        probability_of_label=float(judged.of_label[position]),
        probability_of_predicted=float(judged.means[position, predicted]),
        neighbors=() if embeddings is None else nearest(position, embeddings, images.groups),
    )


def _first_of_groups(ranks: npt.NDArray[np.floating], groups: Groups) -> Iterator[int]:
    """Yield the best ranked images, one of a group."""
    seen: set[int] = set()
    for position in np.argsort(ranks, kind="stable").tolist():
        if len(seen) == EXHIBITS or np.isinf(ranks[position]):
            return
        if int(groups[position]) not in seen:
            seen.add(int(groups[position]))
            yield position
