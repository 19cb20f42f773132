"""Systems: what Linux, macOS and Windows each do in a way of their own, and what stands in for it.

The only module that asks which system this is, or uses what not all of them have. gelkit is tested
on Linux; what :class:`Mac` and :class:`Windows` do in its place has been tested there, too, as far
as it goes, and not yet on those systems.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from typing import ClassVar

from gelkit.children import Child, start_by_name, start_inheriting

if sys.platform != "win32":
    import mmap as maps
    import resource
if sys.platform == "darwin":
    import fcntl

BINARY: int = getattr(os, "O_BINARY", 0)
"""How :func:`os.open` is told that bytes are bytes: Windows would change the ends of lines."""

_CGROUP = Path("/sys/fs/cgroup")
_IN_USE_PAUSES = (0.02, 0.05, 0.1, 0.3, 0.6, 1.0)
"""Seconds to wait, one after another, for whoever has a file open, such as a virus scanner."""

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$')
_DEVICE = re.compile(r"^(con|prn|aux|nul|(?:com|lpt)[\d\xb9\xb2\xb3])(?= *(?:\.|$))", re.IGNORECASE)
_HIGHEST_STATUS = 0x8000_0000
"""From here on Windows' exit codes are its own for crashes, which people search for in hex."""


class System:
    """What gelkit asks of a system, by what Python does on every one."""

    name: ClassVar[str]
    is_linux: ClassVar[bool] = False
    """Whether torch_xla and Ray's clusters are made for it."""
    most_children: ClassVar[int] = sys.maxsize
    """How many processes one can wait for at once."""
    syncs_folders: ClassVar[bool] = True
    """Whether a folder can be made to survive a loss of power, and needs to be."""
    at_once: ClassVar[int] = 0
    """How :func:`os.open` is told not to wait for who fills a pipe, and to take no terminal."""
    ending_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM,)
    """What ends a command from outside, apart from Ctrl-C."""

    def start(self, program: str, size: int, environment: Mapping[str, str]) -> Child:
        """Start a program with a line to it, and ``size`` bytes of memory that both see.

        :raises OSError: the system refused.
        """
        return start_by_name(program, size, environment)

    def end(self, child: Child) -> str:
        """Make sure that a program is gone, and what it shared; return what it died of."""
        code, said = child.end()
        child.memory.close()
        if child.file is not None:
            self.delete(child.file)
        return f"{self.cause(code)}: {said}" if said else self.cause(code)

    def cause(self, code: int) -> str:
        """Say what a process died of, by its exit code."""
        reason = signal.strsignal(-code) if code < 0 else f"exit status {code}"
        return str(reason)

    def available_memory(self) -> float:
        """Return the bytes that new processes can use."""
        import psutil

        return float(psutil.virtual_memory().available)

    @contextmanager
    def limited_memory(self, most: int) -> Iterator[int]:
        """Let this process have so many more bytes than it has.

        :returns: how many that makes in all, if the system does not see to it: whoever started
            this process looks now and then, and ends it. 0 if the system does: asking for more is
            a :class:`MemoryError`.
        """
        yield self.memory_of(os.getpid()) + most

    def memory_of(self, process_id: int) -> int:
        """Return the bytes that a process and those it started have; 0 if it is gone."""
        import psutil

        try:
            process = psutil.Process(process_id)
            return sum(map(self._bytes_of, (process, *process.children(recursive=True))))
        except psutil.NoSuchProcess:
            return 0

    def _bytes_of(self, process: object) -> int:
        return int(process.memory_info().rss)  # type: ignore[attr-defined]

    def sync(self, descriptor: int) -> None:
        """Make what was written to a file survive a loss of power."""
        os.fsync(descriptor)

    def replace(self, old: Path, new: Path) -> None:
        """Give a file another's name."""
        os.replace(old, new)

    def delete(self, file: Path) -> None:
        """Delete a file."""
        os.unlink(file)

    def let_go(self, memory: mmap) -> None:
        """Give back, where that can be done, the memory of a mapped file, which stays mapped."""

    def processor_facts(self) -> dict[str, str]:
        """Return what the system tells of the first processor, by Linux's names."""
        return {}

    def with_slashes(self, path: str) -> str:
        """Return a path as every system can write it: with ``/`` between folders."""
        return path

    def allowed(self, name: str) -> str:
        """Return what a file or folder can be called that is to be called so."""
        return name

    def quoted(self, word: str) -> str:
        """Return a word as it is typed into a shell."""
        return shlex.quote(word)


class Unix(System):
    """What Linux and macOS share."""

    at_once = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

    def start(self, program: str, size: int, environment: Mapping[str, str]) -> Child:
        """Start a program that inherits its end of the line, and the memory."""
        return start_inheriting(program, size, environment)

    def let_go(self, memory: mmap) -> None:
        """Have the system read it from the file again when it is needed."""
        if sys.platform != "win32":
            memory.madvise(maps.MADV_DONTNEED)


class Linux(Unix):
    """Linux limits the memory of a process, and tells of the machine in files."""

    name = "Linux"
    is_linux = True

    def available_memory(self) -> float:
        """Return the bytes that new processes can use, also by a container's limit."""
        limit = _number(_CGROUP / "memory.max") - _number(_CGROUP / "memory.current")
        try:
            lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        except OSError:
            return limit
        sizes = {name: size for name, _, size in (line.partition(":") for line in lines)}
        return min(1024 * float(sizes["MemAvailable"].split()[0]), limit)

    @contextmanager
    def limited_memory(self, most: int) -> Iterator[int]:
        """Have the system refuse more: only Linux tells what a process has, and counts it all."""
        if sys.platform != "win32":
            before, hard = resource.getrlimit(resource.RLIMIT_DATA)
            try:
                pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
            except OSError:
                yield 0
                return
            finite = [limit for limit in (before, hard) if limit != resource.RLIM_INFINITY]
            allowed = min([pages * resource.getpagesize() + most, *finite])
            resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
            try:
                yield 0
            finally:
                resource.setrlimit(resource.RLIMIT_DATA, (before, hard))
        else:
            raise NotImplementedError("no process can be limited")

    def processor_facts(self) -> dict[str, str]:
        """Read them from a file."""
        file = Path("/proc/cpuinfo")
        first = file.read_text(encoding="utf-8").partition("\n\n")[0] if file.is_file() else ""
        pairs = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}


class Mac(Unix):
    """macOS syncs the disk itself when it is told to, and limits no memory."""

    name = "macOS"

    def sync(self, descriptor: int) -> None:
        """Have the disk write, too, what it holds back; what is no disk of this machine cannot."""
        if sys.platform == "darwin":
            try:
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                    raise
            else:
                return
        os.fsync(descriptor)

    def processor_facts(self) -> dict[str, str]:
        """Ask for its name: Python knows no more than the family."""
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            run = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            return {}
        return {"model name": run.stdout.strip()} if run.returncode == 0 else {}


class Windows(System):
    """Windows keeps what is open, has drives and names that are not allowed, and few signals.

    Folders are not synced: it has no way to, and NTFS keeps a journal of names.
    """

    name = "Windows"
    most_children = 60
    syncs_folders = False
    if sys.platform == "win32":
        ending_signals = (signal.SIGTERM, signal.SIGBREAK)

    def cause(self, code: int) -> str:
        """Say it in hex if it is one of Windows' own codes, as of a crash."""
        return f"exit status {code:#x}" if code >= _HIGHEST_STATUS else super().cause(code)

    def _bytes_of(self, process: object) -> int:
        return int(process.memory_info().vms)  # type: ignore[attr-defined]

    def replace(self, old: Path, new: Path) -> None:
        """Give a file another's name, as soon as nobody has one of them open."""
        _patiently(lambda: super(Windows, self).replace(old, new))

    def delete(self, file: Path) -> None:
        """Delete a file, as soon as nobody has it open."""
        _patiently(lambda: super(Windows, self).delete(file))

    def with_slashes(self, path: str) -> str:
        """Turn the backslashes."""
        return path.replace("\\", "/")

    def allowed(self, name: str) -> str:
        """Put a dash for what no name may hold or end in, and behind what stands for a device."""
        return _DEVICE.sub(r"\1-", _FORBIDDEN.sub("-", name))

    def quoted(self, word: str) -> str:
        """Put quotes around it if it needs them, as its shells and programs read them."""
        return subprocess.list2cmdline([word])


def _patiently(action: Callable[[], None]) -> None:
    """Do what Windows refuses while a file is open; after some two seconds let it be refused."""
    for pause in _IN_USE_PAUSES:
        try:
            return action()
        except PermissionError:
            time.sleep(pause)
    return action()


def _number(file: Path) -> float:
    """Read a number of bytes; a container's limit that is not there limits nothing."""
    try:
        return float(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return float("inf") if file.name == "memory.max" else 0.0


def _this() -> System:
    known: dict[str, type[System]] = {"darwin": Mac, "win32": Windows}
    return known.get(sys.platform, Linux)()


SYSTEM: System = _this()
"""The system that this process runs on."""
