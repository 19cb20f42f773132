"""Own output: how what gelkit has written is told from a person's images.

Every PNG that gelkit draws for people says so in its first text field, which copies keep wherever
they go; the sample set is data, and says nothing. Folders are known by files that no other program
leaves together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gelkit.systems import BINARY

PNG_TEXT: Mapping[str, str] = {"Software": "gelkit, a picture that is no data"}
"""The text fields of every PNG that gelkit draws, to be written before all others."""

RESULTS_RECORD = "gelkit.json"
"""The file in a folder of results that says of which data they are."""

_FOLDERS: Mapping[str, tuple[frozenset[str], ...]] = {
    "results that gelkit wrote": (
        frozenset({RESULTS_RECORD}),
        frozenset({"results.csv", "assessment.json"}),
        frozenset({"results.csv", "heads"}),
    ),
    "a model that gelkit exported": (frozenset({"model.onnx", "preprocessing.json"}),),
}
"""What a folder is, by the names of which any set is in it."""

_SHARD = re.compile(r"shard-.*-[0-9a-f]{12}\.h5")

_MARK = b"tEXtSoftware\0" + PNG_TEXT["Software"].encode()
_FIRST_BYTES = 256


def own_folder(names: Iterable[str]) -> str | None:
    """Say what of gelkit's a folder is, by the names of what is in it; None if it is none."""
    found = frozenset(names)
    for kind, signs in _FOLDERS.items():
        if any(sign <= found for sign in signs):
            return kind
    return "a cache of gelkit" if any(map(_SHARD.fullmatch, found)) else None


def is_own_picture(path: Path) -> bool:
    """Tell whether a file on this machine is a PNG that gelkit drew for people."""
    if path.suffix.lower() != ".png":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | BINARY)
    except OSError:  # whoever reads the image says why it cannot be
        return False
    try:
        return _MARK in os.read(descriptor, _FIRST_BYTES)
    except OSError:
        return False
    finally:
        os.close(descriptor)
