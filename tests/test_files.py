"""Files: what a file system cannot do is left out and said, and nothing else is."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

import pytest

from gelkit.files import make_folder, remove, write_atomically
from gelkit.systems import SYSTEM


def _refuse(code: int, monkeypatch: pytest.MonkeyPatch, *, folders_only: bool = True) -> None:
    """Have fsync refused, of folders or of all."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not folders_only or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("folders_only", [True, False], ids=["folders", "files, too"])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_what_cannot_be_synced_is_written_and_said_once(
    code: int,
    folders_only: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On many shared folders of institutes, nothing could be written at all."""
    if folders_only and not SYSTEM.syncs_folders:
        pytest.skip("this system syncs no folders")
    _refuse(code, monkeypatch, folders_only=folders_only)
    with caplog.at_level(logging.WARNING):
        make_folder(tmp_path / "new")
        for name in "abc":
            write_atomically(tmp_path / "new" / name, name.encode())
        remove([tmp_path / "new" / "c"])
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {
        "a": "a",
        "b": "b",
    }
    about = [record.getMessage() for record in caplog.records]
    assert len([message for message in about if str(tmp_path / "new") in message]) == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_fails_is_an_error(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What never reached a disk would be reported as written."""
    _refuse(code, monkeypatch, folders_only=False)
    with pytest.raises(OSError, match=os.strerror(code)):
        write_atomically(tmp_path / "a", b"a")
    assert list(tmp_path.iterdir()) == []
