"""Guided: ``python -m tests.fuzz.guided TARGET SECONDS FOLDER`` looks where mutants reach new code.

Needs atheris, which watches the Python code of gelkit, tifffile and Pillow. It stops at the first
finding, which it leaves in the folder, beside the mutants that reached something new.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from random import Random

from gelkit.errors import GelkitError

_TIMEOUT_SECS = 10
_MEMORY_MIB = 2048


def main() -> None:
    """Fuzz one target until its time is up, or something is found."""
    import atheris

    name, seconds, folder = sys.argv[1:]
    with atheris.instrument_imports(include=["gelkit", "tifffile", "PIL"]):
        from tests.fuzz.mutations import mutated
        from tests.fuzz.targets import TARGETS
    target, kept = TARGETS[name], Path(folder)
    files, corpus = target.corpus(), kept / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (corpus / f"{number}").write_bytes(data)
    read = target.open(kept)

    def read_one(data: bytes) -> None:
        with suppress(GelkitError):
            read(data)

    def change(data: bytes, longest: int, seed: int) -> bytes:
        return mutated(data, Random(seed), files, target.mutations)[:longest]

    limits = [f"-max_total_time={seconds}", f"-timeout={_TIMEOUT_SECS}"]
    places = [f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={kept}/", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *places], read_one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
