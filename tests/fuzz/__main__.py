"""Fuzzing: ``python -m tests.fuzz`` feeds every reader with damaged files and counts what came.

Exits with 1 if a mutant did what none may: crash, hang, exceed its memory, raise an undocumented
exception, or decode to another picture than in OpenCV without a known cause.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.fuzz.engine import Bounds, fuzz
from tests.fuzz.table import as_markdown


def main(words: Sequence[str] | None = None, module: str = "tests.fuzz.targets") -> int:
    """Fuzz as the command line says, print what came of it, and return the exit status.

    :param module: where ``TARGETS`` are.
    """
    targets = import_module(module).TARGETS
    chosen = _parser(list(targets)).parse_args(words)
    names = chosen.target or list(targets)
    bounds = (
        Bounds(chosen.count, math.inf)
        if chosen.count
        else Bounds(sys.maxsize, chosen.seconds / len(names))
    )
    tallies = {}
    for name in names:
        print(f"{name}...", file=sys.stderr, flush=True)
        tallies[name] = fuzz(name, chosen.seed, bounds, chosen.kept, module)
    excuses = {name: targets[name].excuse for name in names}
    print(as_markdown(tallies, excuses, chosen.seed))
    return int(any(tally.findings for tally in tallies.values()))


def _parser(targets: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=60, help="for all targets together [60]")
    add("--count", type=int, help="mutants of each target, instead of a time")
    add("--seed", type=int, default=0, help="of the mutants [0]")
    add("--target", action="append", choices=targets, help="only this one; may be repeated")
    add("--kept", type=Path, default=Path("fuzz-findings"), help="folder for mutants that break")
    return parser


if __name__ == "__main__":
    sys.exit(main())
