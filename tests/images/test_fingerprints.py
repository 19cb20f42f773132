"""Fingerprints: a file is known again without reading it, and a changed one is noticed."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from gelkit.images.fingerprints import Fingerprints
from gelkit.images.reading import read_bytes, why_unread

LONG_AGO = 1_600_000_000


def _file(path: Path, content: bytes, mtime: int = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return path


def test_it_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    """Caches could not be joined with lists that other programs made."""
    image = _file(tmp_path / "a.png", b"gel")
    assert Fingerprints().sha256(image) == sha256(b"gel").hexdigest()


def test_a_known_file_is_not_read_again(tmp_path: Path) -> None:
    """A run over 100,000 known images would read them all."""
    image = _file(tmp_path / "a.png", b"gel")
    remembered = tmp_path / "fingerprints.json"
    before = Fingerprints(remembered)
    before.sha256(image)
    before.save()
    with open(image, "r+b") as file:  # other bytes, all signs of a change hidden
        file.write(b"GEL")
    os.utime(image, (LONG_AGO, LONG_AGO))
    assert Fingerprints(remembered).sha256(image) == sha256(b"gel").hexdigest()


@pytest.mark.parametrize("content", [b"GEL", b"more gel"])
def test_a_changed_file_is_noticed(content: bytes, tmp_path: Path) -> None:
    """An old embedding would be given for a new image."""
    image = _file(tmp_path / "a.png", b"gel")
    fingerprints = Fingerprints()
    fingerprints.sha256(image)
    _file(image, content, LONG_AGO + 1)
    assert fingerprints.sha256(image) == sha256(content).hexdigest()


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    """A file moved into the place of another, with its time, would be taken for it."""
    image = _file(tmp_path / "a.png", b"gel")
    fingerprints = Fingerprints()
    fingerprints.sha256(image)
    _file(tmp_path / "b.png", b"GEL").replace(image)
    assert fingerprints.sha256(image) == sha256(b"GEL").hexdigest()


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    """A second change within one tick of the clock would go unnoticed."""
    image = tmp_path / "a.png"
    image.write_bytes(b"gel")
    status = image.stat()
    fingerprints = Fingerprints()
    fingerprints.sha256(image)
    with open(image, "r+b") as file:
        file.write(b"GEL")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprints.sha256(image) == sha256(b"GEL").hexdigest()


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "No such file"),
    "pipe": (os.mkfifo, "a named pipe"),
    "folder": (Path.mkdir, "a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "terabyte": (lambda path: _sparse(path, 2**40), "at most 1,000,000 bytes. Received: a file of"),
    "no end in sight": (lambda path: path.symlink_to("/proc/kallsyms"), "at most 1,000,000 bytes"),
    "refused by the system": (lambda path: path.symlink_to("/proc/self/mem"), "output error"),
}


def _sparse(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_an_error_at_once(case: str, tmp_path: Path) -> None:
    """One file in a folder of thousands would keep gelkit reading, or waiting, for days."""
    make, reason = UNREADABLE[case]
    make(tmp_path / "a.png")
    for read in (Fingerprints().sha256, read_bytes):
        with pytest.raises(OSError) as error:  # noqa: PT011 (its reason is looked at below)
            read(tmp_path / "a.png", 1_000_000)
        if (case, read) != ("no end in sight", read_bytes):
            assert reason in why_unread(error.value)


def test_a_large_file_that_is_known_is_not_refused(tmp_path: Path) -> None:
    """After features --max-bytes, the heads would have to be asked for the same once more."""
    image = _file(tmp_path / "a.png", bytes(1000))
    fingerprints = Fingerprints()
    assert fingerprints.sha256(image, 1000) == fingerprints.sha256(image, 999)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1, 2]", b'{"/a.png": [1]}', b"\xff\xfe"])
def test_what_is_remembered_may_be_lost(damage: bytes, tmp_path: Path) -> None:
    """A damaged shortcut would stop every later run."""
    image = _file(tmp_path / "a.png", b"gel")
    (tmp_path / "fingerprints.json").write_bytes(damage)
    fingerprints = Fingerprints(tmp_path / "fingerprints.json")
    assert fingerprints.sha256(image) == sha256(b"gel").hexdigest()
    fingerprints.save()
    assert Fingerprints(tmp_path / "fingerprints.json").sha256(image) == fingerprints.sha256(image)
