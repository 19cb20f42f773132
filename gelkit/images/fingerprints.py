"""The SHA-256 of image files, remembered so that known files are not read again."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gelkit.files import make_folder, write_atomically
from gelkit.images.reading import hash_bytes
from gelkit.paths import RemotePath, as_path

logger = logging.getLogger(__name__)

_SETTLING_SECS = 2.0
"""A file changed this shortly ago may change again within one tick of its clock."""


@dataclass(frozen=True)
class _Known:
    size: int
    mtime_ns: int
    identity: int | str
    """The inode; of an object in a store, which has no mtime here, its ETag."""
    sha256: str


class Fingerprints:
    """Tells the SHA-256 of files; remembers it by path, size, modification time and inode.

    Of objects in stores it remembers it by URL, size and ETag, as the listing told them that the
    catalog was made from.

    What is remembered is only a shortcut: ``file`` may be deleted at any time.

    :param file: where to remember between runs; None remembers only within this object.
    :param others: what other processes remember is as good; what of it is asked for, this one
        remembers too.
    :param trust: whether what earlier runs remembered counts; if not, every file is read again.
    """

    def __init__(
        self, file: Path | None = None, others: Iterable[Path] = (), *, trust: bool = True
    ) -> None:
        self._file = None if file is None else as_path(file)
        self._trust = trust
        self._known = {} if self._file is None else _read(self._file)
        self._others: dict[str, _Known] = {}
        for other in others:
            self._others |= _read(as_path(other))
        self._changed = False

    def sha256(self, path: Path, most: int = sys.maxsize) -> str:
        """Return the SHA-256 of a file's bytes, 64 hexadecimal digits.

        :param most: larger files are not read; what is remembered of them counts all the same.
        :raises OSError: the file cannot be read, is no regular file, or too large.
        """
        key, stamp = _signs(as_path(path))
        for known in (self._known.get(key), self._others.get(key)) if self._trust else ():
            if known is not None and stamp == (known.size, known.mtime_ns, known.identity):
                self._remember(key, known)
                return known.sha256
        digest = hash_bytes(path, most)
        if time.time() - stamp[1] / 1e9 > _SETTLING_SECS:
            self._remember(key, _Known(*stamp, digest))
        return digest

    def absorb(self, file: Path) -> None:
        """Remember what another process remembered in a file of its own, where nothing else is."""
        for key, known in _read(file).items():
            self._remember(key, self._known.get(key, known))

    def save(self) -> None:
        """Remember for the next run, in the file given at the start, if the disk lets it."""
        if self._file is None or not self._changed:
            return
        rows = {
            path: [known.size, known.mtime_ns, known.identity, known.sha256]
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

    def _remember(self, key: str, known: _Known) -> None:
        self._changed |= self._known.get(key) != known
        self._known[key] = known


def _signs(path: Path) -> tuple[str, tuple[int, int, int | str]]:
    """Return what a file is remembered under, and what tells whether it has changed."""
    if isinstance(path, RemotePath):
        found = path.known()
        settled = 0 if found.etag else time.time_ns()
        return str(path), (found.size, settled, found.etag)
    status = os.stat(path)
    return os.path.abspath(path), (status.st_size, status.st_mtime_ns, status.st_ino)


def _read(file: Path) -> dict[str, _Known]:
    """Read what an earlier run remembered; what cannot be understood is forgotten."""
    try:
        rows = json.loads(file.read_bytes())
        return {path: _Known(*row) for path, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
