"""What the tests of fuzzing share: the tests' own modules, by their names from the project's root.

``python -m tests.fuzz`` and its workers name them so, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # importlib mode puts no test's folder there
