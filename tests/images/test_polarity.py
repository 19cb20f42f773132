"""Polarity: a guess that is asked for tells gels on dark from gels on light, or says nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.images.polarity import OPPOSITE, guessed_polarity, inverted


def _gel(background: float, tilt: float, lanes: int = 6) -> npt.NDArray[np.float32]:
    """Draw bands that are brighter than their surroundings, on an unevenly lit ground."""
    rows, columns = np.mgrid[0:200, 0:240]
    gel = background + tilt * (columns / 240 - 0.5)
    for lane in range(lanes):
        for band in range(4):
            row, column = 30 + 37 * band + 5 * (lane % 3), 20 + 36 * lane
            gel = gel + 0.25 * np.exp(-(((rows - row) / 3) ** 2) - ((columns - column) / 9) ** 2)
    return np.clip(gel, 0, 1).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    background=st.floats(0.15, 0.7),
    tilt=st.floats(-0.2, 0.2),
    lanes=st.integers(2, 6),
    eight_bits=st.booleans(),
)
def test_a_gels_background_is_told_however_it_is_lit(
    background: float, tilt: float, lanes: int, eight_bits: bool
) -> None:
    """A bright exposure of a dark gel would be inverted: the rule would go by mean brightness."""
    gel = _gel(background, tilt, lanes)
    pixels = np.rint(gel * 255).astype(np.uint8) if eight_bits else gel
    assert guessed_polarity(pixels) == "dark-background"
    assert guessed_polarity(inverted(pixels)) == "light-background"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_inverse_of_a_picture_has_the_inverse_background(seed: int) -> None:
    """A gel and its inverted export would be guessed alike, and end up inverted to each other."""
    pixels = np.random.default_rng(seed).gamma(2, 20, (90, 70)).clip(0, 255).astype(np.uint8)
    guess = guessed_polarity(pixels)
    assert guessed_polarity(255 - pixels) == OPPOSITE.get(guess, "unknown")


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((50, 50), np.uint8),
        np.full((1, 1), 200, np.uint8),
        np.full((30, 3), 0.3, np.float32),
        np.random.default_rng(0).normal(0.5, 0.1, (300, 400)).clip(0, 1).astype(np.float32),
    ],
    ids=["black", "one pixel", "even", "noise"],
)
def test_without_detail_nothing_is_guessed(pixels: npt.NDArray[np.generic]) -> None:
    """A blank exposure would be inverted on no grounds."""
    assert guessed_polarity(pixels) == "unknown"
