"""Views: what a backbone is shown, the same for the same picture in 8 and 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.images.formats import DecodedImage, DecodeRecord, Pixels
from gelkit.images.likeness import INTENSITY_STATISTICS, intensity_statistics, perceptual_hash
from gelkit.images.samples import draw_samples
from gelkit.images.views import GEOMETRIES, VIEW_SIZE, WINDOWS, render, require_view_options

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 500), dtype=np.uint8)
PICTURE[100:200, 100:400] = 240


def _image(pixels: Pixels) -> DecodedImage:
    height, width = pixels.shape
    return DecodedImage(pixels, DecodeRecord("PNG", "L", height, width, 8))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    geometry=st.sampled_from(list(GEOMETRIES)),
    window=st.sampled_from(list(WINDOWS)),
    deep=st.booleans(),
)
def test_every_picture_becomes_a_square_of_bytes(
    height: int, width: int, geometry: str, window: str, deep: bool
) -> None:
    """An odd shape, a single pixel or an even grey would end the run."""
    pixels = np.full((height, width), 0.5, np.float32) if deep else np.full((height, width), 128)
    view = render(_image(pixels.astype(np.float32 if deep else np.uint8)), geometry, window)
    assert view.shape == (VIEW_SIZE, VIEW_SIZE)
    assert view.dtype == np.uint8
    assert set(np.unique(view)) == {128}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_8_and_16_bits_of_one_picture_look_the_same(geometry: str) -> None:
    """An export with more bits would get another embedding, and another class perhaps."""
    deep = (PICTURE / np.float32(255)).astype(np.float32)
    shallow = render(_image(PICTURE), geometry, "full").astype(int)
    assert np.abs(render(_image(deep), geometry, "full") - shallow).max() <= 1


def test_pad_keeps_the_shape_of_the_picture() -> None:
    """Bands of a wide gel would be squeezed although the user asked them not to be."""
    view = render(_image(np.zeros((100, 200), np.uint8) + np.uint8(7)), "pad")
    assert np.all(view == 7)
    circle = np.hypot(*np.ogrid[-50:50, -100:100]) < 40
    ones = np.argwhere(render(_image(circle.astype(np.uint8) * 255), "pad") > 127)
    height, width = np.ptp(ones, axis=0)
    assert abs(int(height) - int(width)) <= 2


def test_the_window_shows_faint_exposures_of_more_than_8_bits() -> None:
    """A 16-bit exposure that uses a twentieth of the range would be shown black."""
    faint = (PICTURE / np.float32(255 * 20)).astype(np.float32)
    assert render(_image(faint), window="full").max() <= 13
    assert render(_image(faint)).max() > 200
    assert np.array_equal(render(_image(PICTURE)), render(_image(PICTURE), window="full"))


def test_unknown_options_name_the_known_ones() -> None:
    """A misspelt option would be ignored."""
    with pytest.raises(UsageError, match="stretch or pad"):
        require_view_options("crop", "full")
    with pytest.raises(UsageError, match="percentile or full"):
        require_view_options("pad", "auto")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Return the views of twelve different synthetic images."""
    from gelkit.images.formats import decode

    paths = draw_samples(tmp_path_factory.mktemp("drawn"), count=12, seed=3)
    return [render(decode(path.read_bytes())) for path in paths]


def test_hashes_are_near_for_copies_and_far_for_others(views: list[np.ndarray]) -> None:
    """Copies of a gel could not be found, or different gels would be taken for copies."""
    for number, view in enumerate(views):
        brighter = np.clip(view * 0.8 + 30, 0, 255).astype(np.uint8)
        smaller = render(_image(view[::2, ::2].copy()))
        own = perceptual_hash(view)
        assert (own ^ perceptual_hash(brighter)).bit_count() <= 8
        assert (own ^ perceptual_hash(smaller)).bit_count() <= 8
        assert (own ^ perceptual_hash(255 - view) ^ (2**64 - 1)).bit_count() <= 8
        others = [perceptual_hash(other) for other in views[:number]]
        assert all((own ^ other).bit_count() > 8 for other in others)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=60))
def test_statistics_do_not_depend_on_how_values_are_stored(values: list[int]) -> None:
    """Intensities of 8- and 16-bit files could not be compared."""
    shallow = np.array([values], dtype=np.uint8)
    deep = (shallow / np.float32(255)).astype(np.float32)
    statistics = intensity_statistics(shallow)
    assert statistics.shape == (len(INTENSITY_STATISTICS),)
    np.testing.assert_allclose(statistics, intensity_statistics(deep), atol=2e-6)
    assert statistics[0] == pytest.approx(np.mean(values) / 255, abs=1e-6)
