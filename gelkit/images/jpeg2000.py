"""JPEG 2000: what a file says of its samples, which Pillow shifts, reduces or takes for others."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from gelkit.images.boxes import Box, boxes, boxes_along
from gelkit.images.pictures import ImageError

_CODESTREAM = b"\xff\x4f\xff\x51"
"""The markers that a codestream begins with: its start, and the size (ISO/IEC 15444-1, A.5.1)."""
_SIZE = struct.Struct(">HHIIIIIIIIH")
_MOST_BITS = 16
_RGB, _GREY, _YCC = 16, 17, 18
_ENUMERATED, _RESTRICTED_PROFILE, _PROFILE = 1, 2, 3
"""How a colour space is named (I.5.3.3)."""
_COLOURS = {1: (_GREY,), 2: (_GREY,), 3: (_RGB, _YCC), 4: (_RGB, _YCC)}
"""Colour spaces that are read, by the number of components; two and four of them with opacity."""
_OPACITY = (1, 0)
"""The type of a channel of opacity, and that it is one of the whole picture (I.5.3.6)."""


@dataclass(frozen=True)
class Components:
    """The samples of a JPEG 2000 file."""

    count: int
    width: int
    height: int
    bits: int
    colour_space: int | None
    """An enumerated colour space, if the file names one."""

    @property
    def is_rgb(self) -> bool:
        """Whether colours are stored as red, green and blue, or there are none."""
        return self.colour_space != _YCC


def read_components(data: bytes) -> Components:
    """Read how the samples of a file are stored.

    :raises ImageError: of a kind whose meaning is not stated, or that is not read truthfully.
    """
    is_bare = data.startswith(_CODESTREAM)
    place = 0 if is_bare else next((box.start for box in boxes_along(data, b"jp2c")), None)
    if place is None or data[place : place + 4] != _CODESTREAM:
        raise ImageError(
            "expected a JPEG 2000 file that is whole. Received: one without pixels. "
            "Copy it again from where it came."
        )
    stored = _stored(data, place)
    count = stored.count
    parts = {} if is_bare else {box.kind: box for box in _header(data)}
    if b"pclr" in parts:
        raise _refused("a palette")
    colour = _colour_space(data, parts.get(b"colr"), count)
    if count in (2, 4) and not _has_opacity(data, parts.get(b"cdef"), count):
        raise _refused(f"{count} samples a pixel, and nothing that says what the last one is")
    return replace(stored, colour_space=colour)


def _stored(data: bytes, place: int) -> Components:
    """Return what the codestream says of its components."""
    _, _, right, bottom, left, top, *_, count = _SIZE.unpack_from(data, place + 4)
    if count not in _COLOURS:
        raise _refused(f"{count} samples a pixel")
    start = place + 4 + _SIZE.size
    described = {data[start + 3 * number : start + 3 * number + 3] for number in range(count)}
    if len(described) > 1:
        raise _refused("samples of different kinds")
    depth, across, down = described.pop()
    if depth & 0x80:
        raise _refused("numbers with a sign")
    if (across, down) != (1, 1):
        raise _refused("fewer samples than pixels")
    if depth + 1 > _MOST_BITS:
        raise _refused(f"samples of {depth + 1} bits")
    return Components(count, right - left, bottom - top, depth + 1, None)


def _header(data: bytes) -> list[Box]:
    return [part for box in boxes_along(data, b"jp2h") for part in boxes(data, box.start, box.end)]


def _colour_space(data: bytes, box: Box | None, count: int) -> int | None:
    if box is None:
        return None
    method = data[box.start]
    if method in (_RESTRICTED_PROFILE, _PROFILE):
        return None
    (space,) = struct.unpack_from(">I", data, box.start + 3)
    if method != _ENUMERATED or space not in _COLOURS[count]:
        raise _refused(f"{count} samples a pixel of colour space {space}")
    return int(space)


def _has_opacity(data: bytes, box: Box | None, count: int) -> bool:
    """Tell whether the last channel is opacity, and those before are colours in their order."""
    if box is None:
        return False
    (number,) = struct.unpack_from(">H", data, box.start)
    said = {}
    for place in range(number):
        channel, *meaning = struct.unpack_from(">HHH", data, box.start + 2 + 6 * place)
        said[channel] = tuple(meaning)
    colours = {channel: (0, channel + 1) for channel in range(count - 1)}
    return said == colours | {count - 1: _OPACITY}


def _refused(received: str) -> ImageError:
    return ImageError(
        "expected a JPEG 2000 file of grey or RGB, of up to 16 bits. "
        f"Received: {received}. Export it as TIFF or PNG."
    )
