"""Likeness: what can be told of images, and of pairs of them, without a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.images.formats import Pixels

INTENSITY_STATISTICS = (
    "mean",
    "std",
    "minimum",
    "percentile_1",
    "percentile_5",
    "percentile_25",
    "percentile_50",
    "percentile_75",
    "percentile_95",
    "percentile_99",
    "maximum",
    "fraction_at_0",
    "fraction_at_1",
)
"""The names of what :func:`intensity_statistics` returns, in its order."""

_PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)


def perceptual_hash(view: npt.NDArray[np.uint8]) -> int:
    """Return the 64-bit perceptual hash of a clean view, as an unsigned integer.

    The signs of the lowest 8 x 8 cosine coefficients against their median (pHash, by ImageHash).
    Inverting the picture flips the bits of all coefficients but the first, so the hash of the
    other polarity is the complement, give or take the bits next to the median.
    """
    import imagehash  # it brings SciPy, which a fully cached run does not need

    bits = imagehash.phash(Image.fromarray(view)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def intensity_statistics(pixels: Pixels, ordered: Pixels | None = None) -> npt.NDArray[np.float32]:
    """Return the statistics named in :data:`INTENSITY_STATISTICS` of linear luminance in 0 to 1.

    Exact, over every pixel; 8-bit images by way of their histogram.

    :param ordered: the same values in ascending order, if they are at hand.
    """
    if pixels.dtype == np.uint8:
        return _statistics_of_8_bit(pixels)
    spread = (np.mean(pixels, dtype=np.float64), np.std(pixels, dtype=np.float64))
    values: Pixels = pixels.flatten() if ordered is None else ordered
    if ordered is None:
        values.sort()
    low, *middle, high = percentiles(values, _PERCENTILES)
    at_0 = np.searchsorted(values, 0, side="right") / pixels.size
    at_1 = 1 - np.searchsorted(values, 1, side="left") / pixels.size
    return np.array([*spread, low, *middle, high, at_0, at_1], dtype=np.float32)


def percentiles(ordered: Pixels, wanted: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return percentiles, interpolated linearly between order statistics.

    As ``numpy.percentile``, of values that are sorted already: NumPy sorts several times faster
    than it selects, and an image is sorted once.

    :param ordered: (values,), ascending.
    """
    position = np.asarray(wanted) / 100 * (ordered.size - 1)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, ordered.size - 1)
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    values: npt.NDArray[np.float64] = low + (position - below) * (high - low)
    return values


def _statistics_of_8_bit(pixels: Pixels) -> npt.NDArray[np.float32]:
    counts = np.array(Image.fromarray(pixels).histogram())
    levels = np.arange(256) / 255
    mean = np.average(levels, weights=counts)
    std = np.sqrt(np.average((levels - mean) ** 2, weights=counts))
    percentiles = _percentiles_of_counts(counts) / 255
    ends = counts[[0, 255]] / pixels.size
    return np.array([mean, std, *percentiles, *ends], dtype=np.float32)


def _percentiles_of_counts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Interpolate linearly between order statistics, as ``numpy.percentile`` does."""
    cumulated = np.cumsum(counts)
    position = np.array(_PERCENTILES) / 100 * (cumulated[-1] - 1)
    below = np.searchsorted(cumulated, np.floor(position), side="right")
    above = np.searchsorted(cumulated, np.ceil(position), side="right")
    values: npt.NDArray[np.float64] = below + (position - np.floor(position)) * (above - below)
    return values
