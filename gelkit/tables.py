"""Tables: CSV files that a spreadsheet opens without harm, and that are read back exactly.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, which may
run programs; names of files and classes are other people's. Text cells that begin so get an
apostrophe in front, which spreadsheets take for "this is text", and which :func:`read_table` takes
off again. Names that are no UTF-8 keep their bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gelkit.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
_APOSTROPHE = "'"
_GUARDED = tuple(_APOSTROPHE + first for first in (*_FORMULAS, _APOSTROPHE))


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
    text = io.StringIO(data.decode("utf-8-sig", errors="surrogateescape"), newline="")
    try:
        columns, *rows = [[unguarded(cell) for cell in row] for row in csv.reader(text) if row]
    except csv.Error as error:
        raise ValueError(f"expected CSV, received {error}") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise ValueError(f"expected {len(columns)} cells in row {number}, received {len(row)}")
    return columns, rows


def _cell(value: object) -> object:
    if isinstance(value, str):
        return guarded(value)
    return "" if value is None or value != value else value
