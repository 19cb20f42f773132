"""Views: what a backbone is shown, the same for the same picture in 8 and 16 bits, anywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gelkit.errors import UsageError
from gelkit.images.augmentations import AUGMENTATIONS, draw_parameters
from gelkit.images.formats import DecodedImage, DecodeRecord, Pixels
from gelkit.images.likeness import INTENSITY_STATISTICS, intensity_statistics, perceptual_hash
from gelkit.images.samples import draw_samples
from gelkit.images.views import (
    GEOMETRIES,
    INTERPOLATIONS,
    VIEW_SIZE,
    WINDOWS,
    View,
    render,
    render_views,
    require_view_options,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 500), dtype=np.uint8)
PICTURE[100:200, 100:400] = 240
SHA256 = hashlib.sha256(b"gel").hexdigest()

geometries = st.sampled_from(list(GEOMETRIES))
windows = st.sampled_from(list(WINDOWS))
augmentations = st.lists(st.sampled_from(list(AUGMENTATIONS)))


def _image(pixels: Pixels) -> DecodedImage:
    height, width = pixels.shape
    return DecodedImage(pixels, DecodeRecord("PNG", "L", height, width, 8))


def _deep(pixels: Pixels) -> Pixels:
    deep: Pixels = (pixels / np.float32(255)).astype(np.float32)
    return deep


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    geometry=geometries,
    window=windows,
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
    shallow = render(_image(PICTURE), geometry, "full").astype(int)
    assert np.abs(render(_image(_deep(PICTURE)), geometry, "full") - shallow).max() <= 1


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


@settings(max_examples=20, deadline=None)
@given(geometry=geometries, window=windows, names=augmentations, deep=st.booleans())
def test_view_0_is_the_clean_one(geometry: str, window: str, names: list[str], deep: bool) -> None:
    """A cache with augmented views would validate and test on other images than one without."""
    image = _image(_deep(PICTURE) if deep else PICTURE)
    first = render_views(image, [0], SHA256, geometry, window, names)[0]
    assert np.array_equal(first, render(image, geometry, window))


@settings(max_examples=20, deadline=None)
@given(number=st.integers(0, 10**6), geometry=geometries, deep=st.booleans())
def test_nothing_is_done_when_nothing_is_asked_for(number: int, geometry: str, deep: bool) -> None:
    """Augmentations that were left out would act all the same."""
    image = _image(_deep(PICTURE) if deep else PICTURE)
    view = render_views(image, [number], SHA256, geometry, augmentations=[])[0]
    assert np.array_equal(view, render(image, geometry))


@settings(max_examples=15, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 50), min_size=1, max_size=5),
    more=st.lists(st.integers(0, 50), max_size=3),
    geometry=geometries,
    names=augmentations,
)
def test_more_views_later_leave_the_earlier_ones(
    numbers: list[int], more: list[int], geometry: str, names: list[str]
) -> None:
    """A cache that grows from 4 to 8 views would hold two different kinds of the first 4."""
    image = _image(PICTURE)
    few = render_views(image, numbers, SHA256, geometry, augmentations=names)
    many = render_views(image, more + numbers, SHA256, geometry, augmentations=names[::-1])
    assert len(few) == len(numbers)
    assert np.array_equal(few, many[len(more) :])


def _digest(views: list[View]) -> str:
    return hashlib.sha256(b"".join(view.tobytes() for view in views)).hexdigest()


def test_another_process_makes_the_same_views() -> None:
    """Two workers would put different views of an image under the same number."""
    program = (
        "import hashlib, numpy as np\n"
        "from gelkit.images.formats import DecodedImage, DecodeRecord\n"
        "from gelkit.images.views import render_views\n"
        "pixels = np.arange(60000, dtype=np.uint32).reshape(200, 300).astype(np.uint8)\n"
        "image = DecodedImage(pixels, DecodeRecord('PNG', 'L', 200, 300, 8))\n"
        f"views = render_views(image, range(8), '{SHA256}')\n"
        "print(hashlib.sha256(b''.join(view.tobytes() for view in views)).hexdigest())"
    )
    pixels = np.arange(60000, dtype=np.uint32).reshape(200, 300).astype(np.uint8)
    here = _digest(render_views(_image(pixels), range(8), SHA256))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.strip() == here


def test_views_differ_among_numbers_and_images() -> None:
    """Ten views of an image would be no more to learn from than one."""
    image, other = _image(PICTURE), hashlib.sha256(b"another gel").hexdigest()
    views = render_views(image, range(10), SHA256) + render_views(image, range(1, 10), other)
    assert len({view.tobytes() for view in views}) == 19
    assert all(view.shape == (VIEW_SIZE, VIEW_SIZE) for view in views)
    assert all(view.dtype == np.uint8 for view in views)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmented_8_and_16_bits_look_the_same(geometry: str, name: str) -> None:
    """An export with more bits would be augmented to something else."""
    shown = [
        np.array(render_views(_image(pixels), range(1, 9), SHA256, geometry, "full", [name]), int)
        for pixels in (PICTURE, _deep(PICTURE))
    ]
    steepest = 2 if name == "contrast" else 1
    assert np.abs(shown[0] - shown[1]).max() <= steepest


def test_the_window_is_that_of_the_whole_image() -> None:
    """Each crop would be stretched to its own brightest band, and seem another exposure."""
    ramp = np.tile(np.linspace(0.1, 0.2, 500, dtype=np.float32), (300, 1))
    views = render_views(_image(ramp), range(1, 20), SHA256, augmentations=["crop"])
    for number, view in enumerate(views, start=1):
        width = draw_parameters(SHA256, number, ["crop"])["crop"][2]
        assert np.ptp(view[100].astype(int)) == pytest.approx(255 * width, abs=3)


def test_pad_keeps_the_shape_in_crops() -> None:
    """Bands of a wide gel would be squeezed in the augmented views."""
    circle = (np.hypot(*np.ogrid[-100:100, -200:200]) < 30).astype(np.uint8) * np.uint8(255)
    views = render_views(_image(circle), range(1, 9), SHA256, "pad", augmentations=["crop"])
    for view in views:
        height, width = np.ptp(np.argwhere(view > 127), axis=0)
        assert abs(int(height) - int(width)) <= 2


def test_fine_texture_becomes_grey() -> None:
    """A scan's grain or a printed raster would turn into stripes that are not in the gel."""
    checkers = np.indices((1200, 1500)).sum(axis=0).astype(np.uint8) % 2 * np.uint8(255)
    names = ["crop", "flip", "rotate"]
    views = np.array(render_views(_image(checkers), range(6), SHA256, augmentations=names), int)
    assert np.abs(views - 127).max() <= 8


def test_an_unknown_augmentation_is_refused() -> None:
    """A misspelt augmentation would be left out of a million views."""
    with pytest.raises(UsageError, match="crop, flip, rotate, contrast, polarity"):
        render_views(_image(PICTURE), [0], SHA256, augmentations=["zoom"])


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


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_view_has_the_size_that_a_network_wants(geometry: str, interpolation: str) -> None:
    """A network of 384 pixels would be shown 224, or one of bicubic pictures blurred ones."""
    image = _image(PICTURE)
    view = render(image, geometry, size=96, interpolation=interpolation)
    assert view.shape == (96, 96)
    numbers = render_views(
        image, [0, 1], SHA256, geometry, augmentations=[], size=96, interpolation=interpolation
    )
    assert all(np.array_equal(other, view) for other in numbers)


def test_an_interpolation_is_pillows_own() -> None:
    """Every network would be shown bilinear views, whatever it was trained on."""
    for name, resampling in INTERPOLATIONS.items():
        expected = np.asarray(Image.fromarray(PICTURE).resize((96, 96), resampling))
        assert np.array_equal(render(_image(PICTURE), size=96, interpolation=name), expected)
    views = {render(_image(PICTURE), interpolation=name).tobytes() for name in INTERPOLATIONS}
    assert len(views) == len(INTERPOLATIONS)
