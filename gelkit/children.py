"""Children: Python programs that are started with a line to whoever starts them, and some memory.

Over the line both send objects; the memory both see at once. multiprocessing does not start them:
the caller's program is not imported a second time, and needs no guard. A child's program calls
:func:`join` before it imports what takes long.

There are two ways to give a child its line. Where a process inherits open files, it gets their
numbers. Elsewhere it gets names: of a pipe or socket that takes only who knows a key, and of a file
that holds the key, and then the memory.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from mmap import mmap
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import IO, Any, TypeAlias

_KEY_BYTES = 32
_LOOK_SECS = 0.2

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection

    Line: TypeAlias = "Connection[Any, Any] | PipeConnection[Any, Any]"
else:
    from multiprocessing import Pipe

    Line: TypeAlias = "Connection[Any, Any]"
"""What objects are sent over, and received."""


@dataclass(frozen=True)
class Child:
    """A program that runs, and what it shares with this process."""

    process: subprocess.Popen[bytes]
    line: Line
    memory: mmap
    file: Path | None
    """What both map as memory, if it has a name."""
    errors: IO[bytes]

    def end(self) -> tuple[int, str]:
        """Make sure that it is gone; return its exit code, and the last that it said."""
        self.process.kill()
        code = self.process.wait()
        self.line.close()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        self.errors.close()
        return code, said[-1] if said else ""


def start_inheriting(program: str, size: int, environment: Mapping[str, str]) -> Child:
    """Start a program that inherits its end of the line, and the memory.

    :param size: of the memory, in bytes, which are 0 at first.
    :raises OSError: the system refused.
    """
    if sys.platform != "win32":
        mine, its = Pipe()
        with tempfile.TemporaryFile() as shared:
            shared.truncate(size)
            memory = mmap(shared.fileno(), size)
            numbers = (its.fileno(), shared.fileno())
            process, errors = _started(program, ["inherited", *numbers, size], environment, numbers)
        its.close()
        return Child(process, mine, memory, None, errors)
    else:  # noqa: RET505 (what follows a return is not left out by the type checker)
        raise NotImplementedError("no open file is inherited by its number")


def start_by_name(program: str, size: int, environment: Mapping[str, str]) -> Child:
    """Start a program that finds its line and memory by names; as :func:`start_inheriting` else."""
    key = secrets.token_bytes(_KEY_BYTES)
    descriptor, name = tempfile.mkstemp(prefix="gelkit-")
    try:
        os.write(descriptor, key)
        os.truncate(descriptor, max(size, _KEY_BYTES))
        memory = mmap(descriptor, max(size, _KEY_BYTES))
    finally:
        os.close(descriptor)
    with closing(Listener(authkey=key)) as listener:
        words = ["named", listener.address, name, size]
        process, errors = _started(program, words, environment)
        line = _accepted(listener, key, process)
    memory[:_KEY_BYTES] = bytes(_KEY_BYTES)
    return Child(process, line, memory, Path(name), errors)


def join() -> tuple[Line, mmap]:
    """Return the line to whoever started this program, and the memory shared with it."""
    way, line, shared, size = sys.argv[1:]
    if way == "inherited":
        return Connection(int(line)), mmap(int(shared), int(size))
    with open(shared, "r+b") as file:
        key = file.read(_KEY_BYTES)
        memory = mmap(file.fileno(), max(int(size), _KEY_BYTES))
    return Client(line, authkey=key), memory


def _started(
    program: str,
    words: Sequence[object],
    environment: Mapping[str, str],
    inherited: Sequence[int] = (),
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a program; return it, and where what it says of errors goes."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the child)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, *map(str, words)],
        pass_fds=inherited,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )
    return process, errors


def _accepted(listener: Listener, key: bytes, process: subprocess.Popen[bytes]) -> Line:
    """Return the line to a child; to one that dies before it has joined, a line that has ended."""
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept)
        try:
            while accepting in wait([accepting], _LOOK_SECS).not_done and process.poll() is None:
                pass
        except BaseException:
            process.kill()
            raise
        finally:
            if not accepting.done():  # somebody has to come, or it waits for ever
                with suppress(OSError, EOFError, AuthenticationError):
                    Client(listener.address, authkey=key).close()
        try:
            return accepting.result()
        except (OSError, EOFError, AuthenticationError):  # it died half-way in
            process.kill()
            return _ended()


def _ended() -> Line:
    """Return a line at whose other end nobody is, or ever was."""
    with closing(Listener()) as listener, ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept)
        Client(listener.address).close()
        return accepting.result()
