"""Contributions: what each axis of the configurations adds, in accuracy and in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gelkit.heads.contrasts import AssessedContrast
from gelkit.report.numbers import MINUS, interval, points
from gelkit.report.plots.contributions import reach

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Difference:
    """A mean difference of accuracy along an axis, as a fraction, with its 95% interval."""

    axis: str
    names: str
    """Such as ``multi - single``, with a real minus sign."""
    difference: float
    low: float
    high: float
    """NaN where the differences' spread cannot be told from t."""
    p_value: float
    """Adjusted for all that are shown together."""

    @property
    def interval(self) -> str:
        """The interval in points, as text."""
        return interval(self.low, self.high, points)


@dataclass(frozen=True)
class Times:
    """What one backbone took on one hardware type, in seconds."""

    hardware: str
    backbone: str
    device: str
    extraction: float
    images_per_second: float
    training: float
    """The mean over configurations."""


def describe_difference(contrast: AssessedContrast, num_scores: int) -> Difference:
    """Give a contrast the interval that belongs to its test.

    :param num_scores: folds times repeats.
    """
    axis, _, names = contrast.name.partition(": ")
    half = reach(contrast, num_scores - 1)
    return Difference(
        axis=axis,
        names=names.replace(" - ", f" {MINUS} "),
        difference=contrast.difference,
        low=contrast.difference - half,
        high=contrast.difference + half,
        p_value=contrast.adjusted_p_value,
    )


def list_times(results: pd.DataFrame) -> Iterator[Times]:
    """Yield the times of each hardware type and backbone, in the results' order."""
    for (hardware, backbone), rows in results.groupby(
        ["hardware_type", "pretrained_model"], sort=False
    ):
        first = rows.iloc[0]
        secs = float(first["extraction_time_secs"])
        yield Times(
            hardware=str(hardware),
            backbone=str(backbone),
            device=str(first["device"]),
            extraction=secs,
            images_per_second=float(first["n_images"]) / secs if secs > 0 else float("nan"),
            training=float(rows["training_time_secs"].mean()),
        )
