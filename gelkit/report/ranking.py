"""The ranking: all configurations as rows of a page's table, the highest accuracy first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gelkit.heads.results import is_competing
from gelkit.report.numbers import fraction, interval, p_value, seconds

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column of the table; a row of :data:`COLUMNS`."""

    key: str
    """A column of the results."""
    title: str
    show: Callable[[Any], str] = str
    kind: str = "text"
    """``text`` or ``number``, which decides on which side it is set and how it is sorted first."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by."""

    text: str
    value: str


@dataclass(frozen=True)
class Row:
    """A configuration."""

    cells: Mapping[str, Cell]
    """By the column's key."""
    accuracy: float
    low: float
    high: float
    is_best: bool
    is_tied: bool

    @property
    def interval(self) -> str:
        """The accuracy's 95% interval, as text."""
        return interval(self.low, self.high)

    @property
    def sign(self) -> str:
        """A mark that does not rest on colour."""
        return "★" if self.is_best else "○" if self.is_tied else ""


@dataclass(frozen=True)
class Axis:
    """An axis that the table can be filtered by."""

    key: str
    title: str
    choices: tuple[str, ...]


_NUMBER = "number"

COLUMNS = (
    Column("model_id", "Id", kind=_NUMBER),
    Column("hardware_type", "Hardware"),
    Column("pretrained_model", "Backbone"),
    Column("classifier_head", "Head"),
    Column("opt_alg", "Optimizer"),
    Column("accuracy", "Accuracy", fraction, _NUMBER),
    Column("balanced_accuracy", "Balanced", fraction, _NUMBER),
    Column("roc_auc", "ROC AUC", fraction, _NUMBER),
    Column("brier", "Brier", fraction, _NUMBER),
    Column("tied_with_best", "Tied"),
    Column("training_time_secs", "Training", seconds, _NUMBER),
)
TEST_COLUMNS = (
    Column("test_accuracy", "Test accuracy", fraction, _NUMBER),
    Column("test_difference_p", "p of lagging", p_value, _NUMBER),
)
AXIS_TITLES = {
    "hardware_type": "Hardware",
    "pretrained_model": "Backbone",
    "classifier_head": "Head",
    "opt_alg": "Optimizer",
}


def choose_columns(results: pd.DataFrame) -> tuple[Column, ...]:
    """Return the columns to show: those of a test set only where one was evaluated."""
    tested = bool(results["test_accuracy"].notna().any())
    return COLUMNS + (TEST_COLUMNS if tested else ())


def rank_configurations(
    results: pd.DataFrame, columns: Sequence[Column], best: int
) -> tuple[Row, ...]:
    """Return a row for each configuration; of equal accuracy the best, then the higher area first.

    Rows with random weights come last where others have pretrained ones.

    :param best: the best one's id.
    """
    order = ["competes", "accuracy", "is_best", "roc_auc"]
    marked = results.assign(
        is_best=results["model_id"] == best, competes=is_competing(results["weights"])
    )
    ranked = marked.sort_values(order, ascending=False, kind="stable")
    return tuple(_row(its, columns) for its in ranked.to_dict("records"))


def list_axes(results: pd.DataFrame) -> tuple[Axis, ...]:
    """Return the axes on which the configurations differ."""
    axes = (
        Axis(key, title, tuple(dict.fromkeys(results[key]))) for key, title in AXIS_TITLES.items()
    )
    return tuple(axis for axis in axes if len(axis.choices) > 1)


def _row(its: Mapping[Any, Any], columns: Sequence[Column]) -> Row:
    return Row(
        cells={column.key: _cell(column, its[column.key]) for column in columns},
        accuracy=its["accuracy"],
        low=its["accuracy_low"],
        high=its["accuracy_high"],
        is_best=its["is_best"],
        is_tied=its["tied_with_best"] == "yes",
    )


def _cell(column: Column, value: Any) -> Cell:
    missing = value != value  # NaN, which sorts last
    return Cell(column.show(value), "" if missing else str(value))
