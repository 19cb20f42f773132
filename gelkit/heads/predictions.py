"""Predictions: the tables of what heads said of each image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.files import write_atomically

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

    Names that are no UTF-8 keep their bytes; pandas reads them with
    ``encoding_errors="surrogateescape"``.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(pieces[0])
    for columns in pieces:
        writer.writerows(zip(*columns.values(), strict=True))
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))
