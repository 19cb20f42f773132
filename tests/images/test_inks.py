"""Inks: figures of journals, saved as CMYK, become the greys that they were printed in."""

from __future__ import annotations

import numpy as np
import pytest
from made_files import ink_profile, saved
from PIL import Image, ImageCms

from gelkit.images.formats import ImageError, decode

INKS = np.random.default_rng(0).integers(0, 256, (6, 40, 4), dtype=np.uint8).repeat(8, axis=0)
"""Of rows of 8 equal ones, as JPEG mixes neighbours."""
BLACK = np.zeros((16, 256, 4), np.uint8)
BLACK[..., 3] = np.arange(256) // 8 * 8


def _jpeg(inks: np.ndarray, **options: object) -> bytes:
    return saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0, **options)


def _fractions(data: bytes) -> np.ndarray:
    return decode(data).pixels.astype(np.float64) / 255


def test_without_a_profile_inks_follow_the_rule() -> None:
    """Figures would be refused, or come out inverted as Adobe stores them."""
    left = 1 - INKS / 255
    rule = (left[..., :3] * left[..., 3:]) @ np.array([0.299, 0.587, 0.114])
    smooth = np.median(rule.reshape(6, 8, 40), axis=1)
    pixels = np.median(_fractions(_jpeg(INKS)).reshape(6, 8, 40), axis=1)
    np.testing.assert_allclose(pixels, smooth, atol=0.02)
    record = decode(_jpeg(INKS)).record
    assert "inks-by-rule" in record.flags
    assert (record.format, record.mode, record.bit_depth) == ("JPEG", "CMYK", 8)


def _luminance(lightness: np.ndarray) -> np.ndarray:
    """Return the luminance, 0 to 1, of a lightness of 0 to 100 (CIE 15)."""
    return np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)


def _shown(luminance: np.ndarray) -> np.ndarray:
    """Return what sRGB stores for a luminance (IEC 61966-2-1)."""
    curved = 1.055 * np.maximum(luminance, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(luminance <= 0.0031308, 12.92 * luminance, curved)


def test_with_a_profile_inks_follow_that() -> None:
    """A print whose black is half as dark as another's would look like the other."""
    data = _jpeg(BLACK, icc_profile=ink_profile())
    lightness = np.array([100 * (1 - BLACK[..., 3] / 255 * 0.5), 0 * BLACK[..., 3] + 34.2])
    print_, darkest = _luminance(lightness)
    expected = _shown((print_ - darkest) / (1 - darkest))  # what all inks together leave is black
    np.testing.assert_allclose(_fractions(data), expected, atol=0.02)
    every_ink = np.full((16, 16, 4), 255, np.uint8)
    assert _fractions(_jpeg(every_ink, icc_profile=ink_profile())).max() < 0.02
    assert "inks-by-profile" in decode(data).record.flags
    by_rule = _fractions(_jpeg(BLACK))
    assert np.abs(_fractions(data) - by_rule).max() > 0.1


def test_where_all_inks_are_black_a_profile_says_what_they_are() -> None:
    """Luminance by the profile would be off by more than JPEG is."""
    data = _jpeg(BLACK, icc_profile=ink_profile(darkest=0.1))
    expected = _shown(_luminance(100 * (1 - BLACK[..., 3] / 255 * 0.5)))
    np.testing.assert_allclose(_fractions(data), expected, atol=0.012)


def test_what_nothing_says_is_not_made_up() -> None:
    """Inks of which half of all programs take the complement would be read one way or the other."""
    data = _jpeg(INKS)
    place = data.index(b"\xff\xee\x00\x0eAdobe")
    with pytest.raises(ImageError, match="does not say whether it is inverted"):
        decode(data[:place] + data[place + 16 :])


PROFILES = {
    "of colour": (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), "of RGB"),
    "cut off": (ink_profile()[:300], "colour profile that can be used"),
    "no profile": (b"none", "colour profile that can be used"),
}


@pytest.mark.parametrize("kind", PROFILES)
def test_a_profile_that_cannot_be_used_is_named(kind: str) -> None:
    """The plain rule would stand in for the profile without a word."""
    profile, reason = PROFILES[kind]
    with pytest.raises(ImageError, match=reason):
        decode(_jpeg(INKS, icc_profile=profile))
