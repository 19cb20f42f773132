"""Worker: reads mutants one by one and says what came of each; it may be killed at any time.

Started by :mod:`tests.fuzz.engine` with its orders as JSON. For each mutant it writes three lines
of JSON: its number, what came of reading it, and what a second reader says.
"""

from __future__ import annotations

import faulthandler
import json
import re
import resource
import sys
import time
import traceback
import warnings
from importlib import import_module
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from gelkit.errors import GelkitError
from tests.fuzz.mutations import mutant
from tests.fuzz.targets import Reader, Target

READ, REFUSED, MEMORY, EXCEPTION = "read", "refused", "memory", "exception"


def main() -> None:
    """Serve the engine until it ends this process."""
    orders = json.loads(sys.argv[1])
    faulthandler.enable()  # on SIGABRT, too, which the engine sends to one that hangs
    warnings.simplefilter("error")
    target = import_module(orders["module"]).TARGETS[orders["target"]]
    with open(orders["descriptor"], "w") as out, TemporaryDirectory(dir=orders["folder"]) as folder:
        _serve(target, orders, Path(folder), out)


def attempt(read: Reader, data: bytes) -> tuple[str, str, Any]:
    """Return what came of reading, the reason if it failed, and what was read."""
    try:
        return READ, "", read(data)
    except GelkitError as error:
        return REFUSED, str(error), None
    except MemoryError:
        return MEMORY, traceback.format_exc(), None
    except Exception:
        return EXCEPTION, traceback.format_exc(), None


def _serve(target: Target, orders: dict[str, Any], folder: Path, out: TextIO) -> None:
    files, read = target.corpus(), target.open(folder)
    for data in files:  # what these import, and what libraries keep, is no memory of a mutant's
        _, _, value = attempt(read, data)
        _opinion(target, data, value)
    base = _kib("VmRSS")
    _limit_memory(orders["memory"])
    for number in count(orders["first"]):
        data = mutant(files, target.mutations, orders["seed"], number)
        _say(out, number=number)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        started = time.perf_counter()
        kind, reason, value = attempt(read, data)
        secs = time.perf_counter() - started
        _say(out, kind=kind, reason=reason, secs=secs, kib=max(0, _kib("VmHWM") - base))
        _say(out, opinion=_opinion(target, data, value))


def _opinion(target: Target, data: bytes, value: Any) -> str:
    return "" if value is None or target.opinion is None else target.opinion(data, value)


def _say(out: TextIO, **what: object) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


def _kib(name: str) -> int:
    """Return one of the sizes of this process that Linux tells."""
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def _limit_memory(most: int) -> None:
    """Let this process have so many more bytes, as stage one's workers do."""
    limit = 1024 * _kib("VmData") + most
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main()
