"""Tables: CSV files that a spreadsheet opens without harm, and that are read back exactly.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@``, also in full width, for a
formula, which may run programs; names of files and classes are other people's. Text cells that
begin so get an apostrophe in front, which spreadsheets take for "this is text", and which
:func:`read_table` takes off again. Names that are no UTF-8 keep their bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gelkit.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n")
_APOSTROPHE = "'"
_GUARDED = tuple(_APOSTROPHE + first for first in (*_FORMULAS, _APOSTROPHE))
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def guarded(text: str) -> str:
    """Return the cell of a text: no formula, and not like the cell of any other text."""
    return _APOSTROPHE + text if text.startswith(_FORMULAS + _GUARDED) else text


def unguarded(cell: str) -> str:
    """Return the text that :func:`guarded` made a cell of; any other cell is its own text."""
    return cell[1:] if cell.startswith(_GUARDED) else cell


def table_bytes(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Return a table as CSV (RFC 4180).

    :param rows: text, numbers, and None or NaN for an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name in columns])
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue().encode(errors="surrogateescape")


def write_table(columns: Sequence[str], rows: Iterable[Iterable[object]], path: Path) -> None:
    """Write what :func:`table_bytes` makes of a table; a reader never sees half of it.

    :raises OSError: the disk refused.
    """
    write_atomically(path, table_bytes(columns, rows))


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a pandas frame, without its index, as :func:`write_table` does."""
    cells = frame.astype(object).where(frame.notna(), None)
    write_table(list(frame.columns), cells.itertuples(index=False, name=None), path)


def read_table(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Read the columns and the rows of a CSV file, as text.

    :raises OSError: it cannot be read.
    :raises ValueError: it is no CSV, or a row has more or fewer cells than there are columns.
    """
    return parse_table(Path(path).read_bytes())


def parse_table(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of a CSV file's bytes, as text.

    :raises ValueError: it is no CSV, or a row has more or fewer cells than there are columns.
    """
    rows = numbered_rows(data)
    if not rows:
        raise ValueError("expected a table, received nothing")
    (_, columns), *others = rows
    for line, row in others:
        if len(row) != len(columns):
            raise ValueError(f"line {line}: expected {len(columns)} cells, received {len(row)}")
    first, *cells = ([unguarded(cell) for cell in row] for _, row in rows)
    return first, cells


def numbered_rows(data: bytes) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV file's bytes, their cells as written, with their line numbers.

    Lines may end as on any system; empty ones are left out. Bytes that are no UTF-8 are kept.

    :returns: for each row the number of its first line, from 1, and its cells.
    :raises ValueError: it is no CSV, or UTF-16.
    """
    if data.startswith(UTF16_MARKS):
        raise ValueError("expected UTF-8, received UTF-16")
    return rows_of_text(data.decode("utf-8-sig", errors="surrogateescape"))


def rows_of_text(text: str, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Return the rows of CSV, as :func:`numbered_rows` does.

    :raises ValueError: it is no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows, line = [], 1
    with _cells_up_to(len(text)):
        try:
            for row in reader:
                rows.append((line, row))
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"line {line}: expected CSV, received {error}") from error
    return [(line, row) for line, row in rows if row]


@contextmanager
def _cells_up_to(length: int) -> Iterator[None]:
    """Have cells of such a length read, too: what was written must not be too long to be read."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, length))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _cell(value: object) -> object:
    if isinstance(value, str):
        return guarded(value)
    return "" if value is None or value != value else value
