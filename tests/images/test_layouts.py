"""Layouts: folders for training and testing are no classes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gelkit.images.catalog import read_catalog

SPLITS = {
    "train and test": (
        "train/a/1 train/b/2 test/a/3 test/b/4",
        "'test' (2 images) is held out for gelkit evaluate; 'train' (2 images) trains. If",
    ),
    "capitals, deeper": ("Train/a/x/1 Train/b/2 TEST/a/3", "'TEST' (1 images) is held out"),
    "validation": (
        "train/a/1 train/b/2 val/a/3 test/b/4",
        "'val' (1 images) trains, too: cross-validation needs no validation set",
    ),
    "a class to be tested alone": (
        "train/a/1 train/b/2 test/a/3 test/c/4",
        "'c' is in none of the folders for training",
    ),
}
CLASSES = {
    "no classes below": ("train/1 test/2", "give a CSV manifest with the columns path, label and"),
    "others below": ("train/a/1 test/b/2", "are read as classes"),
    "others beside": ("train/a/1 test/a/2 more/3", "'test', 'train' of"),
    "no training": ("test/a/1 val/a/2", None),
    "one": ("train/a/1 other/a/2", None),
}


def _files(root: Path, names: str) -> Path:
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.png").touch()
    return root


@pytest.mark.parametrize("case", SPLITS)
def test_folders_for_training_and_testing_are_splits(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Heads would learn to tell training images from test images, and train on the latter."""
    names, said = SPLITS[case]
    with caplog.at_level(logging.WARNING):
        catalog = read_catalog(_files(tmp_path, names))
    assert {(image.name.split("/")[1], image.label) for image in catalog.images} == {
        (name.split("/")[1], name.split("/")[1]) for name in names.split()
    }
    assert {image.name.split("/")[0].lower(): image.split for image in catalog.images} == {
        folder: "test" if folder == "test" else "train"
        for folder in (name.split("/")[0].lower() for name in names.split())
    }
    assert said in caplog.text


@pytest.mark.parametrize("case", CLASSES)
def test_folders_that_only_sound_so_stay_classes(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Classes that somebody meant would vanish; or a mistaken layout would pass without a word."""
    names, said = CLASSES[case]
    with caplog.at_level(logging.WARNING):
        catalog = read_catalog(_files(tmp_path, names))
    assert catalog.classes == tuple(sorted({name.split("/")[0] for name in names.split()}))
    assert {image.split for image in catalog.images} == {"train"}
    assert said in caplog.text if said else not caplog.text


def test_an_image_in_no_class_has_no_label(tmp_path: Path) -> None:
    """An image beside the folders of the classes would get the name of its split as a label."""
    catalog = read_catalog(_files(tmp_path, "train/a/1 train/loose test/a/2"))
    assert {image.name: image.label for image in catalog.images}["train/loose.png"] is None
