"""Predictions: read back as they were, whatever images and classes are called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from gelkit.heads.predictions import predicted_columns, write_predictions
from gelkit.tables import read_table

NAMES = (
    "a,b.png",
    os.fsdecode(b"gel\xe9.png"),
    "g\u00e9l.png",
    "NA",
    'a"b',
    "line\nbreak",
    "cr\rx",
    "=cmd|' -C calc'!A0",
    "-1",
    "'quoted'",
    "'=1",
    "\ttab",
    "nul\0",
    "\x1b[2J",
    "<b>",
)


def _read(path: Path) -> pd.DataFrame:
    columns, rows = read_table(path)
    return pd.DataFrame(rows, columns=pd.Index(columns, dtype=object), dtype=object)


def test_names_are_read_back_as_they_were(tmp_path: Path) -> None:
    """After all training, one file name that is no UTF-8 would cost the table."""
    pieces = [{"image": NAMES, "label": NAMES[::-1]}, {"image": NAMES[:2], "label": NAMES[:2]}]
    write_predictions(pieces, tmp_path / "predictions.csv")
    again = _read(tmp_path / "predictions.csv")
    assert tuple(again["image"]) == NAMES + NAMES[:2]
    assert tuple(again["label"]) == NAMES[::-1] + NAMES[:2]
    content = (tmp_path / "predictions.csv").read_bytes()
    assert b"gel\xe9.png" in content
    assert b"'=cmd" in content
    assert b"\n=cmd" not in content


def test_probabilities_are_read_back_to_the_last_digit(tmp_path: Path) -> None:
    """Figures computed again from the table would differ from those in the results."""
    probabilities = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    columns = predicted_columns(NAMES[:3], probabilities)
    write_predictions([columns], tmp_path / "predictions.csv")
    again = _read(tmp_path / "predictions.csv")
    assert list(again) == ["predicted", *(f"probability_{name}" for name in NAMES[:3])]
    assert np.array_equal(again.iloc[:, 1:].to_numpy().astype(np.float32), probabilities)
    assert list(again["predicted"]) == [NAMES[number] for number in probabilities.argmax(axis=1)]
