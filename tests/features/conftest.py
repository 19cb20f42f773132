"""What the tests of stage one share: modules beside them, which they and their programs import."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test's folder there
