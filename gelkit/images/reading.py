"""Reading: the bytes of regular files and of objects in stores, and nothing that never ends."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from gelkit.paths import RemotePath, as_path
from gelkit.systems import SYSTEM

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


_PIECE_BYTES = 2**20
_OBJECTS_AT_ONCE = 16
_OBJECTS_AHEAD = 64

Result = TypeVar("Result")


class RefusedFileError(OSError):
    """What has the name of an image is no regular file, too large, or changes; so it says."""


def irregular(mode: int) -> str | None:
    """Say what something is that is no regular file, by its mode; None if it is one."""
    kind = stat.S_IFMT(mode)
    return None if kind == stat.S_IFREG else _KINDS.get(kind, "no file")


def why_unread(error: OSError) -> str:
    """Say why a file could not be read."""
    if isinstance(error, RefusedFileError):
        return str(error)
    return f"cannot be read: {error.strerror}"


def read_bytes(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file, or of an object in a store.

    :raises RefusedFileError: it is no regular file, has more than ``most`` bytes, or has another
        size when it is read.
    :raises OSError: it cannot be read.
    :raises StoreError: the store cannot be reached, or lets nobody in.
    """
    meant = as_path(path)
    if isinstance(meant, RemotePath):
        size = meant.known().size
        _require_size(size, most)
        data = meant.read_bytes()
    else:
        with _opened(path, most) as (file, size):
            data = _read(file, size + 1)
    if len(data) != size:
        raise RefusedFileError(
            f"expected a file that stays as it is. Received: one whose size was {size:,} bytes and "
            "is another. Run again when nothing writes it."
        )
    return data


def read_beginning(path: Path, count: int) -> bytes:
    """Return the first bytes of a regular file of this machine, fewer if it has fewer.

    :raises OSError: it cannot be read, or is no regular file.
    """
    with _opened(path, sys.maxsize) as (file, _):
        return _read(file, count)


def hash_bytes(path: Path, most: int) -> str:
    """Return the SHA-256 of a regular file's bytes, 64 hexadecimal digits; errors as above.

    A file may grow while it is read, up to ``most`` bytes.
    """
    if isinstance(as_path(path), RemotePath):
        return hashlib.sha256(read_bytes(path, most)).hexdigest()
    digest, size = hashlib.sha256(), 0
    with _opened(path, most) as (file, _):
        while piece := _read(file, _PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            _require_size(size, most)
    return digest.hexdigest()


def read_ahead(action: Callable[[Path], Result], paths: Iterable[Path]) -> Iterator[Result]:
    """Yield what an action makes of each path, in their order.

    Objects in stores have to be waited for, so several are acted on at once, in threads, some
    before they are asked for; files of this machine are acted on one by one, as they are asked for.
    """
    waiting: deque[Callable[[], Result]] = deque()
    pool = ThreadPoolExecutor(_OBJECTS_AT_ONCE)
    try:
        for path in paths:
            is_remote = isinstance(as_path(path), RemotePath)
            waiting.append(pool.submit(action, path).result if is_remote else partial(action, path))
            if not is_remote or len(waiting) > _OBJECTS_AHEAD:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _opened(path: Path, most: int) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file of at most so many bytes; yield it and its size."""
    with open(path, "rb", opener=_open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        _require_size(size, most)
        yield file, size


def _open_regular(path: str, flags: int) -> int:
    """Open a file, and close it again if it is none; a pipe that nobody fills is not waited for."""
    try:
        descriptor = os.open(path, flags | SYSTEM.at_once)
    except PermissionError as error:
        if os.path.isdir(path):  # which Windows opens for nobody
            raise _refused("a folder") from error
        raise
    kind = irregular(os.fstat(descriptor).st_mode)
    if kind is not None:
        os.close(descriptor)
        raise _refused(kind)
    return descriptor


def _refused(kind: str) -> RefusedFileError:
    return RefusedFileError(f"expected a regular file. Received: {kind}")


def _require_size(size: int, most: int) -> None:
    if size > most:
        raise RefusedFileError(
            f"expected at most {most:,} bytes. Received: a file of {size:,}. Raise --max-bytes of "
            "gelkit features if it is a gel."
        )


def _read(file: BufferedReader, most: int) -> bytes:
    piece: bytes | None = file.read(most)
    if piece is None:  # a file of /proc that waits for something to tell
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return piece
