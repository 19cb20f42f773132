"""Details: rows of bands lie over each other whatever they are, and only one exposure agrees."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from gelkit.images.details import ALL, NONE, compare_details, moved_onto
from gelkit.images.formats import decode
from gelkit.images.likeness import perceptual_hash
from gelkit.images.registration import similarity, sketch
from gelkit.images.similarity import MIN_SIMILARITY, near_duplicates
from gelkit.images.views import View, render

BLOTS = Path(__file__).parents[3] / "shared" / "data" / "blots"

LANES, BAND = np.linspace(60, 160, 10), (4.0, 1.8)
"""Where the comb puts the lanes, and half the width and height of a band."""


def draw_blot(number: int) -> View:
    """Draw a row of bands of one comb on black, and what is an exposure's own: all else."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:224, :224].astype(np.float32)
    row = 112 + rng.uniform(-3, 3) + rng.uniform(-0.03, 0.03) * (columns - 112)
    picture = np.zeros((224, 224), np.float32)
    for lane in LANES:
        middle = lane + rng.uniform(-0.4, 0.4)
        bell = ((columns - middle) / BAND[0]) ** 4 + ((rows - row) / BAND[1]) ** 2
        picture += rng.uniform(140, 230) * np.exp(-bell)
    top, left = rng.integers(15, 60), rng.integers(10, 45)
    bottom, right = rng.integers(150, 215), rng.integers(175, 218)
    picture[top:bottom, left:right] += 3  # the membrane
    stains = gaussian_filter(rng.standard_normal((224, 224)), 5)
    picture += 0.8 * (stains / stains.std() + rng.standard_normal((224, 224)))
    picture[rng.integers(0, 224, 5), rng.integers(0, 224, 5)] += rng.uniform(10, 60, 5)
    return np.rint((4 + picture).clip(0, 255)).astype(np.uint8)


ALTERATIONS: dict[str, Callable[[View], np.ndarray]] = {
    "inverted": lambda view: 255 - view,
    "half the contrast": lambda view: 64 + view // 2,
    "gamma 0.5": lambda view: np.rint(255 * (view / 255) ** 0.5).astype(np.uint8),
    "blurred": lambda view: np.rint(gaussian_filter(view.astype(np.float32), 1)).astype(np.uint8),
    "cropped": lambda view: np.asarray(Image.fromarray(view[6:214, 8:218]).resize((224, 224))),
}


@pytest.mark.parametrize(
    ("count", "least_alike"),
    [(7, 2), pytest.param(14, 10, marks=pytest.mark.exhaustive("exhaustive grids"))],
    ids=["7", "14"],
)
def test_rows_of_bands_are_alike_and_no_copies(count: int, least_alike: int) -> None:
    """Someone's blots would be called copies of each other, and they be accused of it."""
    blots = [draw_blot(number) for number in range(count)]
    alike = [
        (one, other)
        for one, other in combinations(blots, 2)
        if similarity(sketch(one), sketch(other)) >= MIN_SIMILARITY
    ]
    assert len(alike) >= least_alike  # for which details are needed
    assert [its for pair in alike if (its := compare_details(*pair)).agree] == []
    hashes = np.array([perceptual_hash(blot) for blot in blots], np.uint64)
    assert near_duplicates(hashes, blots.__getitem__, max_distance=31) == ()


@pytest.mark.parametrize("name", ALTERATIONS)
def test_copies_agree_in_their_details(name: str) -> None:
    """A copy that was changed a little would be overlooked."""
    for number in range(5):
        blot = draw_blot(number)
        details = compare_details(blot, ALTERATIONS[name](blot))
        assert details.agree, details
        assert details.are_certain, details


def test_a_copy_without_faint_details_is_found_and_not_certain() -> None:
    """A blot whose background was made black would be overlooked, or called certain."""
    for number in range(5):
        blot = draw_blot(number)
        black = np.rint(255 * (blot / 255) ** 2).astype(np.uint8)
        details = compare_details(blot, black)
        assert details.agree, details
        assert not details.are_certain


def test_details_do_not_depend_on_which_picture_comes_first() -> None:
    """Renaming a file would change what is found."""
    one, other = draw_blot(0), ALTERATIONS["cropped"](draw_blot(0))
    assert compare_details(one, other) == compare_details(other, one)


def test_blank_pictures_are_no_copies_unless_they_are_equal() -> None:
    """All black would be the same picture as all white."""
    black, white = np.zeros((224, 224), np.uint8), np.full((224, 224), 255, np.uint8)
    assert compare_details(black, white) == NONE
    assert compare_details(black, draw_blot(0)) == NONE
    assert compare_details(black, black.copy()) == ALL


@pytest.mark.parametrize("name", ["inverted", "cropped"])
def test_a_copy_is_moved_to_where_it_lies(name: str) -> None:
    """The picture of a pair would show differences that are none."""
    blot = draw_blot(3)
    moved = moved_onto(blot, ALTERATIONS[name](blot))
    inner = np.s_[20:-20, 20:-20]
    assert np.corrcoef(moved[inner].ravel(), blot[inner].ravel())[0, 1] > 0.98


@pytest.mark.skipif(not BLOTS.is_dir(), reason="needs ../shared/data/blots beside the checkout")
def test_real_blots_of_one_laboratory_are_no_copies() -> None:
    """What holds for drawn blots would not hold for those that people make."""
    views = [render(decode(path.read_bytes())) for path in sorted(BLOTS.glob("*.png"))]
    assert len(views) == 20
    assert [pair for pair in combinations(views, 2) if compare_details(*pair).agree] == []
