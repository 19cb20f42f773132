"""Spreadsheets: manifests as Excel and its like save them say what they say as plain CSV."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from gelkit.errors import UsageError
from gelkit.images.catalog import Catalog, read_catalog

PLAIN = "path,label,source\ngele/grün.png,Färbung,Zürich\ngele/b.png,keine,Köln\n"

SAVED: dict[str, bytes] = {
    "CSV UTF-8": PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs, UTF-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "semicolons, of Windows": PLAIN.replace(",", ";").replace("\n", "\r\n").encode("cp1252"),
    "backslashes": PLAIN.replace("gele/", "gele\\").encode(),
    "empty rows": (PLAIN.replace("gele/b", ",,\n\n , ,\ngele/b") + ",,\n").encode(),
    "empty columns": PLAIN.replace("\n", ",,\n").encode(),
    "names of columns": PLAIN.replace("path,label", "Path, Label ").encode(),
    "quoted names": PLAIN.replace("path,label,source", '"path";"label";"source"')
    .replace(",", ";")
    .encode(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the two images that the manifests name."""
    (tmp_path / "gele").mkdir()
    for name in ("grün.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / "gele" / name)
    return tmp_path


def _read(folder: Path, data: bytes) -> Catalog:
    (folder / "m.csv").write_bytes(data)
    return read_catalog(folder / "m.csv")


@pytest.mark.parametrize("way", SAVED)
def test_a_manifest_says_the_same_however_it_was_saved(way: str, folder: Path) -> None:
    """Who keeps the list in Excel could not use it, or have labels that nobody wrote."""
    assert SAVED[way] != PLAIN.encode()
    assert _read(folder, SAVED[way]).images == _read(folder, PLAIN.encode()).images


def test_names_of_files_that_are_no_text_are_found(folder: Path) -> None:
    """An image whose name an old disk wrote in bytes of its own could not be named."""
    name = os.fsencode(folder) + b"/gr\xfcn.png"
    Image.new("L", (8, 8)).save(folder / "x.png")
    os.rename(folder / "x.png", name)
    (image,) = _read(folder, b"path,label\ngr\xfcn.png,a\n").images
    assert os.fsencode(image.path) == name


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param("path;label\ngele/b.png;a;b\n", "line 2: expected 2 cells", id="a cell more"),
        pytest.param("path,label,\ngele/b.png,a,b\n", "expected 2 cells", id="beside the table"),
        pytest.param("file;label\ngele/b.png;a\n", "have the column 'path'", id="no path"),
        pytest.param("path\nno\\b.png\n", "No such file", id="no such file"),
    ],
)
def test_what_has_no_meaning_is_refused(data: str, said: str, folder: Path) -> None:
    """An entry would be lost without a word."""
    with pytest.raises(UsageError, match=said):
        _read(folder, data.encode())
