"""The SHA-256 of image files, remembered so that known files are not read again."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gelkit.files import make_folder, write_atomically
from gelkit.images.reading import hash_bytes

logger = logging.getLogger(__name__)

_SETTLING_SECS = 2.0
"""A file changed this shortly ago may change again within one tick of its clock."""


@dataclass(frozen=True)
class _Known:
    size: int
    mtime_ns: int
    inode: int
    sha256: str


class Fingerprints:
    """Tells the SHA-256 of files; remembers it by path, size, modification time and inode.

    What is remembered is only a shortcut: ``file`` may be deleted at any time.

    :param file: where to remember between runs; None remembers only within this object.
    :param trust: whether what earlier runs remembered counts; if not, every file is read again.
    """

    def __init__(self, file: Path | None = None, *, trust: bool = True) -> None:
        self._file = file
        self._trust = trust
        self._known = {} if file is None else _read(file)
        self._changed = False

    def sha256(self, path: Path, most: int = sys.maxsize) -> str:
        """Return the SHA-256 of a file's bytes, 64 hexadecimal digits.

        :param most: larger files are not read; what is remembered of them counts all the same.
        :raises OSError: the file cannot be read, is no regular file, or too large.
        """
        status = os.stat(path)
        key = os.path.abspath(path)
        known = self._known.get(key)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        if self._trust and known is not None and stamp == (known.size, known.mtime_ns, known.inode):
            return known.sha256
        digest = hash_bytes(path, most)
        if time.time() - status.st_mtime > _SETTLING_SECS:
            self._known[key] = _Known(*stamp, digest)
            self._changed = True
        return digest

    def save(self) -> None:
        """Remember for the next run, in the file given at the start, if the disk lets it."""
        if self._file is None or not self._changed:
            return
        rows = {
            path: [known.size, known.mtime_ns, known.inode, known.sha256]
            for path, known in self._known.items()
        }
        try:
            make_folder(self._file.parent)
            write_atomically(self._file, json.dumps(rows).encode())
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): its files will be read again",
                self._file,
                error.strerror,
            )
            return
        self._changed = False


def _read(file: Path) -> dict[str, _Known]:
    """Read what an earlier run remembered; what cannot be understood is forgotten."""
    try:
        rows = json.loads(file.read_bytes())
        return {path: _Known(*row) for path, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
