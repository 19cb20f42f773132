"""Paths: of files on this machine, and of objects in a store (``s3://bucket/key``, ``gs://``)."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath, PurePath, PurePosixPath
from typing import Self

from gelkit import stores
from gelkit.errors import UsageError

_URL = re.compile(rf"({'|'.join(stores.PROTOCOLS)}):(?:/+([^/].*)?)?", re.DOTALL)
_COLLAPSED = re.compile(rf"^(?:{'|'.join(stores.PROTOCOLS)}):/")


class RemotePath(PosixPath):
    """The path of an object in a store, or of what its name makes look like a folder.

    Parts are joined and taken away as of any path. Of what a path can do with files, it does what
    gelkit asks of folders that may be remote: ``glob``, ``stat``, ``read_bytes``, ``is_dir``,
    ``exists``; :mod:`gelkit.files` changes objects. Errors are those of :mod:`gelkit.stores`.
    """

    listed: stores.StoredObject | None = None
    """What a listing said of the object; it may have changed since."""
    content: bytes | None = None
    """The bytes of the object, if they have been fetched already."""

    def __new__(cls, *parts: str | os.PathLike[str]) -> Self:
        """Make the path on Windows, too, where a :class:`pathlib.PosixPath` refuses to be made."""
        return PurePosixPath.__new__(cls, *parts)

    def __str__(self) -> str:
        return _COLLAPSED.sub(r"\g<0>/", super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (str(self), self.listed)

    def exists(self, **_: bool) -> bool:
        """Tell whether there is an object, or a folder."""
        try:
            stores.status(str(self))
        except FileNotFoundError:
            return False
        return True

    def is_dir(self, **_: bool) -> bool:
        """Tell whether there are objects below, or a bucket of this name."""
        with suppress(FileNotFoundError):
            return stores.status(str(self)) is None
        return False

    def is_file(self, **_: bool) -> bool:
        """Tell whether there is an object."""
        with suppress(FileNotFoundError):
            return stores.status(str(self)) is not None
        return False

    def stat(self, **_: bool) -> os.stat_result:
        """Return the object's size, of a listing if there was one, in a status of nothing else."""
        size = self.known().size
        return os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def known(self) -> stores.StoredObject:
        """Return what a listing said of the object; ask the store if there was none.

        :raises IsADirectoryError: there are objects below the name, and none of it.
        """
        found = self.listed or stores.status(str(self))
        if found is None:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        return found

    def read_bytes(self) -> bytes:
        """Return the bytes of the object."""
        return stores.read(str(self)) if self.content is None else self.content

    def fetched(self) -> RemotePath:
        """Return the path with the bytes of the object, which are then read from memory."""
        path = _restored(str(self), self.listed)
        path.content = self.read_bytes()
        return path

    def glob(self, pattern: str, **_: bool) -> Iterator[RemotePath]:  # type: ignore[override]
        """Yield the objects, no folders, whose path below matches part by part."""
        parts = pattern.split("/")
        for path in self.list_objects() if len(parts) == 1 else self.walk_objects():
            names = path.parts[len(self.parts) :]
            if path.is_true and len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
                yield path

    def list_objects(self) -> Iterator[RemotePath]:
        """Yield the objects right in this folder, with what the listing says of them."""
        return (_restored(found.url, found) for found in stores.list_folder(str(self)))

    def walk_objects(self) -> Iterator[RemotePath]:
        """Yield all objects below, with what the listing says of them."""
        return (_restored(found.url, found) for found in stores.find(str(self)))

    @property
    def is_true(self) -> bool:
        """Whether the object can be found by this path, and not only by the name listed.

        Not so of names with empty parts or dots for parts, which paths and URLs leave out, and of
        those in which S3 reads a version.
        """
        text = str(self)
        is_listed = self.listed is None or self.listed.url == text
        return is_listed and ".." not in self.parts and "?versionId=" not in text

    def is_absolute(self) -> bool:
        """Tell that the path means the same wherever one is."""
        return True

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return the path itself: stores have no links."""
        return self


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as it is meant: a :class:`RemotePath` if it names a store.

    That is so for ``s3://`` and ``gs://``, and for ``s3:/`` and ``gs:/``, which is what
    :class:`pathlib.Path` makes of them.

    :raises UsageError: no bucket is named.
    """
    if isinstance(path, RemotePath):
        return path
    found = _URL.fullmatch(path.as_posix() if isinstance(path, PurePath) else os.fspath(path))
    if found is None:
        return path if isinstance(path, Path) else Path(path)
    if not found[2]:
        raise UsageError(f"Expected a bucket, as in s3://bucket/folder. Received: {str(path)!r}.")
    return RemotePath(f"{found[1]}:", found[2])


def in_the_disks_form(path: Path) -> Path:
    """Return the path under which a file is there: Unicode has two ways to write an accent.

    A Mac's disk and a spreadsheet use different ones. A path that is not there in either form is
    returned as it is.
    """
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        found /= next((form for form in forms if os.path.lexists(found / form)), part)
    return found


def require_local(path: str | os.PathLike[str], what: str = "path") -> Path:
    """Return the path of a file or folder that is to be on this machine.

    :raises UsageError: it is in a store.
    """
    meant = as_path(path)
    if isinstance(meant, RemotePath):
        raise UsageError(
            f"Expected a local {what}. Received: {str(meant)!r}. Only images and caches may be in "
            "a store: name a folder of this machine, and copy it afterwards."
        )
    return meant


def _restored(url: str, listed: stores.StoredObject | None) -> RemotePath:
    protocol, _, rest = url.partition("://")
    path = RemotePath(f"{protocol}:", rest)
    path.listed = listed
    return path
