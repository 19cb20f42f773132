"""The selection: what `make test` leaves out is said, and `make test-all` leaves out nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_quick(): pass

@pytest.mark.exhaustive("fuzzing")
def test_long(): pass

@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.exhaustive("clusters"))])
def test_grid(number): pass

@pytest.mark.skip(reason="no such machine")
def test_elsewhere(): pass
"""

SELECTIONS = {
    "in minutes": (
        (),
        ("2 passed", "left to make test-all: 2", "1  fuzzing", "1  clusters"),
        (),
    ),
    "all": (("--all",), ("4 passed",), ("left to make test-all",)),
    "by name": (
        ("test_some.py::test_long", "test_some.py::test_elsewhere"),
        ("1 passed",),
        ("left to make test-all",),
    ),
    "in processes": (
        ("--numprocesses", "2"),
        ("2 passed", "left to make test-all: 2", "1  fuzzing", "1  clusters"),
        (),
    ),
}


def _pytest(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_some.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_what_is_left_out_or_skipped_is_said(selection: str, tmp_path: Path) -> None:
    """What was never run would pass for tested."""
    options, said, unsaid = SELECTIONS[selection]
    run = _pytest(tmp_path, TESTS, *options)
    assert run.returncode == 0, run.stdout
    for words in (*said, "skipped: 1", "1  no such machine"):
        assert words in run.stdout
    assert not any(words in run.stdout for words in unsaid)


def test_a_kind_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    """A misspelt kind would be counted apart, and nobody would look for it."""
    run = _pytest(tmp_path, TESTS.replace('"fuzzing"', '"fuzing"'))
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "fuzing" in run.stderr + run.stdout
