"""Decoding: bytes in; linear luminance and a record of how the file was read out.

Nothing is clipped, stretched or guessed here: a value of the file that is twice another stays
twice the other. What this version cannot decode truthfully it refuses with a reason.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from gelkit.errors import GelkitError

DECODE_VERSION = 1
"""Part of every recipe; raised whenever the same bytes decode to other pixels."""

FLAGS = (
    "inverted",
    "rotated",
    "transparent",
    "reduced-to-8-bit",
    "first-of-several-pictures",
)
"""What may be said of how a file was read. Later versions append; nothing is reordered.

``inverted``: stored with white as zero. ``rotated``: its orientation tag was applied.
``transparent``: laid on white. ``reduced-to-8-bit``: colour of 16 bits read with 8.
``first-of-several-pictures``: a camera's multi-picture JPEG, of which the first is the photograph.
"""

MAX_PIXELS = 2**28

Pixels: TypeAlias = "npt.NDArray[np.uint8] | npt.NDArray[np.float32]"

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises, by experience, on bytes that are damaged or made to do harm."""

_TAG_BITS_PER_SAMPLE = 258
_TAG_PHOTOMETRIC = 262
_TAG_ORIENTATION = 274
_TAG_MAX_SAMPLE_VALUE = 281
_TAG_MOLECULAR_DYNAMICS = 33445
_WHITE_IS_ZERO = 0


class ImageError(GelkitError):
    """An image cannot be decoded truthfully; the message says why."""


@dataclass(frozen=True)
class DecodeRecord:
    """How an image was read."""

    format: str
    """The container: ``PNG``, ``JPEG``, ``TIFF``..."""
    mode: str
    """Pillow's name for how the file stores a pixel: ``L``, ``RGB``, ``I;16``..."""
    height: int
    width: int
    bit_depth: int
    """Bits of the luminance that came out."""
    flags: frozenset[str] = frozenset()
    """Any of :data:`FLAGS`."""


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


def decode(data: bytes) -> DecodedImage:
    """Decode the bytes of an image file.

    Colour becomes luminance by ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue. Opaque alpha is
    dropped, real transparency laid on white. An orientation tag is applied once.

    :raises ImageError: the bytes are no image, damaged, or of a kind that cannot be decoded
        truthfully.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_unread_kinds(image)
            return _decode_opened(image, _is_16_bit_colour(image, data))
    except UnidentifiedImageError:
        raise ImageError(
            "expected PNG, JPEG, TIFF or another image format that Pillow reads. Received: "
            "something else. Instrument files: export a 16-bit TIFF from the imager's program."
        ) from None
    except _DAMAGE as error:
        raise ImageError(f"expected an image file that is whole. Received: {error}.") from error


def _refuse_unread_kinds(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"expected at most {MAX_PIXELS} pixels. Received: {width} x {height}.")
    if _TAG_MOLECULAR_DYNAMICS in _tags(image):
        raise ImageError(
            "expected linear pixels. Received: a Molecular Dynamics file, whose encoding this "
            "version does not undo. Export it as a linear 16-bit TIFF."
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageError(
            f"expected one picture. Received: {frames} pages or frames in one file. "
            "Export the page that is the gel."
        )


def _decode_opened(image: Image.Image, is_16_bit_colour: bool) -> DecodedImage:
    mode, container = image.mode, image.format or "unknown"
    bits = _bits_per_sample(image)
    maximum = _stored_maximum(image, bits)
    flags = {"reduced-to-8-bit"} if is_16_bit_colour else set()
    if container == "MPO":
        flags.add("first-of-several-pictures")
    inverted = _tags(image).get(_TAG_PHOTOMETRIC) == _WHITE_IS_ZERO
    upright, rotated = _upright(image)
    flags |= {"rotated"} if rotated else set()
    flags |= {"inverted"} if inverted else set()
    if mode in ("I;16", "I;16B", "I;16L"):
        pixels: Pixels = _linear(np.asarray(upright), maximum, inverted)
    else:
        pixels, transparent = _luminance(upright)
        flags |= {"transparent"} if transparent else set()
    height, width = pixels.shape
    record = DecodeRecord(container, mode, height, width, 1 if mode == "1" else bits)
    return DecodedImage(pixels, replace(record, flags=frozenset(flags)))


def _tags(image: Image.Image) -> dict[int, object]:
    return dict(getattr(image, "tag_v2", {}))


def _bits_per_sample(image: Image.Image) -> int:
    if not image.mode.startswith("I;16"):
        return 8
    stored = _tags(image).get(_TAG_BITS_PER_SAMPLE, (16,))
    return int(stored[0]) if isinstance(stored, tuple) else 16


def _stored_maximum(image: Image.Image, bits: int) -> int:
    """Return the value that means 1: the file's own tag if it is possible, else the type's."""
    full = 2**bits - 1
    tag = _tags(image).get(_TAG_MAX_SAMPLE_VALUE, full)
    tag = tag[0] if isinstance(tag, tuple) else tag
    return tag if isinstance(tag, int) and 0 < tag <= full else full


def _is_16_bit_colour(image: Image.Image, data: bytes) -> bool:
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return data[24] == 16  # the bit depth in PNG's header chunk
    bits = _tags(image).get(_TAG_BITS_PER_SAMPLE, ())
    return isinstance(bits, tuple) and 16 in bits


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Apply the orientation tag once; Pillow has already done so for TIFF after loading."""
    orientation = image.getexif().get(_TAG_ORIENTATION, 1)
    image.load()
    return ImageOps.exif_transpose(image), orientation not in (0, 1)


def _linear(values: npt.NDArray[np.uint16], maximum: int, inverted: bool) -> Pixels:
    if int(values.max()) > maximum:
        raise ImageError(
            f"expected values up to {maximum}, as the file says. Received: {values.max()}."
        )
    fractions = values.astype(np.float32) / np.float32(maximum)
    return np.float32(1) - fractions if inverted else fractions


def _luminance(image: Image.Image) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return 8-bit luminance, and whether anything was transparent."""
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise ImageError(
            f"expected grey of 1 to 16 bits, or colour. Received: Pillow's mode {image.mode!r}, "
            "which this version does not decode. Export it as 8- or 16-bit grey TIFF or PNG."
        )
    transparent = False
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        transparent = bool(np.asarray(image.getchannel("A")).min() < 255)
        if transparent:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    if image.mode in ("P", "PA", "RGBA"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L")), transparent
