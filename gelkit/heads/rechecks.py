"""Rechecks: images whose label the heads doubt, so that a person may look at them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.heads.metrics import Probabilities, Targets
from gelkit.tables import write_table

RECHECK_COLUMNS = (
    "path",
    "sha256",
    "label",
    "suggested",
    "probability_of_label",
    "probability_of_suggested",
    "disagreeing",
)

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Recheck:
    """An image that looks more like another class than the one that it is filed under."""

    position: int
    """Among the images."""
    label: int
    suggested: int
    """Class numbers."""
    probability_of_label: float
    probability_of_suggested: float
    """Means over the predictions that were asked."""
    disagreeing: float
    """The share of those predictions that name another class than the label."""


def find_rechecks(targets: Targets, probabilities: Probabilities) -> tuple[Recheck, ...]:
    """Find images that are likely mislabelled, by confident learning, the least likely label first.

    A class is confidently predicted where its probability reaches the mean that it has among the
    images of that label. An image is doubted if the most probable of its confident classes is not
    its label: what lies off the diagonal of the confident joint (Northcutt, Jiang, Chuang 2021,
    doi:10.1613/jair.1.12125). The probabilities are means over all predictions that are given, and
    out of fold, so that no head has learnt the label that it is asked about.

    :param targets: class numbers, (images,); each class has an image.
    :param probabilities: out of fold, of the best configuration and those tied with it,
        (configurations x repeats x images x classes).
    """
    means = probabilities.mean(axis=(0, 1), dtype=np.float64)
    disagreeing = (probabilities.argmax(axis=-1) != targets).mean(axis=(0, 1))
    suggested = _confident_classes(targets, means)
    doubted = np.flatnonzero((suggested >= 0) & (suggested != targets))
    found = [
        Recheck(
            position=int(i),
            label=int(targets[i]),
            suggested=int(suggested[i]),
            probability_of_label=float(means[i, targets[i]]),
            probability_of_suggested=float(means[i, suggested[i]]),
            disagreeing=float(disagreeing[i]),
        )
        for i in doubted
    ]
    return tuple(sorted(found, key=lambda its: its.probability_of_label))


def write_rechecks(
    rechecks: Sequence[Recheck],
    paths: Sequence[str],
    sha256s: Sequence[str],
    classes: Sequence[str],
    path: Path,
) -> None:
    """Write which images to recheck as CSV; a reader never sees half of it.

    :param paths: of all images, like ``sha256s``.
    """
    rows = [
        (
            paths[its.position],
            sha256s[its.position],
            classes[its.label],
            classes[its.suggested],
            its.probability_of_label,
            its.probability_of_suggested,
            its.disagreeing,
        )
        for its in rechecks
    ]
    write_table(RECHECK_COLUMNS, rows, path)


def _confident_classes(targets: Targets, means: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the most probable of each image's confident classes, -1 without any, (images,)."""
    own = means[np.arange(len(targets)), targets]
    thresholds = np.bincount(targets, own) / np.bincount(targets)
    confident = means >= thresholds - _ROUNDING
    best = np.where(confident, means, -1).argmax(axis=1)
    return np.where(confident.any(axis=1), best, -1)
