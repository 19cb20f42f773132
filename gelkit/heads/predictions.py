"""Predictions: the tables of what heads said of each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.tables import write_table

Columns = Mapping[str, Iterable[object]]
"""Columns of equal length by name."""


def predicted_columns(classes: Sequence[str], probabilities: npt.NDArray[np.float32]) -> Columns:
    """Return the class that each image is predicted as, and all probabilities.

    :param probabilities: (images x classes).
    """
    return {
        "predicted": [classes[number] for number in probabilities.argmax(axis=1)],
        **{f"probability_{name}": probabilities[:, n] for n, name in enumerate(classes)},
    }


def write_predictions(pieces: Sequence[Columns], path: Path) -> None:
    """Write pieces of one table below each other as CSV; a reader never sees half of it.

    :func:`gelkit.tables.read_table` reads all names back as they were.
    """
    rows = [zip(*columns.values(), strict=True) for columns in pieces]
    write_table(list(pieces[0]), chain.from_iterable(rows), path)
