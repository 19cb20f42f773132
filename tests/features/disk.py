"""A disk that remembers each operation, and what a crash after any of them may leave of it.

Two crashes are modelled. A *kill* leaves all operations before it, the last write perhaps in part.
A *loss of power* leaves what was synced; of the rest, any block of data and any name may be there
or not.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_BYTES = 4096
_DRAWS = 16


@dataclass(frozen=True)
class Operation:
    """One change of the disk; paths are relative to the folder that is watched."""

    kind: str
    """create, write, resize, sync, sync folder, rename, unlink, make folder, or note."""
    path: str = ""
    file: int = 0
    """Which file, whatever it is called by then."""
    data: bytes = b""
    offset: int = 0
    """Where a write begins, or the new size."""
    to: str = ""
    note: Any = None


@dataclass(frozen=True)
class State:
    """What a crash leaves: the bytes of each file, and the folders."""

    files: Mapping[str, bytes]
    folders: frozenset[str]
    last: int
    """The position of the last operation before the crash."""

    def write(self, root: Path) -> None:
        """Build it in an empty folder."""
        for folder in sorted(self.folders):
            (root / folder).mkdir()
        for path, data in self.files.items():
            (root / path).write_bytes(data)


class RecordingOs:
    """Stands for the module ``os``: each operation is done, and noted in ``log``.

    :param root: the folder that is watched.
    """

    def __init__(self, root: Path) -> None:
        self.log: list[Operation] = []
        self._root = root
        self._files: dict[str, int] = {}
        self._opened: dict[int, str] = {}
        self._offsets: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def note(self, note: object) -> None:
        """Put into the log what the program knows at this point."""
        self.log.append(Operation("note", note=note))

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """Open, and perhaps create or empty, a file."""
        new = not os.path.exists(path)
        descriptor = os.open(path, flags, mode)
        name = self._name(path)
        self._opened[descriptor] = name
        self._offsets[descriptor] = 0
        if flags & os.O_CREAT and new:
            self._files[name] = len(self.log) + 1
            self._did("create", name)
        elif flags & os.O_TRUNC:
            self._did("resize", name, offset=0)
        if flags & os.O_APPEND:
            self._offsets[descriptor] = os.fstat(descriptor).st_size
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """Write."""
        count = os.write(descriptor, data)
        offset = self._offsets[descriptor]
        self._did("write", self._opened[descriptor], data=bytes(data[:count]), offset=offset)
        self._offsets[descriptor] += count
        return count

    def fsync(self, descriptor: int) -> None:
        """Sync a file or a folder."""
        os.fsync(descriptor)
        name = self._opened[descriptor]
        self._did("sync" if name in self._files else "sync folder", name)

    def close(self, descriptor: int) -> None:
        """Close."""
        os.close(descriptor)
        del self._opened[descriptor]

    def replace(self, old: Path, new: Path) -> None:
        """Rename."""
        os.replace(old, new)
        self._did("rename", self._name(old), to=self._name(new))
        self._files[self._name(new)] = self._files.pop(self._name(old))

    def unlink(self, path: Path) -> None:
        """Remove."""
        os.unlink(path)
        self._did("unlink", self._name(path))
        del self._files[self._name(path)]

    def mkdir(self, path: Path) -> None:
        """Make a folder."""
        os.mkdir(path)
        self._did("make folder", self._name(path))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._root)

    def _did(self, kind: str, path: str, **more: Any) -> None:
        self.log.append(Operation(kind, path, self._files.get(path, 0), **more))


class FailingOs:
    """Stands for the module ``os``: one operation fails, or all from one on.

    :param first: which fails, from 1.
    :param number: the error's number.
    :param stays: whether all later operations fail as well.
    """

    WATCHED = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir", "stat")

    def __init__(self, first: int, number: int = errno.EIO, *, stays: bool = False) -> None:
        self.count = 0
        self._first, self._number, self._stays = first, number, stays

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in self.WATCHED:
            return function

        def watched(*arguments: Any) -> Any:
            if name == "close":  # a close that fails has closed all the same
                function(*arguments)
            self.fail()
            if name == "write":  # a disk may take a part before it is full
                return function(arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)])
            return None if name == "close" else function(*arguments)

        return watched

    def fail(self) -> None:
        """Count an operation, and raise the error if it is its turn."""
        self.count += 1
        if self.count == self._first or (self._stays and self.count > self._first):
            raise OSError(self._number, os.strerror(self._number))


def kill_states(log: Sequence[Operation]) -> Iterator[State]:
    """Yield what a kill leaves after each operation, and within each write."""
    for last, operation in enumerate(log):
        if operation.kind == "note":
            continue
        for part in _parts(operation):
            disk = _Disk()
            for done in (*log[:last], part):
                disk.do(done)
            yield disk.volatile(last)


def power_states(log: Sequence[Operation], seed: int = 0) -> Iterator[State]:
    """Yield what a loss of power after each operation may leave."""
    disk = _Disk()
    rng = random.Random(seed)
    for last, operation in enumerate(log):
        disk.do(operation)
        if operation.kind != "note":
            yield from disk.after_power_loss(last, rng)


def distinct(states: Iterable[State], notes: Sequence[object]) -> list[State]:
    """Leave out states that are equal in all that is on the disk and was known by then."""
    seen = {}
    for state in states:
        key = (frozenset(state.files.items()), state.folders, notes[state.last])
        seen.setdefault(key, state)
    return list(seen.values())


def _parts(operation: Operation) -> list[Operation]:
    if operation.kind != "write":
        return [operation]
    size = len(operation.data)
    ends = {*range(0, size, BLOCK_BYTES), size // 3, size - 1, size}
    return [
        Operation("write", operation.path, operation.file, operation.data[:end], operation.offset)
        for end in sorted(ends)
    ]


@dataclass
class _File:
    """A file's bytes as programs see them, and as they were synced."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""

    def write(self, offset: int, data: bytes) -> None:
        self.now.extend(bytes(max(0, offset - len(self.now))))
        self.now[offset : offset + len(data)] = data

    def variants(self, rng: random.Random) -> list[bytes]:
        """Return what may be left of it: blocks that were not synced are there or not."""
        if self.now == self.synced:
            return [self.synced]
        count = -(-max(len(self.now), len(self.synced)) // BLOCK_BYTES)
        draws = [[rng.random() < 0.5 for _ in range(count)] for _ in range(_DRAWS)]
        kept = [[True] * count, [False] * count, *draws]
        kept += [[block % 2 == odd for block in range(count)] for odd in (0, 1)]
        mixed = [self._mixed(blocks) for blocks in kept]
        short = [bytes(self.now[: len(self.now) // 2]), bytes(self.now[:BLOCK_BYTES])]
        return [*mixed, *short, self.synced]

    def _mixed(self, kept: Sequence[bool]) -> bytes:
        old = self.synced.ljust(len(self.now), b"\0")
        starts = range(0, len(self.now), BLOCK_BYTES)
        return b"".join(
            bytes((self.now if keep else old)[start : start + BLOCK_BYTES])
            for start, keep in zip(starts, kept, strict=False)
        )[: len(self.now)]


@dataclass(frozen=True)
class _Renaming:
    """A change of names: one goes, one comes, or both at once."""

    folder: str
    gone: str = ""
    come: str = ""
    file: int = 0
    """0 for a folder."""


class _Disk:
    """Files, names, and which of both are not synced yet."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._synced_names: dict[str, int] = {}
        self._pending: list[_Renaming] = []

    def do(self, operation: Operation) -> None:
        path, file = operation.path, operation.file
        folder = Path(path).parent.as_posix()
        match operation.kind:
            case "create":
                self._files[file] = _File()
                self._pending.append(_Renaming(folder, come=path, file=file))
            case "write":
                self._files[file].write(operation.offset, operation.data)
            case "resize":
                del self._files[file].now[operation.offset :]
            case "sync":
                self._files[file].synced = bytes(self._files[file].now)
            case "rename":
                self._pending.append(_Renaming(folder, path, operation.to, file))
            case "unlink":
                self._pending.append(_Renaming(folder, gone=path))
            case "make folder":
                self._pending.append(_Renaming(folder, come=path))
            case "sync folder":
                synced = [change for change in self._pending if change.folder == path]
                self._pending = [change for change in self._pending if change.folder != path]
                self._synced_names = _applied(self._synced_names, synced)

    def volatile(self, last: int) -> State:
        names = _applied(self._synced_names, self._pending)
        return _state(names, {file: bytes(its.now) for file, its in self._files.items()}, last)

    def after_power_loss(self, last: int, rng: random.Random) -> Iterator[State]:
        variants = {file: its.variants(rng) for file, its in self._files.items()}
        most = max(map(len, variants.values()), default=1)
        for chosen in _choices(len(self._pending), rng):
            changes = [self._pending[number] for number in chosen]
            names = _applied(self._synced_names, changes)
            for number in range(most):
                contents = {file: its[number % len(its)] for file, its in variants.items()}
                yield _state(names, contents, last)


def _choices(count: int, rng: random.Random) -> list[list[int]]:
    """Choose, of so many changes of names, which have reached the disk."""
    everything = list(range(count))
    chosen = [everything[:end] for end in range(count + 1)]
    chosen += [[number] for number in everything]
    chosen += [[other for other in everything if other != number] for number in everything]
    chosen += [[number for number in everything if rng.random() < 0.5] for _ in range(_DRAWS)]
    return [list(its) for its in dict.fromkeys(map(tuple, chosen))]


def _applied(names: Mapping[str, int], changes: Iterable[_Renaming]) -> dict[str, int]:
    names = dict(names)
    for change in changes:
        names.pop(change.gone, None)
        if change.come:
            names[change.come] = change.file
    return names


def _state(names: Mapping[str, int], contents: Mapping[int, bytes], last: int) -> State:
    """Leave out what lies in a folder whose own name is lost."""
    folders = {name for name, file in names.items() if not file}
    lost = {name for name in names if not _reachable(name, folders)}
    return State(
        files={name: contents[file] for name, file in names.items() if file and name not in lost},
        folders=frozenset(folders - lost),
        last=last,
    )


def _reachable(name: str, folders: set[str]) -> bool:
    above = [parent.as_posix() for parent in Path(name).parents]
    return all(parent in folders for parent in above if parent != ".")
