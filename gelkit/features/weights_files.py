"""Weights files: what they are called, their SHA-256, and the error of those that cannot be had."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gelkit.errors import GelkitError
from gelkit.systems import SYSTEM

PRETRAINED = ("pretrained", "imagenet")
"""Words for a network's own default weights; the second is the older one."""

_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")


class WeightsError(GelkitError):
    """Weights cannot be had, or are not what they are called."""


@dataclass(frozen=True)
class WeightsIdentity:
    """What a recipe says of weights."""

    name: str
    """The library's name, ``random`` or ``file``."""
    sha256: str = ""
    """Of a file: its SHA-256; of torchvision's files: the 8 digits that torchvision publishes."""
    seed: int | None = None
    scheme: str = ""
    revision: str = ""
    """Of weights on the Hugging Face hub: repository, commit and file."""


def is_path(weights: str) -> bool:
    """Whether weights are named by the path of a file."""
    return "/" in SYSTEM.with_slashes(weights) or weights.endswith(_ENDINGS)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a weights file.

    :raises WeightsError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"Expected a weights file. Received: {str(path)!r}, {error.strerror}. Check the path."
        ) from error
