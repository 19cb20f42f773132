"""What the tests of images share: a module beside them, which they make their files of."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test's folder there
