"""Every category of file: it becomes the picture that it shows, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gelkit.images.formats import ImageError, decode

for _package in ("imagecodecs", "pillow_heif"):
    pytest.importorskip(_package, reason="some of the files need the extra 'formats'")

from tests.images.categories import Row, as_markdown, difference, rows  # noqa: E402

ROWS = list(rows())
DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"


def _name(row: Row) -> str:
    return f"{row.category}, {row.made}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.expected is not None], ids=_name)
def test_a_file_becomes_the_picture_that_it_shows(row: Row) -> None:
    """A gel would be embedded white, turned, inverted or cut to fewer bits."""
    assert difference(row, decode(row.data, row.options)) <= row.tolerance


@pytest.mark.parametrize("row", [row for row in ROWS if row.expected is None], ids=_name)
def test_what_has_no_true_picture_is_refused(row: Row) -> None:
    """A wrong picture would be embedded without a word."""
    with pytest.raises(ImageError):
        decode(row.data, row.options)


def test_the_documentation_tells_what_comes_out() -> None:
    """The table would promise what gelkit no longer does."""
    assert as_markdown() in DOCUMENT.read_text()
