"""Decoding: bytes in; linear luminance and a record of how the file was read out.

Nothing is clipped or stretched here: a value of the file that is twice another stays twice the
other. Nothing is guessed unless asked. What cannot be decoded truthfully is refused with a reason.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.images import heif, instruments, rasters, tiffs
from gelkit.images.luminance import grey_of_colour, laid_on_white
from gelkit.images.pictures import (
    POLARITIES,
    READ_FORMATS,
    UNKNOWN,
    DecodeOptions,
    ImageError,
    LimitError,
    Limits,
    Samples,
    StoredPicture,
    type_maximum,
)
from gelkit.images.polarity import OPPOSITE, guessed_polarity, inverted

__all__ = [
    "DECODE_VERSION",
    "FLAGS",
    "POLARITIES",
    "DecodeOptions",
    "DecodeRecord",
    "DecodedImage",
    "ImageError",
    "LimitError",
    "Limits",
    "Pixels",
    "decode",
]

DECODE_VERSION = 3
"""Part of every recipe; raised whenever the same bytes decode to other pixels.

Bytes that were refused have no pixels: to read their kind leaves it as it is, and every cache with
it. Their failures are tried again, as they name the packages that decoded, which are then others.
"""

FLAGS = {
    "inverted": "stored with white as zero, which was undone",
    "rotated": "an orientation tag was applied",
    "transparent": "transparency was laid on white",
    "reduced-to-8-bit": "colour of 16 bits was read with 8",
    "first-of-several-pictures": "the photograph of a camera's file of several pictures was taken",
    "polarity-inverted": "inverted to have the background that was asked for",
    "polarity-guessed": "the background was guessed from the pixels",
    "polarity-unknown": "a background was asked for, but nothing says which it has; left as it is",
    "page-chosen": "of several pages the one that is clearly the picture was taken",
    "channel-chosen": "one of several channels was taken, as asked for",
    "channels-left-out": "samples of no known meaning beside red, green and blue were ignored",
    "saturated": "more than 0.1% of the pixels have the largest signal that can be stored",
    "square-root-undone": "stored as square roots of counts, which were squared",
    "palette": "colours were looked up in a palette",
    "colour": "not grey; its luminance was taken",
    "scaled-to-own-maximum": "floating point beyond 1 without a maximum; its own became 1",
    "inks-by-profile": "four inks became colour by the profile in the file",
    "inks-by-rule": "four inks without a profile became colour by a plain rule; it may be wrong",
}
"""What may be said of how a file was read. Caches keep places: append, reorder nothing."""

Pixels: TypeAlias = "npt.NDArray[np.uint8] | npt.NDArray[np.float32]"

_SATURATED_FRACTION = 0.001

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What decoders raise, by experience, on bytes that are damaged or made to do harm.

Errors of tifffile are ValueErrors, of imagecodecs RuntimeErrors, of XML SyntaxErrors.
"""


@dataclass(frozen=True)
class _Reader:
    """Who reads what begins in a certain way; a row of :data:`_READERS`."""

    recognizes: Callable[[bytes], bool]
    read: Callable[[bytes, DecodeOptions, Limits], StoredPicture]


_READERS = (
    _Reader(tiffs.is_tiff, tiffs.read),
    _Reader(instruments.is_1sc, instruments.read_1sc),
    _Reader(instruments.is_bio_rad_scn, instruments.read_scn),
    _Reader(heif.is_heif, heif.read),
)
"""In this order; what none recognizes is for Pillow."""

_UNREAD: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("DICOM", 128, (b"DICM",)),
    ("PDF", 0, (b"%PDF",)),
    ("PostScript", 0, (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("SVG", 0, (b"<svg",)),
    ("NIfTI", 344, (b"n+1\0", b"ni1\0")),
    ("HDF5 (Imaris and others)", 0, (b"\x89HDF\r\n\x1a\n",)),
    ("ZIP (Odyssey, iBright and others pack several files so)", 0, (b"PK\x03\x04",)),
    ("gzip", 0, (b"\x1f\x8b",)),
    ("OLE2 (older instruments and Office)", 0, (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
    ("Photoshop", 0, (b"8BPS",)),
    ("GIMP", 0, (b"gimp xcf",)),
    ("FITS", 0, (b"SIMPLE  =",)),
    ("JPEG XL", 0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("Zeiss CZI", 0, (b"ZISRAWFILE",)),
    ("Nikon ND2", 0, (b"\xda\xce\xbe\x0a",)),
    ("Leica LIF", 0, (b"\x70\0\0\0",)),
    ("Bio-Rad confocal PIC", 54, (b"\x39\x30",)),
)
"""Formats that are met beside gels and not read: name, place of the signature, signatures."""


@dataclass(frozen=True)
class DecodeRecord:
    """How an image was read."""

    format: str
    """The container: ``PNG``, ``JPEG``, ``TIFF``, ``Bio-Rad 1sc``..."""
    mode: str
    """Pillow's or NumPy's name for how the file stores a pixel: ``L``, ``I;16``, ``float32``..."""
    height: int
    width: int
    bit_depth: int
    """Bits of a sample as stored."""
    flags: frozenset[str] = frozenset()
    """Any of :data:`FLAGS`."""
    maximum: float = 255
    """The stored value that means 1."""
    polarity: str = UNKNOWN
    """Of the picture that came out: ``dark-background``, ``light-background`` or ``unknown``."""
    polarity_source: str = UNKNOWN
    """Who says so: ``file``, ``guessed`` or ``unknown``."""
    orientation: int = 1
    """1 to 8 as EXIF and TIFF count them, as stored; it has been applied."""
    page: int = 1
    pages: int = 1
    channel: int = 1
    channels: int = 1
    """Among how many channels one was chosen; 1 for grey, and for colour taken as colour."""
    saturated: float = 0.0
    """Fraction of the pixels that have the largest signal that can be stored.

    That is the darkest pixel where the background is known to be light, else the lightest.
    """


@dataclass(frozen=True)
class DecodedImage:
    """An image as linear luminance.

    ``pixels`` is (height, width): uint8 (0 to 255) from files of up to 8 bits, otherwise float32
    (0 to 1, where 1 is the largest value the file's type, or its own tag, allows).
    """

    pixels: Pixels
    record: DecodeRecord

    @cached_property
    def ordered(self) -> Pixels:
        """All values in ascending order, (height * width,): what percentiles are read from."""
        values: Pixels = self.pixels.flatten()
        values.sort()
        return values


_DEFAULT_OPTIONS = DecodeOptions()
_DEFAULT_LIMITS = Limits()


def decode(
    data: bytes, options: DecodeOptions = _DEFAULT_OPTIONS, limits: Limits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Decode the bytes of an image file.

    Colour becomes luminance by ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue. Opaque alpha is
    dropped, real transparency laid on white. An orientation tag is applied once. The largest
    value is the type's, or less where the file's bits per sample or MaxSampleValue say so.
    Negative numbers are refused, and so are values above the maximum that the file states.
    Floating point within 0 to 1 is taken as it is; beyond, the file's maximum is 1, else its own.

    :raises MemoryError: there is too little of it.
    :raises ImageError: the bytes are no image, damaged, beyond the limits, or of a kind that
        cannot be decoded truthfully.
    """
    if len(data) > limits.bytes:
        raise LimitError(
            f"expected at most {limits.bytes:,} bytes. Received: a file of {len(data):,}. "
            "Raise --max-bytes if it is a gel."
        )
    try:
        return _developed(_read(data, options, limits), options)
    except MemoryError:
        raise  # it tells of this machine, or of limits, and not of the file
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"expected an image file that is whole. Received: {reason}.") from error


def _read(data: bytes, options: DecodeOptions, limits: Limits) -> StoredPicture:
    for reader in _READERS:
        if reader.recognizes(data):
            return reader.read(data, options, limits)
    name = _unread_format(data)
    if name is not None:
        raise ImageError(
            f"expected {READ_FORMATS}. Received: {name}, which is not read. Export a 16-bit TIFF."
        )
    return rasters.read(data, options, limits)


def _unread_format(data: bytes) -> str | None:
    for name, place, signatures in _UNREAD:
        if data[place : place + 16].startswith(signatures):
            return name
    return "SVG" if data[:5] == b"<?xml" and b"<svg" in data[:4096] else None


@dataclass(frozen=True)
class _Developed:
    """Luminance on its way: shown as the file says, and what has been done."""

    pixels: Pixels
    maximum: float
    flags: frozenset[str]


def _developed(picture: StoredPicture, options: DecodeOptions) -> DecodedImage:
    shown = _shown(picture)
    background, source = _background(picture, shown.pixels, options)
    saturated = _saturated_fraction(shown.pixels, background)
    flags = {
        "rotated": picture.orientation != 1,
        "saturated": saturated > _SATURATED_FRACTION and picture.bits >= 8,
        "polarity-guessed": source == "guessed",
        "polarity-unknown": options.polarity != "keep" and background == UNKNOWN,
        "polarity-inverted": background == OPPOSITE.get(options.polarity),
    }
    turned = flags["polarity-inverted"]
    pixels: Pixels = inverted(shown.pixels) if turned else shown.pixels
    record = DecodeRecord(
        format=picture.container,
        mode=picture.mode,
        height=pixels.shape[0],
        width=pixels.shape[1],
        bit_depth=picture.bits,
        flags=shown.flags | {flag for flag, true in flags.items() if true},
        maximum=shown.maximum,
        polarity=OPPOSITE[background] if turned else background,
        polarity_source=source,
        orientation=picture.orientation,
        page=picture.page,
        pages=picture.pages,
        channel=picture.channel,
        channels=picture.channels,
        saturated=saturated,
    )
    return DecodedImage(pixels, record)


def _shown(picture: StoredPicture) -> _Developed:
    """Return linear luminance as the file says that it is shown."""
    samples = picture.samples
    grey = samples if samples.ndim == 2 else grey_of_colour(samples)
    pixels, maximum, own = _fractions(grey, picture)
    if picture.square_root:
        pixels = np.square(_as_fractions(pixels))
    if picture.white_is_zero:
        pixels = inverted(pixels)
    if picture.alpha is not None:
        pixels = _composited(pixels, picture)
    flags = {
        "inverted": picture.white_is_zero,
        "transparent": picture.alpha is not None,
        "square-root-undone": picture.square_root,
        "scaled-to-own-maximum": own,
    }
    said = frozenset(flag for flag, true in flags.items() if true)
    return _Developed(pixels, maximum, picture.flags | said)


def _fractions(grey: Samples, picture: StoredPicture) -> tuple[Pixels, float, bool]:
    """Return 8-bit grey as it is or other grey in 0 to 1; its maximum; whether that is its own."""
    if grey.dtype == bool:
        return grey.astype(np.uint8) * np.uint8(255), 1, False
    if grey.dtype == np.uint8 and picture.maximum in (None, 255):
        return grey, 255, False
    maximum, own = _maximum(grey, picture)
    if grey.dtype in (np.uint8, np.uint16, np.float32):
        return grey.astype(np.float32) / np.float32(maximum), maximum, own
    return (grey / maximum).astype(np.float32), maximum, own


def _maximum(grey: Samples, picture: StoredPicture) -> tuple[float, bool]:
    """Return the value that means 1, and whether it is the picture's own largest.

    :raises ImageError: values that are negative, not finite, or above what the file states.
    """
    lowest, highest = float(grey.min()), float(grey.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ImageError(
            "expected finite numbers. Received: NaN or infinity. "
            "Export it as a 16-bit TIFF, or replace what is missing."
        )
    if lowest < 0:
        raise ImageError(
            f"expected values from 0 on. Received: {lowest:g}. Where 0 lies is not for gelkit to "
            "guess: add an offset, or export it as an unsigned 16-bit TIFF."
        )
    stored = picture.samples.dtype
    stated = picture.maximum or (type_maximum(stored) if stored.kind in "iu" else None)
    if stated is None:
        return (highest, True) if highest > 1 else (1.0, False)
    if highest > stated * (1 + 1e-6):
        raise ImageError(
            f"expected values up to {stated:g}, as the file says. Received: {highest:g}. "
            "Save it again without its MaxSampleValue."
        )
    return stated, False


def _as_fractions(pixels: Pixels) -> npt.NDArray[np.float32]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return pixels.astype(np.float32, copy=False)


def _composited(pixels: Pixels, picture: StoredPicture) -> Pixels:
    alpha = picture.alpha
    assert alpha is not None
    opacity = alpha.astype(np.float32) / np.float32(type_maximum(alpha.dtype))
    laid = laid_on_white(_as_fractions(pixels), opacity, picture.premultiplied)
    composited: Pixels = np.rint(laid * 255).astype(np.uint8) if pixels.dtype == np.uint8 else laid
    return composited


def _background(picture: StoredPicture, pixels: Pixels, options: DecodeOptions) -> tuple[str, str]:
    """Return the polarity of the picture as shown, and who says so."""
    if picture.background != UNKNOWN:
        return picture.background, "file"
    if not options.guess_polarity:
        return UNKNOWN, UNKNOWN
    guess = guessed_polarity(pixels)
    return guess, UNKNOWN if guess == UNKNOWN else "guessed"


def _saturated_fraction(pixels: Pixels, background: str) -> float:
    white = 255 if pixels.dtype == np.uint8 else 1
    strongest = 0 if background == "light-background" else white
    return float(np.count_nonzero(pixels == strongest) / pixels.size)
