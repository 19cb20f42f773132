"""Engine: feeds a target with mutants in a process that can be killed, and counts what came of it.

A crash, a hang and a demand for memory cost the process, not the run: the mutant is kept, and
another process goes on with the next.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from tests.fuzz.agreement import is_explained
from tests.fuzz.mutations import mutant
from tests.fuzz.worker import READ, REFUSED

ROOT = Path(__file__).parents[2]
CRASH, HANG, DISAGREEMENT = "crash", "hang", "disagreement"
OPINION_LOST = "crashed or hung"
"""What is counted where the second reader, not gelkit, ended the process."""
_START_SECS = 120.0
_END_SECS = 5
_PIECE_BYTES = 2**16
_REASON_CHARACTERS = 100


@dataclass(frozen=True)
class Bounds:
    """How far a target is fuzzed, and what a mutant may take."""

    count: int
    seconds: float
    """For all mutants together."""
    timeout: float = 10.0
    """Seconds for one."""
    memory: int = 2**28
    """Bytes for one, beyond what the process has before."""


@dataclass(frozen=True)
class Finding:
    """A mutant that did what none may."""

    kind: str
    """``crash``, ``hang``, ``memory``, ``exception`` or ``disagreement``."""
    signature: str
    """Where; the first mutant of each is kept."""
    detail: str
    path: Path


@dataclass
class Tally:
    """What came of a target's mutants."""

    mutants: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By what was expected."""
    opinions: Counter[str] = field(default_factory=Counter)
    """Of the second reader on what was read."""
    found: Counter[str] = field(default_factory=Counter)
    """By kind of finding."""
    findings: dict[str, Finding] = field(default_factory=dict)
    """The first of each signature."""
    slowest_secs: float = 0.0
    peak_kib: int = 0


def fuzz(
    name: str, seed: int, bounds: Bounds, kept: Path, module: str = "tests.fuzz.targets"
) -> Tally:
    """Feed a target with its mutants, from the first on.

    :param name: of a target in ``TARGETS`` of ``module``.
    :param kept: the folder for the mutants that are findings.
    """
    run = _Run(name, seed, bounds, kept, module)
    deadline = time.monotonic() + bounds.seconds
    while run.tally.mutants < bounds.count and time.monotonic() < deadline:
        run.go_on(deadline)
    return run.tally


class _Run:
    """One target being fuzzed."""

    def __init__(self, name: str, seed: int, bounds: Bounds, kept: Path, module: str) -> None:
        target = import_module(module).TARGETS[name]
        self._target, self._files = target, target.corpus()
        self._name, self._seed, self._bounds = name, f"{seed}/{name}", bounds
        self._kept, self._module = kept, module
        self.tally = Tally()

    def go_on(self, deadline: float) -> None:
        """Go on with the next mutant in a new process until that ends, or all is done."""
        with (
            TemporaryDirectory() as folder,
            TemporaryFile() as said,
            self._worker(folder, said) as (process, messages),
        ):
            stage = "start"
            try:
                for message in messages:
                    stage = self._count(message)
                    done = self.tally.mutants >= self._bounds.count or time.monotonic() > deadline
                    if stage == "next" and done:
                        return
            except TimeoutError:
                process.send_signal(signal.SIGABRT)  # faulthandler then says where it was
                self._lost(stage, HANG, _last_words(process, said))
            else:
                self._lost(stage, CRASH, _last_words(process, said))

    @contextmanager
    def _worker(self, folder: str, said: IO[bytes]) -> Iterator[Any]:
        reader, writer = os.pipe()
        orders = {
            "module": self._module,
            "target": self._name,
            "seed": self._seed,
            "first": self.tally.mutants,
            "memory": self._bounds.memory,
            "descriptor": writer,
            "folder": folder,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", json.dumps(orders)],
            pass_fds=[writer],
            stdout=said,
            stderr=said,
            cwd=ROOT,
        )
        os.close(writer)
        try:
            yield process, _messages(reader, self._bounds.timeout)
        finally:
            process.kill()
            process.wait()
            os.close(reader)

    def _count(self, message: dict[str, Any]) -> str:
        """Count what the worker says; return what it is at now."""
        if "number" in message:
            return "reading"
        if "opinion" in message:
            self._count_opinion(message["opinion"])
            self.tally.mutants += 1
            return "next"
        self._count_outcome(**message)
        return "opinion"

    def _count_outcome(self, kind: str, reason: str, secs: float, kib: int) -> None:
        tally = self.tally
        tally.slowest_secs = max(tally.slowest_secs, secs)
        tally.peak_kib = max(tally.peak_kib, kib)
        if kind == READ:
            tally.read += 1
        elif kind == REFUSED:
            tally.refused[expectation(reason)] += 1
        else:
            self._find(kind, _raised_at(reason), reason)

    def _count_opinion(self, opinion: str) -> None:
        if opinion:
            self.tally.opinions[opinion] += 1
            if not is_explained(opinion):
                self._find(DISAGREEMENT, opinion, opinion)

    def _lost(self, stage: str, kind: str, words: str) -> None:
        """Count the mutant that ended the process; the second reader's crashes are not gelkit's."""
        if stage not in ("reading", "opinion"):
            raise RuntimeError(f"the worker of {self._name} was lost between mutants:\n{words}")
        if stage == "opinion":
            self.tally.opinions[OPINION_LOST] += 1
        elif self._target.excuse:
            self.tally.found[kind] += 1
        else:
            self._find(kind, _dumped_at(words), words)
        self.tally.mutants += 1

    def _find(self, kind: str, where: str, detail: str) -> None:
        self.tally.found[kind] += 1
        signature = f"{kind}: {where}"
        if signature in self.tally.findings:
            return
        number = self.tally.mutants
        data = mutant(self._files, self._target.mutations, self._seed, number)
        self._kept.mkdir(parents=True, exist_ok=True)
        path = self._kept / f"{self._seed}-{kind}-{number}".replace("/", "-").replace(" ", "_")
        path.write_bytes(data)
        self.tally.findings[signature] = Finding(kind, signature, detail, path)


def _messages(descriptor: int, timeout: float) -> Iterator[dict[str, Any]]:
    """Yield what a worker says until it ends.

    :raises TimeoutError: it says nothing for too long.
    """
    buffered, patience = b"", _START_SECS
    while True:
        if not select.select([descriptor], [], [], patience)[0]:
            raise TimeoutError
        piece = os.read(descriptor, _PIECE_BYTES)
        if not piece:
            return
        *lines, buffered = (buffered + piece).split(b"\n")
        yield from map(json.loads, lines)
        patience = timeout


def _last_words(process: subprocess.Popen[bytes], said: IO[bytes]) -> str:
    """Return how a worker ended, and what it and its libraries wrote."""
    try:
        ended = f"ended with {process.wait(_END_SECS)}"
    except subprocess.TimeoutExpired:
        ended = "did not end"
    said.seek(0)
    return f"{ended}\n{said.read().decode(errors='replace')}"


def expectation(reason: str) -> str:
    """Return what a refusal expected, without names and numbers of one file."""
    expected = re.split(r"\. Received|, received|; nothing", reason, maxsplit=1)[0]
    unnamed = re.sub(r"(?<!\w)(?:'[^']*'|\"[^\"]*\"|/\S+)", "...", expected)
    return re.sub(r"(?<![-.\w])\d[\d,]*\b", "N", unnamed)[:_REASON_CHARACTERS]


def _raised_at(trace: str) -> str:
    """Return which exception came from where, without the message."""
    places = re.findall(r'File "([^"]+)", line (\d+)', trace)
    path, line = places[-1]
    return f"{trace.strip().splitlines()[-1].split(':')[0]} at {Path(path).name}:{line}"


def _dumped_at(words: str) -> str:
    """Return the innermost place in Python that faulthandler told of."""
    found = re.search(r'File "([^"]+)", line (\d+)', words)
    return f"{Path(found[1]).name}:{found[2]}" if found else words.splitlines()[0]
