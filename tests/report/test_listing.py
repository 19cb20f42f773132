"""Listings: what is in a data set is said such that a newcomer understands it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gelkit.features.surveys import Survey
from gelkit.images.catalog import Catalog, CatalogImage
from gelkit.images.formats import DecodeRecord
from gelkit.images.inspection import Inspected
from gelkit.report.listing import describe_survey


def _inspected(polarity: str = "unknown", flags: frozenset[str] = frozenset()) -> Inspected:
    source = "unknown" if polarity == "unknown" else "file"
    record = DecodeRecord(
        "PNG", "L", 4, 5, 8, flags=flags, polarity=polarity, polarity_source=source
    )
    return Inspected("0.png", "0" * 64, 80, record, None)


def _described(*images: Inspected, label: str | None = "gel") -> list[str]:
    catalog = Catalog("gels", (CatalogImage(Path("0.png"), "0.png", label),) * len(images))
    return describe_survey(catalog, Survey(images, ())).splitlines()


BACKGROUNDS = {
    "told": (("dark-background",), "1 dark-background (by file)"),
    "not told": (("unknown",) * 3, "3 unknown (the file does not tell)"),
    "some": (
        ("light-background", "unknown", "unknown"),
        "1 light-background (by file), 2 unknown (the file does not tell)",
    ),
    "nothing read": ((), "no image was read"),
}


@pytest.mark.parametrize("case", BACKGROUNDS)
def test_backgrounds_are_counted(case: str) -> None:
    """A user would not know whether --polarity can do anything."""
    polarities, said = BACKGROUNDS[case]
    lines = _described(*map(_inspected, polarities))
    assert lines[-1] == f"Background: {said}"


def test_images_without_labels_are_told_before_heads_refuses_them() -> None:
    """Someone would compute for hours, and learn then that there are no classes."""
    assert _described(_inspected(), label=None)[:2] == [
        "1 image, 1 read:",
        "No labels: gelkit heads needs a folder for each class, or a manifest with labels.",
    ]
    assert _described(_inspected(), _inspected())[0] == "2 images (gel 2), 2 read:"
    assert "No labels" not in "\n".join(_described(_inspected()))


def test_of_many_classes_some_are_named_and_all_counted() -> None:
    """The table of what was read would stand below a screen of names."""
    images = tuple(
        CatalogImage(Path("0.png"), "0.png", f"class {number:03}") for number in range(100)
    )
    catalog = Catalog("gels", (*images, images[7]))
    first = describe_survey(catalog, Survey((), ())).splitlines()[0]
    assert first.startswith("101 images (100 classes of 1 to 2 images: class 000 1, class 001 1")
    assert first.endswith("class 009 1 and 90 more), 0 read:")


def test_saturation_comes_with_advice() -> None:
    """A user would not know whether it matters."""
    (line,) = [x for x in _described(_inspected(flags=frozenset({"saturated"}))) if "satur" in x]
    assert line.startswith("       1  saturated: more than 0.1% of the pixels")
    assert line.endswith("expose gels less")
