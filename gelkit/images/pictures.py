"""Pictures as files store them: what a reader finds, what it may be asked, what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError, UsageError

Samples: TypeAlias = "npt.NDArray[Any]"
"""Numbers as stored, upright: (height, width) grey or (height, width, 3) red, green, blue."""

POLARITIES = {
    "keep": "as the file says that it is shown",
    "dark-background": "light bands on a dark background",
    "light-background": "dark bands on a light background",
}
"""What may be asked for; the last two also say what a picture is, if that is known."""

COLOUR_TOLERANCE = 16
"""Of 255: JPEG's rounding tints grey by a few values, and a tint within this loses nothing."""

UNKNOWN = "unknown"
"""The polarity of a picture of which nothing says what its background is."""

READ_FORMATS = (
    "PNG, JPEG, JPEG 2000, TIFF, BMP, GIF, WebP, AVIF or HEIC, or a .gel, .1sc or .scn file"
)
"""What is read, for messages."""


class ImageError(GelkitError):
    """An image cannot be decoded truthfully; the message says why."""


class LimitError(ImageError):
    """An image is beyond the limits; with others it might be read."""


@dataclass(frozen=True)
class DecodeOptions:
    """What a person chooses about how files are read.

    :raises UsageError: an unknown polarity, or a page or channel below 1.
    """

    polarity: str = "keep"
    """A key of :data:`POLARITIES`."""
    guess_polarity: bool = False
    """Whether the background is guessed where the file does not say."""
    page: int | None = None
    """From 1: which page or frame of a file that has several."""
    channel: int | None = None
    """From 1: which channel of a file that has several."""

    def __post_init__(self) -> None:
        if self.polarity not in POLARITIES:
            raise UsageError(
                f"Expected the polarity {', '.join(POLARITIES)}. Received: {self.polarity!r}."
            )
        for name, number in (("page", self.page), ("channel", self.channel)):
            if number is not None and number < 1:
                raise UsageError(f"Expected a {name} from 1 on. Received: {number}.")


@dataclass(frozen=True)
class Limits:
    """What one file may ask for; whatever declares more is refused before it is allocated.

    Seconds, memory and the path are watched by whoever reads files in processes of their own.
    Outside of stage one's processes Pillow refuses more than 178,956,970 pixels by itself.
    """

    pixels: int = 100_000_000
    bytes: int = 2**30
    """Of the file, and of the samples that it declares."""
    pages: int = 1000
    seconds: float = 14.0
    """To read and decode an image, and to render its views: with the program's own start, and the
    second between two looks at the clock, a file that would take for ever ends within 25 s."""
    memory: int = 2**30
    """Bytes that the same may take in all."""
    path: int = 4096
    """Bytes of a path."""


@dataclass(frozen=True)
class StoredPicture:
    """One picture out of a file, its samples as stored but upright."""

    samples: Samples
    container: str
    mode: str
    """Pillow's or NumPy's name of how a pixel is stored."""
    bits: int
    """Bits of a sample."""
    maximum: float | None = None
    """The stored value that means 1, if the file names one; else it follows from the type."""
    white_is_zero: bool = False
    """Whether 0 is shown white."""
    background: str = UNKNOWN
    """Where no signal lies when the picture is shown as the file says; :data:`POLARITIES`."""
    square_root: bool = False
    """Whether samples are square roots of what was measured."""
    alpha: Samples | None = None
    """(height, width), of the samples' type; None where nothing is transparent."""
    premultiplied: bool = False
    """Whether the samples have been multiplied by their alpha."""
    orientation: int = 1
    """1 to 8 as EXIF and TIFF count them, as stored; the samples are upright already."""
    page: int = 1
    pages: int = 1
    channel: int = 1
    channels: int = 1
    """Among how many the channel was to be chosen; 1 for grey and for colour taken as colour."""
    flags: frozenset[str] = frozenset()


def require_size(height: int, width: int, bytes_per_pixel: int, limits: Limits) -> None:
    """Check the size that a file declares before it is allocated.

    :raises ImageError: nothing, or more than the limits.
    """
    pixels = height * width
    if pixels < 1:
        raise ImageError(f"expected pixels. Received: a picture of {width} x {height}.")
    if pixels > limits.pixels:
        raise LimitError(
            f"expected at most {limits.pixels:,} pixels. Received: {width} x {height}. "
            "Crop it or make it smaller, or raise --max-pixels."
        )
    if pixels * bytes_per_pixel > limits.bytes:
        raise LimitError(
            f"expected at most {limits.bytes:,} bytes. Received: {width} x {height} pixels of "
            f"{bytes_per_pixel} bytes each. Crop it or make it smaller, or raise --max-bytes."
        )


def require_pages(count: int, limits: Limits) -> None:
    """Check how many pages or frames a file declares.

    :raises ImageError: more than the limit.
    """
    if count > limits.pages:
        raise LimitError(
            f"expected at most {limits.pages:,} pages. Received: {count:,} or more. "
            "Save the page that is the gel as a file of its own, or raise --max-pages."
        )


def chosen(number: int | None, count: int, what: str) -> int:
    """Return the index, from 0, of the page or channel that was chosen out of several.

    :param what: ``page`` or ``channel``, which is also the name of the column and of the option.
    :raises ImageError: none was chosen out of several, or one that the file does not have.
    """
    if number is None and count > 1:
        raise ImageError(
            f"expected one picture. Received: {count} {what}s of equal standing. Name those that "
            f"are gels, 1 to {count}, in a manifest's column {what!r}, or choose one of every file "
            f"with --{what}, where a command has it."
        )
    if number is not None and number > count:
        raise ImageError(
            f"expected a {what} from 1 to {count}, which this file has. Received: {number}. "
            f"Change the manifest's column {what!r} or --{what}."
        )
    return (number or 1) - 1


def one_channel(samples: Samples, channel: int | None) -> Samples:
    """Return one channel of colour, (height, width, 3), if one is asked for, else the samples.

    :raises ImageError: the samples are grey, or of fewer channels.
    """
    if samples.ndim == 2:
        chosen(channel, 1, "channel")
        return samples
    return samples if channel is None else samples[..., chosen(channel, 3, "channel")]


def imported_codecs(what: str) -> Any:
    """Import imagecodecs, which few files need.

    :param what: the kind of file that needs it.
    :raises ImageError: it is not installed.
    """
    try:
        import imagecodecs
    except ImportError:
        raise ImageError(
            f"expected the package imagecodecs, to read {what}. Received: an environment without "
            'it. Install it with pip install "gelkit[formats]".'
        ) from None
    return imagecodecs


def type_maximum(dtype: np.dtype[Any]) -> float:
    """Return the largest value of an integer type; 1 for floating point and for 1 bit."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def full_opacity(alpha: Samples, maximum: int) -> Samples:
    """Stretch opacity, which ends at a maximum, to the range of its type."""
    most = type_maximum(alpha.dtype)
    if maximum == most:
        return alpha
    return np.rint(alpha * (most / maximum)).astype(alpha.dtype)
