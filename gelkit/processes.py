"""Child processes of gelkit's own: Python programs that import what their parent would."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def import_path() -> str:
    """Return the PYTHONPATH that gives a child the parent's modules, and gelkit among them.

    Without the current folder: start the child with ``-P``, or an image folder that happens to
    hold a ``random.py`` would be run.
    """
    package = str(Path(__file__).parents[1])
    paths = [path for path in sys.path if path and Path(path) != Path.cwd()]
    return os.pathsep.join(paths if package in paths else [*paths, package])
