"""Changing files such that a reader, and a disk after a crash, has the old or the new, never half.

Whatever caches and results write goes through here, and through :mod:`os` alone, here or in
:mod:`gelkit.systems`: the tests watch each operation, and build what a crash after it leaves.
Caches may also lie in an object store, where an object is put whole or not at all, and there are no
folders and no renaming.
"""

from __future__ import annotations

import errno
import logging
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from gelkit import stores
from gelkit.paths import RemotePath, require_local
from gelkit.systems import BINARY, SYSTEM

logger = logging.getLogger(__name__)

_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""How file systems refuse what they do not know, as some of networks do; a broken disk says EIO."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: temporary name, fsync, rename, fsync of the folder.

    :raises OSError: the disk refused; ``path`` is what it was before, or whole.
    :raises StoreError: the store of a remote path cannot be reached, or lets nobody in.
    """
    if isinstance(path, RemotePath):
        stores.write(str(path), data)
        return
    path = require_local(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _write(temporary, data)
        SYSTEM.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            SYSTEM.delete(temporary)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, before anything in it can need their names.

    A folder that is there may have been made a moment ago by another process, or one that was
    killed, so its name is made to last in any case.

    :raises OSError: the disk refused.
    """
    if isinstance(folder, RemotePath):
        return
    folder = require_local(folder, "folder")
    if not folder.is_dir():
        make_folder(folder.parent)
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not folder.is_dir():
                raise
    with suppress(PermissionError):  # whoever may not read a folder cannot sync it
        sync_folder(folder.parent)


def may_change(folder: Path) -> bool:
    """Tell whether files may be made in a folder. A store tells only when it is tried."""
    return isinstance(folder, RemotePath) or os.access(folder, os.W_OK)


def rename(old: Path, new: Path) -> None:
    """Rename a file within its folder, for good; an object is put anew, then deleted.

    :raises OSError: the disk refused.
    """
    if isinstance(old, RemotePath):
        stores.write(str(new), old.read_bytes())
        stores.delete(str(old))
        return
    SYSTEM.replace(old, new)
    sync_folder(new.parent)


def remove(files: Iterable[Path]) -> None:
    """Remove files for good; those that are gone already are none to worry about.

    :raises OSError: the disk refused.
    """
    folders = set()
    for file in files:
        if isinstance(file, RemotePath):
            stores.delete(str(file))
            continue
        with suppress(FileNotFoundError):
            SYSTEM.delete(file)
        folders.add(file.parent)
    for folder in folders:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder (files made, renamed, deleted) survive a loss of power."""
    if not SYSTEM.syncs_folders:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor, folder)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        _sync(descriptor, path.parent)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, folder: Path) -> None:
    try:
        SYSTEM.sync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _warn_of_power(folder)


@cache
def _warn_of_power(folder: Path) -> None:
    logger.warning(
        "the file system of %s cannot make sure that what is written reaches the disk at once: "
        "after a loss of power, files of the last minute may be missing. What is missing in a "
        "cache is computed again",
        str(folder),
    )
