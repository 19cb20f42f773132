"""Results: what is written is read back as it was, and the columns stay where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.heads.results import COLUMNS, make_results, read_results, write_results

SEED_COLUMNS = [
    "model_id",
    "hardware_type",
    "pretrained_model",
    "classifier_head",
    "opt_alg",
    "training_time_secs",
    "inference_time_secs",
    "accuracy",
    "precision",
    "recall",
    "conf_mat",
    "roc_auc",
]

TEXTS = st.sampled_from(["001", "NA", "null", "nan", "None", ' a,b"c', "é", "line\nbreak", "1e5"])
VALUES = {
    "int": st.integers(-(2**62), 2**62),
    "count": st.integers(0, 2**62),
    "float": st.floats(allow_nan=False),
    "str": TEXTS
    | st.text()
    | st.tuples(st.sampled_from("=+-@'"), st.text()).map("".join)
    | st.binary().map(lambda data: data.decode(errors="surrogateescape")),
    "json": st.lists(TEXTS | st.text() | st.lists(st.floats(allow_nan=False))),
}


@st.composite
def _rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw rows that have some of the columns, those a run may leave empty or not."""
    rows = []
    for model_id in draw(st.lists(st.integers(1, 99), max_size=3, unique=True)):
        names = draw(st.lists(st.sampled_from(list(COLUMNS)[1:]), max_size=8, unique=True))
        cells = {name: draw(VALUES[COLUMNS[name]]) for name in names}
        rows.append({"model_id": model_id, **cells})
    return rows


@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(_rows())
def test_results_are_read_back_as_they_were(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """A class called 001 would become 1, NA nothing, and figures lose digits."""
    results = make_results(rows)
    write_results(results, tmp_path / "results.csv")
    again = read_results(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(again, results, check_exact=True)
    kept = {cells["model_id"]: cells for cells in rows}
    for _, row in again.iterrows():
        for name, value in kept[row["model_id"]].items():
            assert row[name] == value


def test_the_studys_columns_come_first() -> None:
    """Programs that read the study's table by position would read something else."""
    assert list(COLUMNS)[:12] == SEED_COLUMNS
    assert list(make_results([{"model_id": 1}]).columns) == list(COLUMNS)


def test_rows_are_sorted_by_id_and_what_is_lacking_is_empty(tmp_path: Path) -> None:
    """Empty figures would be read as zeros, or rows be in the order of finishing."""
    results = make_results([{"model_id": number} for number in (7, 24, 3)])
    write_results(results, tmp_path / "results.csv")
    again = read_results(tmp_path / "results.csv")
    assert list(again["model_id"]) == [3, 7, 24]
    assert again["test_accuracy"].isna().all()
    assert again["test_n_images"].isna().all()
    assert again["accuracy"].isna().all()
    assert list(again["classes"]) == [None, None, None]
    assert list(again["device"]) == ["", "", ""]


def test_class_names_stay_strings(tmp_path: Path) -> None:
    """The classes 001 and NA would be another pair afterwards."""
    classes = ["001", "NA", "null", ' a,b"c', "é"]
    row = {"model_id": 1, "classes": classes, "conf_mat": [[2.5, 0.0], [1.0, 3.0]]}
    write_results(make_results([row]), tmp_path / "results.csv")
    again = read_results(tmp_path / "results.csv").iloc[0]
    assert again["classes"] == classes
    assert again["conf_mat"] == [[2.5, 0.0], [1.0, 3.0]]


def test_whole_numbers_look_like_whole_numbers(tmp_path: Path) -> None:
    """A spreadsheet would show 20.0 test images, because another row has none."""
    rows = [{"model_id": 1, "test_n_images": 20, "n_images": 92}, {"model_id": 2}]
    write_results(make_results(rows), tmp_path / "results.csv")
    text = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False)
    assert list(text["test_n_images"]) == ["20", ""]
    assert list(text["n_images"]) == ["92", "0"]


def test_a_missing_file_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    """A user would see a FileNotFoundError."""
    with pytest.raises(UsageError, match=r"results\.csv', which does not exist.*gelkit heads"):
        read_results(tmp_path / "results.csv")


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"accuracy": "acc"})


def _short(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="device")


def _wider(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(note="mine")


def _reordered(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(table.columns[::-1])]


OTHER = {
    "renamed": (_renamed, "acc, accuracy"),
    "one missing": (_short, "device"),
    "one more": (_wider, "note"),
    "another order": (_reordered, "their order"),
}


@pytest.mark.parametrize("case", OTHER)
def test_other_columns_are_refused_and_named(case: str, tmp_path: Path) -> None:
    """A table of something else would be read as results."""
    change, named = OTHER[case]
    path = tmp_path / "results.csv"
    write_results(make_results([{"model_id": 1}]), path)
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
    with pytest.raises(UsageError, match=rf"Received others \({named}\)"):
        read_results(path)


def test_an_unknown_column_of_a_row_is_an_error() -> None:
    """A misspelt figure would vanish without a word."""
    with pytest.raises(ValueError, match="received acuracy, other"):
        make_results([{"model_id": 1, "acuracy": 0.5}, {"model_id": 2, "other": 1}])


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A full disk would leave half a table in place of the last results."""
    path = tmp_path / "results.csv"
    write_results(make_results([{"model_id": 1}]), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_results(make_results([{"model_id": 2, "classes": [object()]}]), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]
