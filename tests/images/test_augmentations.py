"""Augmentations: drawn alike on every machine, and each does what its row says and no more."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.images.augmentations import (
    AUGMENTATIONS,
    DEFAULT_AUGMENTATIONS,
    border_grey,
    draw_parameters,
    require_augmentations,
)
from gelkit.images.formats import DecodedImage, DecodeRecord, Pixels
from gelkit.images.views import GEOMETRIES, VIEW_SIZE, View, render, render_views

SHA256 = hashlib.sha256(b"gel").hexdigest()
PICTURE = np.random.default_rng(0).integers(0, 256, (300, 500), dtype=np.uint8)
PICTURE[100:200, 100:400] = 240

sha256s = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
numbers = st.integers(1, 10**6)


def _image(pixels: Pixels) -> DecodedImage:
    height, width = pixels.shape
    return DecodedImage(pixels, DecodeRecord("PNG", "L", height, width, 8))


def _alone(name: str, pixels: Pixels, number: int, geometry: str = "stretch") -> View:
    """Render a view to which nothing but one augmentation is done."""
    return render_views(_image(pixels), [number], SHA256, geometry, "full", [name])[0]


def test_the_table_is_known_by_its_names() -> None:
    """A name of the list could not be asked for, or inverted views come without being asked for."""
    assert [row.name for row in AUGMENTATIONS.values()] == list(AUGMENTATIONS)
    assert DEFAULT_AUGMENTATIONS == ("crop", "flip", "rotate", "contrast")
    assert not any("," in name for name in AUGMENTATIONS)


def test_names_come_back_in_the_tables_order() -> None:
    """Two orders of the same names would be two recipes, and all views computed twice."""
    assert require_augmentations(["rotate", "crop", "rotate"]) == ("crop", "rotate")
    assert require_augmentations([]) == ()
    assert require_augmentations(reversed(AUGMENTATIONS)) == tuple(AUGMENTATIONS)


def test_unknown_names_are_told_the_known_ones() -> None:
    """A misspelt augmentation would be left out."""
    with pytest.raises(UsageError, match=r"crop, flip, rotate, contrast, polarity.*'rotation'"):
        require_augmentations(["crop", "rotation"])


def test_draws_never_change() -> None:
    """Views would differ between machines or versions, and a cache would mix two kinds of them."""
    drawn = [
        draw_parameters(hashlib.sha256(data).hexdigest(), number, AUGMENTATIONS)
        for data in (b"", b"gel", b"another gel")
        for number in range(51)
    ]
    exactly = json.dumps(drawn).encode()
    assert (
        hashlib.sha256(exactly).hexdigest()
        == "956d9f37c8f8da40cfe33118e46c63971017bbb9b635ca2e00f2c3fa70bdf0a8"
    )
    assert drawn[52] == {
        "crop": (0.07924691767125268, 0.02375010414223938, 0.878125879762012, 0.8886775867618558),
        "flip": (),
        "rotate": (-5.530593231290624,),
        "contrast": (0.8756947228177169, 0.02686167711431661, -0.043989129030881105),
        "polarity": (),
    }


@settings(deadline=None)
@given(sha256=sha256s, number=numbers)
def test_a_further_row_leaves_the_others_draws(sha256: str, number: int) -> None:
    """A release with one more augmentation would draw other views than those in the cache."""
    before = draw_parameters(sha256, number, AUGMENTATIONS)
    with pytest.MonkeyPatch.context() as patch:
        rows = [replace(AUGMENTATIONS["rotate"], name="new"), *AUGMENTATIONS.values()]
        patch.setattr("gelkit.images.augmentations.AUGMENTATIONS", {row.name: row for row in rows})
        after = draw_parameters(sha256, number, ["new", *before])
    assert after.pop("new") != after.get("rotate")
    assert after == before
    assert all(draw_parameters(sha256, number, [name]) == {name: before[name]} for name in before)


@settings(deadline=None)
@given(sha256=sha256s, other=sha256s, number=numbers)
def test_draws_differ_among_images_views_and_augmentations(
    sha256: str, other: str, number: int
) -> None:
    """All images would be turned by the same angle, or all views of an image be one."""
    drawn = draw_parameters(sha256, number, AUGMENTATIONS)
    following = draw_parameters(sha256, number + 1, AUGMENTATIONS)
    assert all(drawn[name] != following[name] for name in ("crop", "rotate", "contrast"))
    if other != sha256:
        assert drawn["crop"] != draw_parameters(other, number, AUGMENTATIONS)["crop"]
    angle = (drawn["rotate"][0] + 10) / 20
    assert angle != pytest.approx((drawn["contrast"][0] - 0.8) / 0.2)


@settings(deadline=None)
@given(sha256=sha256s)
def test_nothing_is_drawn_for_view_0(sha256: str) -> None:
    """The clean view would be augmented, and validation and test would be scored on it."""
    assert draw_parameters(sha256, 0, AUGMENTATIONS) == {}


@pytest.mark.parametrize("name", ["flip", "polarity"])
def test_coins_fall_on_both_sides(name: str) -> None:
    """Heads would see only one side of what the augmentation is to make them ignore."""
    drawn = sum(name in draw_parameters(SHA256, number, [name]) for number in range(1, 1001))
    assert 450 < drawn < 550


@settings(max_examples=25, deadline=None)
@given(number=numbers, geometry=st.sampled_from(list(GEOMETRIES)))
def test_flip_alone_mirrors_or_leaves(number: int, geometry: str) -> None:
    """Gels would be turned upside down, so that long fragments ran farther than short ones."""
    clean = render(_image(PICTURE), geometry)
    view = _alone("flip", PICTURE, number, geometry)
    mirrored = bool(draw_parameters(SHA256, number, ["flip"]))
    assert np.array_equal(view, clean[:, ::-1] if mirrored else clean)


@settings(max_examples=25, deadline=None)
@given(number=numbers, geometry=st.sampled_from(list(GEOMETRIES)))
def test_polarity_alone_inverts_or_leaves(number: int, geometry: str) -> None:
    """Greys would be changed beyond their sign."""
    clean = render(_image(PICTURE), geometry)
    view = _alone("polarity", PICTURE, number, geometry)
    inverted = bool(draw_parameters(SHA256, number, ["polarity"]))
    assert np.array_equal(view, 255 - clean if inverted else clean)


RAMP = np.arange(256, dtype=np.uint8).repeat(VIEW_SIZE * VIEW_SIZE // 256).reshape(VIEW_SIZE, -1)


@settings(max_examples=100, deadline=None)
@given(number=numbers)
def test_contrast_alone_keeps_order_and_loses_no_band(number: int) -> None:
    """Faint bands would vanish into black or white, or dark ones turn lighter than faint ones."""
    greys = _alone("contrast", RAMP, number).ravel()[:: RAMP.size // 256].astype(int)
    steps = np.diff(greys)
    assert steps.min() >= 0
    assert greys[-1] - greys[0] >= 0.8 * 255 - 1
    assert abs(2 * greys[128] - greys[0] - greys[-1]) <= 2 * 0.1 * 255 + 3
    assert len(set(greys[:10])) >= 5
    assert len(set(greys[-10:])) >= 5


def test_contrast_goes_both_ways() -> None:
    """Heads would see gels that are brighter than in use, or darker, but never both."""
    middles = [int(_alone("contrast", RAMP, number)[112, 0]) for number in range(1, 60)]
    assert min(middles) < 108
    assert max(middles) > 148


LINE = np.zeros((VIEW_SIZE, VIEW_SIZE), np.uint8)
LINE[:, 110:114] = 255


def _angle(view: View) -> float:
    """Measure by how many degrees the line leans, from its centre in each row."""
    rows = np.arange(30, VIEW_SIZE - 30)
    columns = np.arange(VIEW_SIZE)
    centres = (view[rows].astype(float) @ columns) / view[rows].sum(axis=1)
    return float(np.degrees(np.arctan(np.polyfit(rows, centres, 1)[0])))


def test_rotation_alone_stays_within_10_degrees() -> None:
    """Lanes would lean more than any photograph's, or always to the same side."""
    angles = np.array([_angle(_alone("rotate", LINE, number)) for number in range(1, 100)])
    assert np.abs(angles).max() <= 10.05
    assert angles.min() < -8
    assert angles.max() > 8
    assert np.median(np.abs(angles)) == pytest.approx(5, abs=1.5)


@pytest.mark.parametrize("grey", [0, 80, 255])
def test_corners_are_filled_with_the_borders_grey(grey: int) -> None:
    """Black wedges would tell the head that a view is rotated, whatever the gel."""
    pixels = np.full((VIEW_SIZE, VIEW_SIZE), grey, np.uint8)
    pixels[60:160, 60:160] = 128
    for number in range(1, 6):
        view = _alone("rotate", pixels, number)
        assert set(view[:20].ravel()) | set(view[:, -20:].ravel()) == {grey}


def _measured_regions(number: int) -> tuple[float, float, float, float]:
    """Measure which region a crop shows: left, top, width, height as fractions of the image."""
    across = np.tile((np.arange(500) + 0.5) / 500, (300, 1)).astype(np.float32)
    down = np.tile((np.arange(300)[:, None] + 0.5) / 300, (1, 500)).astype(np.float32)
    places = (np.arange(VIEW_SIZE) + 0.5) / VIEW_SIZE
    inner = slice(20, VIEW_SIZE - 20)
    columns = _alone("crop", across, number).mean(axis=0) / 255
    rows = _alone("crop", down, number).mean(axis=1) / 255
    width, left = np.polyfit(places[inner], columns[inner], 1)
    height, top = np.polyfit(places[inner], rows[inner], 1)
    return float(left), float(top), float(width), float(height)


def test_crop_alone_stays_inside_and_large_enough() -> None:
    """A view would show two lanes of twelve, or something that is not in the image."""
    left, top, width, height = np.array([_measured_regions(n) for n in range(1, 60)]).T
    areas, aspects = width * height, width / height
    assert min(left.min(), top.min()) > -0.005
    assert max((left + width).max(), (top + height).max()) < 1.005
    assert 0.595 < areas.min() < 0.65
    assert 0.95 < areas.max() < 1.01
    assert 0.79 < aspects.min() < 0.9
    assert 1.1 < aspects.max() < 1.26


@settings(deadline=None)
@given(sha256=sha256s, number=numbers)
def test_every_crop_is_within_its_ranges(sha256: str, number: int) -> None:
    """A rare draw would leave the image and end the run."""
    left, top, width, height = draw_parameters(sha256, number, ["crop"])["crop"]
    assert left >= 0
    assert top >= 0
    assert left + width <= 1 + 1e-12
    assert top + height <= 1 + 1e-12
    assert 0.6 - 1e-12 <= width * height <= 1
    assert 0.8 - 1e-12 <= width / height <= 1.25 + 1e-12


def test_crops_are_cut_from_the_full_resolution() -> None:
    """Bands that only a crop can show would be blurred, as if taken from the small view."""
    period = 2.5 * 1120 / VIEW_SIZE
    wave = 127.5 + 127.5 * np.sin(np.arange(1120) * 2 * np.pi / period)
    pixels = np.tile(np.rint(wave).astype(np.uint8), (1120, 1))
    clean = render(_image(pixels)).std()
    for number in range(1, 30):
        width = draw_parameters(SHA256, number, ["crop"])["crop"][2]
        if width < 0.85:
            assert _alone("crop", pixels, number).std() > 1.15 * clean


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["crop", "flip", "rotate"]),
    grey=st.integers(0, 255),
    number=numbers,
    geometry=st.sampled_from(list(GEOMETRIES)),
    deep=st.booleans(),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_an_even_grey_stays_even(
    name: str, grey: int, number: int, geometry: str, deep: bool, shape: tuple[int, int]
) -> None:
    """Frames or halos would appear where the gel is empty; a tiny image would end the run."""
    pixels = np.full(shape, grey, np.uint8)
    shown: Pixels = (pixels / np.float32(255)).astype(np.float32) if deep else pixels
    assert set(_alone(name, shown, number, geometry).ravel()) == {grey}


def test_the_borders_grey_is_its_median() -> None:
    """A ladder that touches the edge would colour the fill."""
    view: npt.NDArray[np.uint8] = np.full((10, 10), 200, np.uint8)
    view[:, 0] = 0
    view[1:9, 1:9] = 90
    assert border_grey(view) == 200
