"""Child processes of gelkit's own: Python programs that import what their parent would."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
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
    return int(max(1, min(usable_cores(), _USABLE * _available_bytes() // bytes_each)))


def _available_bytes() -> float:
    """Return the memory that new processes can use, by what Linux says, if it does."""
    limit = _number(_CGROUP / "memory.max") - _number(_CGROUP / "memory.current")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return limit
    sizes = {name: size for name, _, size in (line.partition(":") for line in lines)}
    return min(1024 * float(sizes["MemAvailable"].split()[0]), limit)


def _number(file: Path) -> float:
    """Read a number of bytes; a container's limit that is not there limits nothing."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return float("inf") if file.name == "memory.max" else 0.0
