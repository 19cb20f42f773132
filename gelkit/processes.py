"""Child processes of gelkit's own: Python programs that import what their parent would."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gelkit.systems import SYSTEM

_USABLE = 0.7
"""Of the memory that is available: others will want some, too."""


def import_path() -> str:
    """Return the PYTHONPATH that gives a child the parent's modules, and gelkit among them.

    Without the current folder: start the child with ``-P``, or an image folder that happens to
    hold a ``random.py`` would be run.
    """
    package = str(Path(__file__).parents[1])
    paths = [path for path in sys.path if path and Path(path) != Path.cwd()]
    return os.pathsep.join(paths if package in paths else [*paths, package])


def usable_cores() -> int:
    """Return how many cores affinity and a container's limits leave to this process."""
    from joblib import cpu_count

    return int(cpu_count())


def fitting_processes(bytes_each: float) -> int:
    """Return for how many processes of one thread there are cores and memory, at least 1.

    :param bytes_each: what one takes.
    """
    fitting = _USABLE * SYSTEM.available_memory() // bytes_each
    return int(max(1, min(usable_cores(), fitting, SYSTEM.most_children)))
