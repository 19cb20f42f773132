"""results.csv: its columns, written whole and read back as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gelkit.errors import UsageError
from gelkit.tables import read_table, write_frame


@dataclass(frozen=True)
class _Kind:
    dtype: str
    empty: object
    parse: Callable[[str], Any]


_KINDS = {
    "int": _Kind("int64", 0, int),
    "count": _Kind("Int64", pd.NA, int),
    "float": _Kind("float64", float("nan"), float),
    "str": _Kind("object", "", str),
    "json": _Kind("object", None, json.loads),
}
"""Text is objects: pandas' own type refuses names that are no UTF-8 where pyarrow is installed."""

_BOUNDED = ("accuracy", "precision", "recall", "roc_auc", "f1", "balanced_accuracy", "brier")
"""Metrics that have an interval: ``<metric>_low`` and ``<metric>_high``."""

COLUMNS: Mapping[str, str] = {
    "model_id": "int",
    "hardware_type": "str",
    "pretrained_model": "str",
    "classifier_head": "str",
    "opt_alg": "str",
    "training_time_secs": "float",
    "inference_time_secs": "float",
    "accuracy": "float",
    "precision": "float",
    "recall": "float",
    "conf_mat": "json",
    "roc_auc": "float",
    "f1": "float",
    "balanced_accuracy": "float",
    "brier": "float",
    **{f"{metric}_{end}": "float" for metric in _BOUNDED for end in ("low", "high")},
    "calibration_slope": "float",
    "calibration_intercept": "float",
    "ece": "float",
    "ece_if_calibrated": "float",
    "tied_with_best": "str",
    "source_accuracy": "float",
    "worst_source_accuracy": "float",
    "worst_source": "str",
    "n_sources": "count",
    "head_parameters": "count",
    "n_images": "int",
    "n_groups": "int",
    "classes": "json",
    "positive": "str",
    "extraction_time_secs": "float",
    "device": "str",
    "weights": "str",
    "numeric_precision": "str",
    "seed": "int",
    "folds": "int",
    "repeats": "int",
    "dataset_fingerprint": "str",
    "splits_fingerprint": "str",
    "cache_fingerprint": "str",
    "gelkit_version": "str",
    **{f"test_{metric}": "float" for metric in _BOUNDED},
    **{f"test_{metric}_{end}": "float" for metric in _BOUNDED for end in ("low", "high")},
    **{f"test_{metric}_without_overlap": "float" for metric in _BOUNDED},
    "test_difference": "float",
    "test_difference_p": "float",
    "test_conf_mat": "json",
    "test_n_images": "count",
    "test_overlap": "count",
    "test_looks": "count",
    "test_fingerprint": "str",
}
"""The columns in their order, and what they hold; an empty cell says: not computed.

``int``, ``float``, ``str``, ``json`` for lists, or ``count`` for an integer that may be empty.
"""


def make_results(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Make a table of result rows, sorted by id; what a row lacks is empty.

    :raises ValueError: a row has a column of another name.
    """
    unknown = sorted({name for row in rows for name in row} - set(COLUMNS))
    if unknown:
        raise ValueError(f"expected columns of the results, received {', '.join(unknown)}")
    ordered = sorted(rows, key=lambda row: row["model_id"])
    return pd.DataFrame(
        {
            name: pd.Series(
                [row.get(name, _KINDS[kind].empty) for row in ordered],
                dtype=_KINDS[kind].dtype,
            )
            for name, kind in COLUMNS.items()
        }
    )


def is_competing(weights: Iterable[str]) -> list[bool]:
    """Tell which rows can be the best, by their weights.

    Rows with random weights compete only where all rows have them: beside pretrained weights they
    say nothing of transfer learning, and are no rivals.
    """
    pretrained = [name != "random" for name in weights]
    return pretrained if any(pretrained) else [True] * len(pretrained)


def write_results(results: pd.DataFrame, path: Path) -> None:
    """Write a table made by :func:`make_results`; a reader never sees half of it."""
    written = results.copy()
    for name in _columns_of("json"):
        written[name] = [_to_json(value) for value in results[name]]
    write_frame(written, path)


def read_results(path: str | Path) -> pd.DataFrame:
    """Read a results.csv: lists are lists, and classes the strings they are (``001``, ``NA``).

    :raises UsageError: there is no such file, it has other columns, or is damaged.
    """
    try:
        columns, rows = read_table(path)
    except FileNotFoundError as error:
        raise UsageError(
            f"Expected a results.csv. Received: {str(path)!r}, which does not exist. "
            "Make it with: gelkit heads DATA"
        ) from error
    except ValueError as error:
        raise _damaged(path, error) from error
    if columns != list(COLUMNS):
        differing = sorted(set(columns).symmetric_difference(COLUMNS)) or ["their order"]
        raise UsageError(
            f"Expected the columns of gelkit's results in {str(path)!r}. Received others "
            f"({', '.join(differing)}). Make it again with: gelkit heads DATA"
        )
    try:
        return make_results([_parsed(row) for row in rows])
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise _damaged(path, error) from error


def _parsed(row: Sequence[str]) -> dict[str, Any]:
    return {
        name: _KINDS[kind].parse(value)
        for (name, kind), value in zip(COLUMNS.items(), row, strict=True)
        if value != ""
    }


def _damaged(path: str | Path, error: Exception) -> UsageError:
    return UsageError(
        f"Expected a results.csv in {str(path)!r}. Received a damaged one: {error}. "
        "Make it again with: gelkit heads DATA"
    )


def _columns_of(kind: str) -> list[str]:
    return [name for name, its_kind in COLUMNS.items() if its_kind == kind]


def _to_json(value: object) -> str:
    return "" if value is None else json.dumps(value)
