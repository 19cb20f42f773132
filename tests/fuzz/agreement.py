"""Agreement: what a second, independent decoder makes of the same bytes.

That is OpenCV, and biorad1sc_reader of .1sc files; of .scn files there is none. They leave to
their caller much of what a file says of its numbers. So their samples are turned into luminance by
the formulas that :func:`gelkit.images.formats.decode` documents, written here a second time.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.images.formats import DecodedImage, DecodeRecord
from gelkit.images.instruments import is_1sc

AGREE, UNREAD, _UNKNOWN = "agree", "cannot read it", "unknown cause:"

Fractions: TypeAlias = "npt.NDArray[np.float64]"

_TOLERANCE = 1.6 / 255
"""Luminance and transparency are each rounded to 8 bits by one of the two."""
_TOLERANCE_OF_INKS = 3 / 255
"""OpenCV rounds each colour of inks up, and their luminance once more."""
_BITMAP_HEAD = 54
"""Bytes of a BMP before its palette."""
_WEIGHTS = (0.114, 0.587, 0.299)
"""Of blue, green and red, OpenCV's order."""


def opinion(data: bytes, decoded: DecodedImage) -> str:
    """Return ``agree``, ``cannot read it``, or the cause of the disagreement."""
    second = _stored_1sc if is_1sc(data) else _stored
    stored = second(data, decoded.record.page - 1)
    if stored is None:
        return UNREAD
    own = decoded.pixels / (255 if decoded.pixels.dtype == np.uint8 else 1)
    others = [_shown(stored, decoded.record, premultiplied) for premultiplied in (False, True)]
    tolerance = _TOLERANCE_OF_INKS if "inks-by-rule" in decoded.record.flags else _TOLERANCE
    if any(_agree(own, other, tolerance) for other in others):
        return AGREE
    return _cause(data, decoded.record, stored)


def _agree(own: Fractions, other: Fractions, tolerance: float) -> bool:
    return own.shape == other.shape and bool((np.abs(own - other) <= tolerance).all())


def _stored(data: bytes, page: int) -> npt.NDArray[Any] | None:
    """Return OpenCV's samples of a page, from 0, or None if it cannot read it."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    buffer, flag = np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
    try:
        if data[:2] in (b"II", b"MM"):
            _, pages = cv2.imdecodemulti(buffer, flag, range=(page, page + 1))
            return pages[0] if pages else None
        _, pages = cv2.imdecodemulti(buffer, flag)  # of a range of frames it gives the first
    except cv2.error:
        return None
    return pages[page] if page < len(pages) else None


def _stored_1sc(data: bytes, _: int) -> npt.NDArray[Any] | None:
    """Return biorad1sc_reader's counts, or None if it cannot read them."""
    from biorad1sc_reader import Reader

    try:
        width, height, counts = Reader(io.BytesIO(data)).get_img_data()
        return np.asarray(counts).reshape(height, width)
    except Exception:  # it is not made for damage
        return None


def _shown(stored: npt.NDArray[Any], record: DecodeRecord, premultiplied: bool) -> Fractions:
    """Return luminance in 0 to 1 by gelkit's documented formulas.

    :param premultiplied: whether colour has been multiplied by its alpha, which OpenCV does not
        say: it does so itself for some TIFFs.
    """
    fractions = _luminance(stored / _full(stored, record), record, premultiplied)
    inverted = "inverted" in record.flags
    if inverted and stored.dtype == np.uint8:
        fractions = 1 - fractions  # OpenCV shows 8 bits as the file says, and others as stored
    if "square-root-undone" in record.flags:
        fractions = fractions**2
    if inverted:
        fractions = 1 - fractions
    if record.format not in ("TIFF", "OME-TIFF", "Molecular Dynamics GEL"):
        fractions = _upright(fractions, record.orientation)
    return 1 - fractions if "polarity-inverted" in record.flags else fractions


def _full(stored: npt.NDArray[Any], record: DecodeRecord) -> float:
    """Return which stored value means 1; OpenCV spreads 12 bits over 16."""
    if stored.dtype == np.uint8:
        return 255
    return 65535 if stored.dtype == np.uint16 and record.bit_depth < 16 else record.maximum


def _luminance(colour: Fractions, record: DecodeRecord, premultiplied: bool) -> Fractions:
    if colour.ndim == 2:
        return colour
    blue_green_red = colour[..., :3]
    chosen = record.channels > 1
    grey: Fractions = (
        blue_green_red[..., 3 - record.channel] if chosen else blue_green_red @ np.array(_WEIGHTS)
    )
    if colour.shape[-1] == 4 and "transparent" in record.flags:
        opacity = colour[..., 3]
        grey = np.clip((grey if premultiplied else grey * opacity) + 1 - opacity, 0, 1)
    return grey


def _upright(fractions: Fractions, orientation: int) -> Fractions:
    """Turn by what each orientation says of the first row and column (TIFF 6.0, page 36)."""
    turned = fractions.T if orientation >= 5 else fractions
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned[::-1] if orientation in (3, 4, 7, 8) else turned


@dataclass(frozen=True)
class _Bitmap:
    """What a BMP's header says."""

    place: int
    """Where its pixels begin."""
    bits: int
    compression: int
    colours: int
    """Of its palette."""

    def lacks_colours(self) -> bool:
        """Tell whether the palette is short, or reaches into the pixels."""
        whole = 2**self.bits if self.bits <= 8 else 0
        colours = self.colours or whole
        return colours < whole or self.place < _BITMAP_HEAD + 4 * min(colours, whole)


def _bitmap(data: bytes) -> _Bitmap | None:
    if data[:2] != b"BM" or len(data) < _BITMAP_HEAD:
        return None
    place, bits, compression, colours = struct.unpack_from("<I14xHI12xI", data, 10)
    return _Bitmap(place, bits, compression, colours)


_BITMAP_CAUSES: dict[str, Callable[[_Bitmap], bool]] = {
    "a BMP does not say where its pixels begin; OpenCV reads its header as pixels": (
        lambda bitmap: bitmap.place == 0
    ),
    "OpenCV shifts a BMP's 5 bits of a colour to 8, and does not stretch them": (
        lambda bitmap: bitmap.bits == 16
    ),
    "pixels that a BMP's run lengths leave out are the first colour, or what OpenCV likes": (
        lambda bitmap: bitmap.compression in (1, 2)
    ),
    "a BMP's palette lacks colours that its pixels name": _Bitmap.lacks_colours,
}
_CAUSES: dict[str, Callable[[DecodeRecord, npt.NDArray[Any]], bool]] = {
    "of several grey samples OpenCV returns the first, with 8 bits": lambda record, stored: (
        " x " in record.mode and stored.ndim == 2
    ),
    "OpenCV knows no profiles of inks": lambda record, stored: "inks-by-profile" in record.flags,
    "OpenCV ignores the one grey that a PNG may call transparent": (
        lambda record, stored: (
            record.format == "PNG" and "transparent" in record.flags and stored.ndim == 2
        )
    ),
}
"""Why the two may disagree with neither being mistaken, or with OpenCV being so."""


def _cause(data: bytes, record: DecodeRecord, stored: npt.NDArray[Any]) -> str:
    """Return the known cause of a disagreement, or what is to be looked into."""
    bitmap = _bitmap(data)
    causes = [cause for cause, holds in _CAUSES.items() if holds(record, stored)]
    causes += [cause for cause, holds in _BITMAP_CAUSES.items() if bitmap and holds(bitmap)]
    flags = " ".join(sorted(record.flags))
    unknown = (
        f"{_UNKNOWN} {record.format} {record.mode}, {stored.dtype} {stored.shape[2:]}, {flags}"
    )
    return next(iter(causes), unknown)


def is_explained(opinion: str) -> bool:
    """Tell whether an opinion is agreement, or a disagreement whose cause is known."""
    return not opinion.startswith(_UNKNOWN)
