"""Listing and contact sheet: a person sees what is there, and exactly what a backbone is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import gelkit
from gelkit.cli import main
from gelkit.features.surveys import survey
from gelkit.images.formats import decode
from gelkit.images.views import VIEW_SIZE, render
from gelkit.report.sheet import IMAGES_A_SHEET, draw_sheets
from gelkit.tables import read_table


def _noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of four images of two classes, one of which cannot be read."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    _noise(100, 80).save(tmp_path / "a" / "plain.png")
    _noise(30, 1000, 1).save(tmp_path / "a" / "wide.png")
    tilted = Image.Exif()
    tilted[274] = 6
    _noise(50, 90, 2).save(tmp_path / "b" / "tilted.png", exif=tilted)
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    return tmp_path


def _images(*words: object) -> Result:
    return CliRunner().invoke(main, ["images", *map(str, words)])


def test_the_listing_counts_what_is_there_and_how_it_was_read(folder: Path) -> None:
    """Wrongly stored images would be found out after the embedding, if ever."""
    seen = _images(folder)
    assert seen.exit_code == 0, seen.output
    assert "4 images (a 2, b 2), 3 read:" in seen.output
    assert "       3  PNG      L             8  50 to 1000 x 30 to 100" in seen.output
    assert "       1  rotated: an orientation tag was applied" in seen.output
    assert "       1  shrunk: more than 4 times larger" in seen.output
    assert "b/broken.png: expected PNG" in seen.output
    assert _images(folder, "--strict").exit_code == 1


def test_the_table_has_a_row_for_each_file(folder: Path) -> None:
    """What was done to an image, or why it is missing, could not be looked up."""
    assert _images(folder, "--csv", folder / "table.csv").exit_code == 0
    columns, rows = read_table(folder / "table.csv")
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert sorted(by_name) == ["a/plain.png", "a/wide.png", "b/broken.png", "b/tilted.png"]
    tilted = by_name["b/tilted.png"]
    assert (tilted["width"], tilted["height"], tilted["orientation"]) == ("50", "90", "6")
    assert by_name["a/wide.png"]["flags"] == "shrunk"
    assert by_name["b/broken.png"]["error"].startswith("expected PNG")
    assert by_name["a/plain.png"]["error"] == ""


def test_the_sheet_shows_what_the_backbone_sees(folder: Path) -> None:
    """A person would approve of a picture that no backbone is shown."""
    options = ("--geometry", "pad", "--sheet", folder / "sheet.png")
    assert _images(folder, *options).exit_code == 0
    with Image.open(folder / "sheet.png") as image:
        sheet = np.asarray(image.convert("L"))
    for name in ("a/plain.png", "a/wide.png", "b/tilted.png"):
        view = render(decode((folder / name).read_bytes()), "pad")
        assert _occurs(view, sheet), name


def _occurs(view: np.ndarray, sheet: np.ndarray) -> bool:
    """Look for a view at every place where its first row of pixels begins."""
    starts = np.argwhere(
        (sheet[: 1 - VIEW_SIZE, : 1 - VIEW_SIZE] == view[0, 0])
        & (sheet[: 1 - VIEW_SIZE, VIEW_SIZE - 1 :] == view[0, -1])
    )
    return any(
        np.array_equal(sheet[top : top + VIEW_SIZE, left : left + VIEW_SIZE], view)
        for top, left in starts
    )


@pytest.mark.exhaustive("exhaustive grids")
def test_many_images_take_several_sheets(tmp_path: Path) -> None:
    """A data set of thousands would make a picture that no program opens."""
    _noise(20, 20).save(tmp_path / "1.png")
    found = survey(gelkit.read_catalog(tmp_path), with_pictures=True, workers=1)
    paths = draw_sheets(found.images * (IMAGES_A_SHEET + 1), tmp_path / "sheet.png")
    assert [path.name for path in paths] == ["sheet.png", "sheet-2.png"]
    heights = []
    for path in paths:
        with Image.open(path) as sheet:
            heights.append(sheet.height)
    assert heights[1] < heights[0] < 12_000


def test_the_options_of_the_view_reach_the_workers(tmp_path: Path) -> None:
    """The sheet would show another page or polarity than the one that is embedded."""
    light = Image.fromarray(np.full((40, 40), 250, np.uint8))
    light.save(tmp_path / "1.tif", tiffinfo={262: 0})
    kept = survey(gelkit.read_catalog(tmp_path), workers=1).images[0].record
    options = gelkit.RecipeOptions(polarity="dark-background")
    turned = survey(gelkit.read_catalog(tmp_path), options, workers=1).images[0].record
    assert "inverted" in kept.flags
    assert turned.polarity == "dark-background"
    assert "polarity-inverted" in turned.flags - kept.flags
