"""Weights files: what they are called, their SHA-256, and the error of those that cannot be had."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gelkit.errors import GelkitError


class WeightsError(GelkitError):
    """Weights cannot be had, or are not what they are called."""


def is_path(weights: str) -> bool:
    """Whether weights are named by the path of a file."""
    return os.sep in weights or weights.endswith((".pth", ".pt"))


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
