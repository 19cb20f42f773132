"""Every Python that is started with this folder on its path is one as on another system.

TESTED_SYSTEM names the system by its class in :mod:`gelkit.systems`. What it does in place of Linux
is done from the start on, in all processes; and as on Windows, as far as Linux can be made to:

- no file can be replaced or deleted while this process or a child has it open, or mapped;
- a folder cannot be opened, and a file that is opened without saying so is text;
- paths as Linux has them cannot be made.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PosixPath
from typing import Any

from gelkit import systems

_BINARY = 1 << 30  # a bit that no flag of Linux has

_opened, _write, _posix_path = os.open, os.write, PosixPath.__new__
_text: set[int] = set()


def _refused(path: object) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))  # type: ignore[call-overload]


def _ours() -> bool:
    """Tell whether gelkit calls, and not Python's own modules or the tests."""
    return "/gelkit/" in sys._getframe(2).f_code.co_filename


def _processes(process: int | str = "self") -> Iterator[int | str]:
    """Yield a process, and all that it and its children have started."""
    yield process
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in _read(file).split():
            yield from _processes(child)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _is_open(path: Any) -> bool:
    """Tell whether this process or one it started has a file open or mapped."""
    if not os.path.isfile(path) or os.path.islink(path):
        return False
    real = os.path.realpath(path)
    for process in _processes():
        folder = Path(f"/proc/{process}")
        try:
            names = [os.readlink(link) for link in (folder / "fd").iterdir()]
        except OSError:  # it has ended
            continue
        if real in names or f" {real}\n" in _read(folder / "maps"):
            return True
    return False


def _keeping_open_files(function: Callable[..., Any]) -> Callable[..., Any]:
    def refusing(*paths: Any, **options: Any) -> Any:
        for path in paths if "dir_fd" not in options and "src_dir_fd" not in options else ():
            if _is_open(path):
                raise _refused(path)
        return function(*paths, **options)

    return refusing


def _open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
    if _ours() and os.path.isdir(path):
        raise _refused(path)
    descriptor = _opened(path, flags & ~_BINARY, mode, **options)
    _text.discard(descriptor)
    if _ours() and not flags & _BINARY:
        _text.add(descriptor)
    return descriptor


def _write_text(descriptor: int, data: Any) -> int:
    if descriptor not in _text:
        return _write(descriptor, data)
    _write(descriptor, bytes(data).replace(b"\n", b"\r\n"))
    return len(data)


def _new_path(cls: type[PosixPath], *parts: Any, **options: Any) -> PosixPath:
    if cls is not PosixPath:
        raise NotImplementedError(f"cannot instantiate {cls.__name__!r} on your system")
    return _posix_path(cls, *parts, **options)


systems.SYSTEM = getattr(systems, os.environ["TESTED_SYSTEM"])()
if isinstance(systems.SYSTEM, systems.Windows):
    systems.BINARY = _BINARY
    systems.Windows.at_once = systems.Linux.at_once  # Windows' folders hold no pipes, but these do
    os.open, os.write = _open, _write_text
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, _keeping_open_files(getattr(os, name)))
    PosixPath.__new__ = _new_path  # type: ignore[method-assign, assignment]
