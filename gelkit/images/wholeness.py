"""Wholeness: what Pillow passes over in PNGs and bitmaps that are damaged, or that it misreads.

Its decoders stop at damage that they cannot decode. What they can, though to another picture, is
checked here, as far as the file has something to check it by.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from math import ceil

from PIL import Image

from gelkit.images.pictures import ImageError

_SIGNATURE_BYTES = 8
_BESIDE_CONTENT = 12
"""Bytes of a PNG's chunk for its length, kind and checksum."""
_PIXELS = (b"IDAT", b"fdAT")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By a PNG's type of colour."""
_PALETTED = 3
_CLEAR_BYTES = {0: 2, 2: 6}
"""How many bytes name the one grey, or the one colour, that is transparent."""
_COLOURS = (b"PLTE", b"tRNS")
_COLOUR_ORDERS: dict[bool, tuple[tuple[bytes, ...], ...]] = {
    True: (_COLOURS[:1], _COLOURS),
    False: ((), _COLOURS[:1], _COLOURS[1:], _COLOURS),
}
"""What of palette and transparency may come before the pixels, if these need a palette or not."""
_WHOLE = ((0, 0, 1, 1),)
_INTERLACED = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Passes: their first column and row, and the steps to the next (PNG, third edition, 8.2)."""
_PIECE_BYTES = 2**20

_BITMAP_FILE_HEADER = 14
"""Bytes before a bitmap's own header, which begins with its size."""
_OLD_HEADER, _BITS_OF_OLD, _BITS = 12, 10, 14
"""The size of OS/2's header, and where it and all others keep the bits of a pixel."""


def require_sound(image: Image.Image, data: bytes) -> None:
    """Check what a PNG or a bitmap says of itself, before it is decoded.

    :raises ImageError: damage, or a bitmap that Pillow misreads.
    """
    if image.format == "PNG":
        _require_sound_png(data)
    if image.format in ("BMP", "DIB"):
        _require_own_depth(image, data)


def require_all_rows(image: Image.Image, data: bytes) -> None:
    """Check that a PNG, which has been decoded, has as many rows as it says.

    Those that it lacks are zeros. To count them is to inflate the pixels once more, so they are
    counted only where the last row is nothing but zeros, where rows are not in order, and where
    the first frame of an animation may say that it is smaller than the picture.

    :raises ImageError: rows are missing.
    """
    if image.format != "PNG":
        return
    header = _header(data)
    last = image.crop((0, image.height - 1, image.width, image.height))
    in_order = header.passes is _WHOLE and not getattr(image, "is_animated", False)
    if in_order and last.getbbox(alpha_only=False) is not None:
        return
    pieces = [chunk.content for chunk in _chunks(data) if chunk.kind == b"IDAT"]
    if _inflated_bytes(pieces, header.inflated) < header.inflated:
        raise ImageError(
            f"expected {header.height} rows, as the file says. Received: fewer. "
            "Copy it again from where it came."
        )


@dataclass(frozen=True)
class _Chunk:
    """A piece of a PNG."""

    kind: bytes
    content: memoryview
    sound: bool
    """Whether its checksum is right; unknown, and so true, of what holds no pixels."""


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield the chunks of a PNG up to its end; checksums only of pixels: Pillow checks others."""
    place, view = _SIGNATURE_BYTES, memoryview(data)
    kind = b""
    while kind != b"IEND" and place + _BESIDE_CONTENT <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + _BESIDE_CONTENT + length
        stated = int.from_bytes(view[end - 4 : end], "big")
        sound = kind not in _PIXELS or zlib.crc32(view[place + 4 : end - 4]) == stated
        yield _Chunk(kind, view[place + 8 : end - 4], sound)
        place = end


@dataclass(frozen=True)
class _Header:
    """The measures of a PNG."""

    width: int
    height: int
    bits: int
    """Of a pixel."""
    colour: int
    passes: tuple[tuple[int, int, int, int], ...]

    @property
    def inflated(self) -> int:
        """How many bytes the pixels have before they are compressed; each row has one more."""
        sizes = [
            (ceil((self.width - left) / right), ceil((self.height - top) / down))
            for left, top, right, down in self.passes
        ]
        return sum(
            rows * (1 + ceil(columns * self.bits / 8))
            for columns, rows in sizes
            if columns > 0 and rows > 0
        )


def _header(data: bytes) -> _Header:
    width, height, bits, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    passes = _INTERLACED if interlaced else _WHOLE
    return _Header(width, height, bits * _CHANNELS[colour], colour, passes)


def _require_sound_png(data: bytes) -> None:
    chunks = list(_chunks(data))
    kinds = [chunk.kind for chunk in chunks]
    if not all(chunk.sound for chunk in chunks):
        raise ImageError(
            "expected a PNG that is whole. Received: one whose pixels are not those of their "
            "checksum. Copy it again from where it came."
        )
    if kinds[:1] != [b"IHDR"] or kinds.count(b"IHDR") > 1:
        raise ImageError(
            "expected a PNG that begins with its header. Received: another order, or several. "
            "Save it again from the program that wrote it."
        )
    if not _has_sound_colours(chunks, _header(data).colour):
        raise ImageError(
            "expected a whole palette where the pixels need one, and what is transparent once, "
            "both before the pixels. Received: another order, or none, or too many. "
            "Save it again from the program that wrote it."
        )


def _has_sound_colours(chunks: list[_Chunk], colour: int) -> bool:
    """Tell whether palette and transparency are where, and as, every program sees them."""
    order = [chunk.kind for chunk in chunks if chunk.kind in (*_COLOURS, b"IDAT")]
    before = tuple(takewhile(lambda kind: kind != b"IDAT", order))
    if before not in _COLOUR_ORDERS[colour == _PALETTED] or set(order[len(before) :]) & set(
        _COLOURS
    ):
        return False
    sizes = {chunk.kind: len(chunk.content) for chunk in chunks if chunk.kind in _COLOURS}
    clear = sizes.get(b"tRNS", 0)
    if colour != _PALETTED:
        return clear in (0, _CLEAR_BYTES.get(colour, clear))
    colours, rest = divmod(sizes[b"PLTE"], 3)
    return rest == 0 and clear <= colours


def _inflated_bytes(pieces: list[memoryview], most: int) -> int:
    """Count the bytes that pieces of one deflated stream inflate to, up to about ``most``."""
    inflater, count = zlib.decompressobj(), 0
    for piece in pieces:
        rest: bytes | memoryview = piece
        while rest and count < most:
            count += len(inflater.decompress(rest, _PIECE_BYTES))
            rest = inflater.unconsumed_tail
    return count


def _require_own_depth(image: Image.Image, data: bytes) -> None:
    """Refuse a bitmap of 4 or 8 bits a pixel whose few colours Pillow takes for 1 bit or for 8.

    So it does with a palette of black and white, or of the first greys, whatever the bits.
    """
    head = _BITMAP_FILE_HEADER if image.format == "BMP" else 0
    place = _BITS_OF_OLD if data[head] == _OLD_HEADER else _BITS
    (bits,) = struct.unpack_from("<H", data, head + place)
    if bits != {"1": 1, "L": 8}.get(image.mode, bits):
        raise ImageError(
            f"expected a bitmap whose palette says what its {bits} bits are. Received: one of "
            f"black and white, or of few greys, of {bits} bits. Save it as PNG."
        )
