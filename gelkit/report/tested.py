"""Tested: what the best scores on a test set, and what of it without what training has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gelkit.heads.intervals import accuracy_interval
from gelkit.report.numbers import interval

if TYPE_CHECKING:
    import pandas as pd

_METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
}


@dataclass(frozen=True)
class TestedMetric:
    """A metric of the best, cross-validated and on a test set."""

    title: str
    validated: float
    validated_interval: str
    tested: float
    tested_interval: str
    without_overlap: float


@dataclass(frozen=True)
class Tested:
    """What the best scores on a test set."""

    num_images: int
    overlap: int
    """So many of them are training images, or nearly."""
    looks: int
    metrics: tuple[TestedMetric, ...]
    quoted: str
    """A sentence with the figure to quote where there is overlap, else empty."""


def describe_test(results: pd.DataFrame, model_id: int) -> Tested | None:
    """Return what a configuration scores on the test set; None where none was evaluated."""
    row: Mapping[Any, Any] = results.set_index("model_id").loc[model_id].to_dict()
    if not row["test_fingerprint"]:
        return None
    return Tested(
        num_images=int(row["test_n_images"]),
        overlap=int(row["test_overlap"]),
        looks=int(row["test_looks"]),
        metrics=tuple(_metrics(row)),
        quoted=_quoted(row, model_id),
    )


def _metrics(row: Mapping[Any, Any]) -> Iterator[TestedMetric]:
    for metric, title in _METRICS.items():
        yield TestedMetric(
            title=title,
            validated=row[metric],
            validated_interval=interval(row[f"{metric}_low"], row[f"{metric}_high"]),
            tested=row[f"test_{metric}"],
            tested_interval=interval(row[f"test_{metric}_low"], row[f"test_{metric}_high"]),
            without_overlap=row[f"test_{metric}_without_overlap"],
        )


def _quoted(row: Mapping[Any, Any], model_id: int) -> str:
    """Say the accuracy without overlap, with Wilson's interval of that many images."""
    accuracy = row["test_accuracy_without_overlap"]
    if not row["test_overlap"] or accuracy != accuracy:  # every image overlaps
        return ""
    count = int(row["test_n_images"] - row["test_overlap"])
    images = np.arange(count)
    bounds = accuracy_interval((images < round(accuracy * count))[np.newaxis], images)
    return (
        f"To quote of the test set, without what training has seen: {model_id} has an accuracy of "
        f"{accuracy:.3f} on {count} image{'' if count == 1 else 's'} (95% interval "
        f"{interval(bounds.low, bounds.high)}, each image counted as one)."
    )
