"""Boxes: the pieces that JPEG 2000, HEIC and AVIF files are made of (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gelkit.images.pictures import ImageError

_HEAD, _LONG_HEAD = 8, 16
_TO_THE_END, _LONG = 0, 1
"""Lengths that stand for others."""


@dataclass(frozen=True)
class Box:
    """One piece of a file: what kind it is, and where its content lies."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes that lie one after another between two places of a file.

    :raises ImageError: one of them does not lie within the others' bounds.
    """
    end = len(data) if end is None else end
    while start + _HEAD <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        head = _HEAD
        if length == _LONG and start + _LONG_HEAD <= end:
            (length,) = struct.unpack_from(">Q", data, start + _HEAD)
            head = _LONG_HEAD
        if length == _TO_THE_END:
            length = end - start
        if not head <= length <= end - start:
            raise ImageError(
                "expected a file that is whole. Received: one that ends within its parts. "
                "Copy it again from where it came."
            )
        yield Box(kind, start + head, start + length)
        start += length


def boxes_along(data: bytes, *kinds: bytes) -> Iterator[Box]:
    """Yield the boxes of the last kind, in boxes of the kind before, and so on from the outside."""
    yield from _within(data, kinds, 0, len(data))


_VERSIONED = frozenset({b"meta"})
"""Boxes whose content begins with a version and flags, 4 bytes."""


def _within(data: bytes, kinds: tuple[bytes, ...], start: int, end: int) -> Iterator[Box]:
    first, *others = kinds
    for box in boxes(data, start, end):
        if box.kind == first and others:
            inside = box.start + (4 if first in _VERSIONED else 0)
            yield from _within(data, tuple(others), inside, box.end)
        elif box.kind == first:
            yield box
