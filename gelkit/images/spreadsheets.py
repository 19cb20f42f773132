"""Spreadsheets: the tables that people save from them, read where there is one meaning."""

from __future__ import annotations

from gelkit.tables import UTF16_MARKS, rows_of_text

_DELIMITERS = (",", ";", "\t")


def readings(data: bytes) -> list[str]:
    """Return what a file's bytes may say as text, the likeliest first.

    UTF-8, or UTF-16 if the file says so. What is neither is text of Windows (cp1252), likeliest
    where semicolons or tabs separate cells, as Excel saves it in Western Europe; or it has names of
    files that are no text, whose bytes are kept.
    """
    if data.startswith(UTF16_MARKS):
        return [data.decode("utf-16")]
    kept = data.decode("utf-8-sig", errors="surrogateescape")
    try:
        return [kept.encode().decode()]
    except UnicodeEncodeError:
        pass
    try:
        of_windows = data.decode("cp1252")
    except UnicodeDecodeError:
        return [kept]
    first_line = kept.partition("\n")[0]
    from_excel = ";" in first_line or "\t" in first_line
    return [of_windows, kept] if from_excel else [kept, of_windows]


def read_rows(text: str, needed: str) -> list[tuple[int, list[str]]]:
    """Return the rows of a table with their line numbers, those without any entry left out.

    Cells are separated by commas, semicolons or tabs, whichever make the needed column one of the
    first line. The names of columns are read without white space and in small letters; columns on
    the right without name and entries are left out.

    :raises ValueError: it is no CSV.
    """
    first_line = text.partition("\n")[0]
    delimiter = next((its for its in _DELIMITERS if needed in _names(first_line.split(its))), ",")
    rows = rows_of_text(text, delimiter)
    if not rows:
        return []
    (line, columns), *others = [(line, row) for line, row in rows if any(map(str.strip, row))]
    columns = _names(columns)
    width = max((number for number, name in enumerate(columns, start=1) if name), default=0)
    return [(line, columns[:width]), *((line, _cut(row, width)) for line, row in others)]


def _names(cells: list[str]) -> list[str]:
    return [cell.strip().strip('"').strip().lower() for cell in cells]


def _cut(row: list[str], width: int) -> list[str]:
    return row if any(row[width:]) else row[:width]
