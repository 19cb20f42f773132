"""Broken: readers that each do one thing that none may, to show that the engine sees it."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gelkit.images.formats import DecodedImage
from gelkit.images.polarity import inverted
from tests.fuzz.targets import TARGETS as SOUND
from tests.fuzz.targets import Reader, Target

_SOUND = SOUND["BMP"]


def _breaking(breaks: Callable[[], object]) -> Target:
    """Return a target that breaks on every third mutant or so, and on no whole file."""
    whole = set(_SOUND.corpus())

    def open_(folder: Path) -> Reader:
        read = _SOUND.open(folder)

        def read_or_break(data: bytes) -> object:
            if data not in whole and zlib.crc32(data) % 3 == 0:
                breaks()
            return read(data)

        return read_or_break

    return replace(_SOUND, open=open_)


def _hang() -> None:
    while True:
        pass


def _raise() -> None:
    raise KeyError("something that a user should not see")


def _open_inverted(folder: Path) -> Reader:
    read = _SOUND.open(folder)

    def read_inverted(data: bytes) -> DecodedImage:
        decoded = read(data)
        return DecodedImage(inverted(decoded.pixels), decoded.record)

    return read_inverted


TARGETS = {
    "crash": _breaking(lambda: ctypes.string_at(0)),
    "hang": _breaking(_hang),
    "exception": _breaking(_raise),
    "memory": _breaking(lambda: bytearray(2**34)),
    "disagreement": replace(_SOUND, open=_open_inverted),
}
"""By the kind of finding."""
