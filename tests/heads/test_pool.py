"""The pool: whoever calls it, once; what goes wrong is told; nothing is left behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from gelkit.errors import GelkitError, UsageError
from gelkit.heads.pool import call_in_processes
from gelkit.heads.splits import derived_seed
from gelkit.processes import import_path

_UNGUARDED = """
import numpy as np
from gelkit.heads.training import Job, Settings, train_all
print("begun", flush=True)
targets = np.arange(20) % 2
values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
splits = np.arange(20)[None] // 2 % 2
settings = Settings(folds=2, repeats=1, epochs=1)
job = Job("a", "single", "adam", values, targets, 2, splits, settings)
print([trained.probabilities.shape for _, trained in train_all([job], workers=2)])
"""


@pytest.mark.parametrize(
    "way",
    ["standard input", pytest.param("a script", marks=pytest.mark.exhaustive("exhaustive grids"))],
)
def test_a_program_needs_no_guard(way: str, tmp_path: Path) -> None:
    """A script, or a notebook, was run again by each process, and memory was blamed."""
    (tmp_path / "random.py").write_text("raise SystemExit('a file of the data was run')")
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(_UNGUARDED)
    command = [sys.executable, "-P", "-" if way == "standard input" else str(program)]
    run = subprocess.run(
        command,
        input=_UNGUARDED if way == "standard input" else None,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": import_path()},
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.returncode) == ("begun\n[(1, 20, 2)]\n", 0), run.stderr


def test_results_come_with_the_places_of_their_arguments() -> None:
    """The probabilities of one fit would be taken for another's."""
    found = dict(call_in_processes(math.sqrt, [(number**2,) for number in range(20)], 3))
    assert found == {number: float(number) for number in range(20)}


def test_what_a_call_raises_is_raised() -> None:
    """A head that diverges would be told as a lack of memory."""
    with pytest.raises(UsageError, match="seed"):
        list(call_in_processes(derived_seed, [(0,), (-1,)], 2))
    with pytest.raises(ValueError, match="math domain error") as raised:
        list(call_in_processes(math.sqrt, [(-1.0,)], 1))
    assert "math domain error" in raised.value.__notes__[0]


def test_a_process_that_dies_is_told_with_its_last_words() -> None:
    """What it died of would have to be guessed."""
    with pytest.raises(GelkitError, match=r"Killed.*fewer --workers"):
        list(call_in_processes(signal.raise_signal, [(signal.SIGKILL,)], 1))


def test_whoever_has_enough_leaves_no_process_behind() -> None:
    """A notebook's cells that were interrupted would fill the machine."""
    with closing(call_in_processes(time.sleep, [(0,), (1000,)], 2)) as results:
        next(results)
        children = psutil.Process().children()
        assert children
    assert not [child for child in children if child.is_running()]


def test_processes_end_after_a_parent_that_was_killed() -> None:
    """A scheduler kills the command alone, and others would compute on."""
    program = (
        "import time; from gelkit.heads.pool import call_in_processes\n"
        "for _ in call_in_processes(time.sleep, [(0.2,)] * 9999, 2): print(flush=True)"
    )
    environment = os.environ | {"PYTHONPATH": import_path()}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        children = psutil.Process(parent.pid).children()
        parent.kill()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
