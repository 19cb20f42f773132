"""Tables: what is written is read back, and no cell is a formula."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gelkit.tables import (
    guarded,
    numbered_rows,
    parse_table,
    read_table,
    unguarded,
    write_frame,
    write_table,
)

NAMES = st.text(max_size=12)
BYTES = st.binary(max_size=12).map(lambda data: data.decode(errors="surrogateescape"))
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", *map(chr, (0xFF1D, 0xFF0B, 0xFF0D, 0xFF20)))
HARMFUL = st.lists(st.sampled_from([*FORMULAS, "'", "1"]), max_size=3).map("".join)
TEXTS = NAMES | BYTES | HARMFUL


@given(TEXTS)
def test_any_text_survives_its_cell(text: str) -> None:
    """A file or a class would change its name on the way through a table."""
    assert unguarded(guarded(text)) == text


@given(TEXTS)
def test_no_cell_is_a_formula(text: str) -> None:
    """A spreadsheet would run what somebody called a file."""
    assert not guarded(text).startswith(FORMULAS)


@given(TEXTS, TEXTS)
def test_different_texts_have_different_cells(one: str, other: str) -> None:
    """Two images would become one."""
    assert (guarded(one) == guarded(other)) == (one == other)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4))
def test_a_table_is_read_back_exactly(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    """Names with line ends, quotes, NUL or no UTF-8 would be lost or cut."""
    write_table(["path", "=label"], rows, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv") == (["path", "=label"], [list(row) for row in rows])


def test_numbers_stay_numbers_and_nothing_stays_empty(tmp_path: Path) -> None:
    """A spreadsheet could not compute with the figures: -0.5 is no formula."""
    frame = pd.DataFrame({"name": ["a", None], "value": [-0.5, float("nan")], "count": [1, 2]})
    write_frame(frame, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert list(csv.reader(lines)) == [
        ["name", "value", "count"],
        ["a", "-0.5", "1"],
        ["", "", "2"],
    ]
    read = pd.read_csv(tmp_path / "table.csv")
    assert read["value"].tolist()[0] == -0.5


def test_a_row_of_another_length_is_refused(tmp_path: Path) -> None:
    """A table cut off by a full disk would be read as if it were whole."""
    (tmp_path / "table.csv").write_text('a,b\n"1\n2",3\n\n1\n')
    with pytest.raises(ValueError, match="line 5: expected 2 cells, received 1"):
        read_table(tmp_path / "table.csv")


def test_a_cell_may_be_of_any_length(tmp_path: Path) -> None:
    """A table with one long reason in it would be written, and be unreadable ever after."""
    rows = [["x" * 1_000_000, "=" * 200_000]]
    write_table(["path", "error"], rows, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv") == (["path", "error"], rows)


UNREADABLE = {
    "nothing": (b"", "received nothing"),
    "empty lines": (b"\n\r\n", "received nothing"),
    "UTF-16": ("path,label\n".encode("utf-16"), "received UTF-16"),
    "a quote without end": (b'path,label\n1,2\n"3,4\n', "line 3: expected CSV"),
    "text after a quote": (b'path,label\n"1"2,3\n', "line 2: expected CSV"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_table_is_refused_with_the_line(case: str) -> None:
    """Half a table would be read as if it were whole, or nobody would find what is wrong."""
    data, reason = UNREADABLE[case]
    with pytest.raises(ValueError, match=reason):
        parse_table(data)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(end: str) -> None:
    """A table from another computer would be one long line, or errors name other lines."""
    data = end.join(["path,label", "", '"1', '.png",a', "2.png,b"]).encode()
    assert numbered_rows(data) == [
        (1, ["path", "label"]),
        (3, [f"1{end}.png", "a"]),
        (5, ["2.png", "b"]),
    ]
