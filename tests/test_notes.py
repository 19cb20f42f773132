"""Notes: facts that one run finds out and the next need not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from gelkit.notes import add_note, notes_folder, read_notes

pytestmark = pytest.mark.usefixtures("own_notes")


@pytest.fixture
def own_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the notes of a test in a folder of its own."""
    monkeypatch.setenv("GELKIT_NOTES", str(tmp_path / "notes"))


def test_a_note_is_read_back_until_it_is_replaced() -> None:
    """Each run would find out again what it costs seconds to find out."""
    assert read_notes("facts") == {}
    add_note("facts", "é/1", {"width": 512, "names": ["a"]})
    add_note("facts", "2", None)
    add_note("other", "2", 5)
    assert read_notes("facts") == {"é/1": {"width": 512, "names": ["a"]}, "2": None}
    add_note("facts", "2", 7)
    assert read_notes("facts")["2"] == 7


WRITER = "import sys; from gelkit.notes import add_note; add_note('facts', sys.argv[1], 1)"


def test_processes_that_write_at_once_lose_nothing() -> None:
    """Workers that start together would overwrite each other's notes."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(n)]) for n in range(6)]
    assert [writer.wait() for writer in writers] == [0] * 6
    assert read_notes("facts") == {str(number): 1 for number in range(6)}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"value": 1}', b"\xff\xfe"])
def test_a_damaged_note_counts_as_missing(damage: bytes) -> None:
    """A file that a full disk cut off would stop every later run."""
    add_note("facts", "1", 1)
    (file,) = notes_folder("facts").iterdir()
    file.write_bytes(damage)
    assert read_notes("facts") == {}
    add_note("facts", "1", 2)
    assert read_notes("facts") == {"1": 2}


def test_notes_are_kept_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would fill a data folder, or be lost when a results folder is deleted."""
    monkeypatch.delenv("GELKIT_NOTES")
    assert notes_folder("facts") == user_cache_path("gelkit") / "facts"


def test_a_home_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A job whose home is read-only would fail over a shortcut."""
    notes_folder("facts").parent.write_bytes(b"a file where the folder should be")
    add_note("facts", "1", 1)
    assert "cannot keep notes in" in caplog.text
    assert read_notes("facts") == {}
