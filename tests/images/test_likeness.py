"""Likeness: statistics are those of the pixels, whatever the type they are stored in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gelkit.images.likeness import (
    INTENSITY_STATISTICS,
    intensity_statistics,
    percentiles,
    perceptual_hash,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)
UNIT = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(
    pixels=hnp.arrays(np.float32, SHAPES, elements=UNIT),
    wanted=st.lists(st.floats(0, 100), min_size=1, max_size=5),
)
def test_percentiles_are_numpys(pixels: np.ndarray, wanted: list[float]) -> None:
    """Windows would cut off other intensities than the README says."""
    expected = np.percentile(pixels.astype(np.float64), wanted)
    np.testing.assert_allclose(percentiles(np.sort(pixels, axis=None), wanted), expected, atol=1e-9)


@settings(deadline=None)
@given(pixels=hnp.arrays(np.uint8, SHAPES))
def test_8_and_16_bits_have_the_same_statistics(pixels: np.ndarray) -> None:
    """A probe could tell the class by the file's type, through the statistics."""
    wide = pixels.astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(intensity_statistics(pixels), intensity_statistics(wide), atol=1e-6)


def test_statistics_are_in_the_order_of_their_names() -> None:
    """Someone who reads a cache would take the median for the maximum."""
    pixels = np.linspace(0, 1, 1001, dtype=np.float32).reshape(77, 13)
    found = dict(zip(INTENSITY_STATISTICS, intensity_statistics(pixels), strict=True))
    assert found["mean"] == pytest.approx(0.5)
    assert found["std"] == pytest.approx(np.sqrt(1 / 12), abs=1e-3)
    assert (found["minimum"], found["maximum"]) == (0, 1)
    for name, value in found.items():
        if name.startswith("percentile"):
            assert value == pytest.approx(int(name.rpartition("_")[2]) / 100, abs=1e-6)
    assert found["fraction_at_0"] == found["fraction_at_1"] == pytest.approx(1 / 1001)


def test_the_hash_of_the_other_polarity_is_the_complement() -> None:
    """The inverted export of a gel would not be found to be the same gel."""
    picture = np.random.default_rng(0).integers(0, 256, (14, 14), dtype=np.uint8)
    view = np.kron(picture, np.ones((16, 16), np.uint8))
    differing = perceptual_hash(view) ^ perceptual_hash(255 - view)
    assert differing.bit_count() >= 60
    assert perceptual_hash(view) == perceptual_hash(view.copy())
