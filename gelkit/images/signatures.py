"""Signatures: how an image is known by its first bytes, where its name does not end in a kind."""

from __future__ import annotations

import struct

FIRST_BYTES = 32
"""As many as :func:`begins_as_image` looks at."""

_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"II+\0"),
    (0, b"MM\0+"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n"),
    (0, b"\xff\x4f\xff\x51"),
    (8, b"WEBPVP8"),
    *((4, b"ftyp" + brand) for brand in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")),
)
"""Where a signature stands, and what it is."""

_BITMAP = struct.Struct("<2s4xIII")
_BITMAP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
"""Sizes of a bitmap's second header: two letters alone would make many a text one."""


def begins_as_image(data: bytes) -> bool:
    """Tell whether the first bytes of a file are those of an image that gelkit reads."""
    if any(data[place : place + len(its)] == its for place, its in _SIGNATURES):
        return True
    if len(data) < _BITMAP.size:
        return False
    letters, reserved, _, header = _BITMAP.unpack_from(data)
    return letters == b"BM" and reserved == 0 and header in _BITMAP_HEADERS
