"""Engines: how images become rows of a cache. This one runs worker processes on this machine.

It holds a few batches for each worker and never the data set, kills a worker that hangs on an
image, and gives what a dead worker held to another: an image is recorded as failed only when it
was alone to blame.

Where the cores embed, each worker decodes what it embeds. An accelerator is one worker's, and other
workers decode for it, so that an image costs the life of a decoder at most.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import count, islice
from multiprocessing.connection import wait

from gelkit.children import Child
from gelkit.errors import GelkitError
from gelkit.features.cache import Failure
from gelkit.features.workers import (
    AHEAD,
    Assignment,
    Batch,
    Clock,
    Decoded,
    Decoding,
    Prepared,
    Setup,
    Task,
    out_of_memory,
)
from gelkit.processes import fitting_processes, import_path, usable_cores
from gelkit.systems import SYSTEM

MOST_DECODERS = 32
_DECODED_AT_ONCE = 16
"""Images that a decoder is given: fewer than several chips embed, so that all have something."""

_PROGRAM = """
from gelkit.children import join
joined = join()
from gelkit.features.workers import main
main(*joined)
"""
_ATTEMPTS = 2
_DEATHS_IN_A_ROW = 10
_DEATHS_AT_START = 3
_LOOK_SECS = 1.0
_PAUSE_SECS = 5.0
_WORKER_BYTES = 1.2e9
"""What a worker of the largest backbone takes beside its weights, measured."""


def choose_workers(hardware: str, parameters: int, given: int | None = None) -> int:
    """Return how many processes embed: one for each core on the CPU, as far as memory goes.

    :param parameters: of the backbone; a worker holds its weights about twice.
    :param given: what the user wants, which is not questioned.
    """
    if hardware != "cpu":
        return 1  # an accelerator belongs to one process
    if given is not None:
        return given
    return fitting_processes(count_worker_bytes(parameters))


def count_worker_bytes(parameters: int) -> float:
    """Return about what a worker takes of the memory, whose backbone has so many parameters."""
    return _WORKER_BYTES + 8 * parameters


def choose_decoders(hardware: str) -> int:
    """Return how many processes decode for the one that embeds: none where all cores embed."""
    return 0 if hardware == "cpu" else min(usable_cores(), MOST_DECODERS)


def run_workers(
    tasks: Sequence[Task],
    assignment: Assignment,
    workers: int,
) -> Generator[Batch, None, None]:
    """Embed or inspect images in worker processes; yield batches in no certain order.

    :raises GelkitError: what a worker refuses (weights, device), or workers that keep dying.
    """
    images_a_batch = count_images_a_batch(tasks, assignment)
    batches = -(-len(tasks) // images_a_batch)
    with closing(Workers(assignment, images_a_batch, workers, most=batches)) as started:
        yield from started.run(tasks)


def count_images_a_batch(tasks: Iterable[Task], assignment: Assignment) -> int:
    """Return how many images a worker is given at once, so that their views fill a batch."""
    views = max((len(task.views) for task in tasks), default=1)
    return max(1, assignment.batch_size // views)


class Workers:
    """Worker processes that keep their backbone from one call to the next, until they are closed.

    :param workers: how many embed, or inspect.
    :param most: how many batches there will be at a time: no more processes are started.
    """

    def __init__(
        self, assignment: Assignment, images_a_batch: int, workers: int, most: int = sys.maxsize
    ) -> None:
        workers = min(workers, most, SYSTEM.most_children)
        self._engine = _Engine(images_a_batch, assignment, workers)
        self._decoders: _Engine | None = None
        if isinstance(assignment, Setup) and assignment.decoders:
            decoding = Decoding(assignment.rendering, assignment.batch_size)
            at_once = min(images_a_batch, _DECODED_AT_ONCE)
            decoders = min(assignment.decoders, most * -(-images_a_batch // at_once))
            self._decoders = _Engine(at_once, decoding, decoders)

    def run(self, tasks: Iterable[Task]) -> Iterator[Batch]:
        """Embed or inspect images; yield batches in no certain order.

        Whoever does not take all of them has to close the workers then.

        :raises GelkitError: as :func:`run_workers`.
        """
        if self._decoders is None:
            yield from self._engine.run(tasks)
            return
        failures: list[Failure] = []
        prepared = _prepared(self._decoders.run(tasks), failures)
        for batch in self._engine.run(prepared):
            yield replace(batch, failures=[*failures, *batch.failures])
            failures.clear()
        if failures:
            yield Batch(None, failures)

    def close(self) -> None:
        """End the processes."""
        self._engine.stop()
        if self._decoders is not None:
            self._decoders.stop()


def _prepared(batches: Iterable[Batch], failures: list[Failure]) -> Iterator[Prepared]:
    """Yield the images that were decoded, and add to the failures those that were not."""
    for batch in batches:
        failures += batch.failures
        yield from batch.prepared


@dataclass
class _Worker:
    child: Child
    held: deque[list[int]] = field(default_factory=deque)
    """The images of each batch it was given and has not given back."""
    ready: bool = False
    """Whether it has the backbone, and has begun with images."""

    def decoding(self) -> Decoded | None:
        """Return which image it is decoding, and for how long."""
        return Clock(self.child.memory).read()

    def overspending(self) -> bool:
        """Tell whether the image that it is decoding takes more memory than it may."""
        now = self.decoding()
        if now is None or not now.allowed:
            return False
        taken, later = SYSTEM.memory_of(self.child.process.pid), self.decoding()
        return taken > now.allowed and later is not None and later.number == now.number


class _Engine:
    """The images that wait, the workers, and what each of them holds."""

    def __init__(self, images_a_batch: int, assignment: Assignment, workers: int) -> None:
        self._assignment = assignment
        self._decode_secs = assignment.rendering.limits.seconds
        self._images_a_batch = images_a_batch
        self._num_workers = workers
        self._numbers = count()
        self._fresh: Iterator[tuple[int, Task | Prepared]] = iter(())
        self._items: dict[int, Task | Prepared] = {}
        """Those that workers hold, or are to be given again, by number."""
        self._again: deque[list[int]] = deque()
        self._deaths: Counter[int] = Counter()
        self._deaths_in_a_row = 0
        self._any_ready = False
        self._workers: list[_Worker] = []
        self._looked_at = time.monotonic()

    def run(self, items: Iterable[Task | Prepared]) -> Iterator[Batch]:
        self._fresh = zip(self._numbers, items, strict=False)
        while len(self._workers) < self._num_workers:
            self._workers.append(_start_worker(self._assignment))
        for _ in range(AHEAD):
            for worker in self._workers:
                self._feed(worker)
        while self._again or any(worker.held for worker in self._workers):
            ready = wait([worker.child.line for worker in self._workers], timeout=_LOOK_SECS)
            for worker in [worker for worker in self._workers if worker.child.line in ready]:
                yield from self._receive(worker)
            yield from self._kill_hanging()

    def stop(self) -> None:
        for worker in self._workers:
            SYSTEM.end(worker.child)
        self._workers.clear()

    def _feed(self, worker: _Worker) -> None:
        batch = self._again.popleft() if self._again else self._next_batch()
        if not batch:
            return
        try:
            worker.child.line.send([(number, self._items[number]) for number in batch])
        except (BrokenPipeError, ConnectionResetError):
            self._again.appendleft(batch)  # it has died, and is about to be found dead
            return
        worker.held.append(batch)

    def _next_batch(self) -> list[int]:
        batch = dict(islice(self._fresh, self._images_a_batch))
        self._items |= batch
        return list(batch)

    def _receive(self, worker: _Worker) -> Iterator[Batch]:
        try:
            message = worker.child.line.recv()
        except (EOFError, ConnectionResetError):
            yield from self._replace(worker)
            return
        if isinstance(message, GelkitError):
            raise message
        if message is None:
            worker.ready = self._any_ready = True
            return
        for number in worker.held.popleft():
            del self._items[number]
        self._deaths_in_a_row = 0
        yield message  # before more is asked for, which may have to be waited for
        self._feed(worker)

    def _kill_hanging(self) -> Iterator[Batch]:
        """Look, at most once a second, for images that take too long, or too much memory.

        After a longer pause (the whole run was stopped, or a laptop asleep) they get another look.
        """
        pause = time.monotonic() - self._looked_at
        if pause < _LOOK_SECS:
            return
        self._looked_at = time.monotonic()
        if pause > _PAUSE_SECS:
            return
        for worker in list(self._workers):
            now = worker.decoding()
            if now is not None and now.secs > self._decode_secs:
                yield from self._replace(worker, (now.number, self._too_slow()))
            elif now is not None and worker.overspending():
                limits = self._assignment.rendering.limits
                yield from self._replace(worker, (now.number, out_of_memory(limits)))

    def _replace(self, worker: _Worker, why: tuple[int, str] | None = None) -> Iterator[Batch]:
        """Start another worker for what a dead or hanging one held, apart from what is to blame.

        :param why: the number of the image that is, if that is known, and why.
        """
        suspects = self._suspects(worker) if why is None else []
        reason = SYSTEM.end(worker.child)
        self._workers.remove(worker)
        self._deaths_in_a_row += 1
        self._require_hope(reason)
        failures = self._suspected(suspects, reason)
        if why is not None:
            failures = [self._failed(*why)]
        if failures:
            self._deaths_in_a_row = 0  # something is settled
            yield Batch(None, failures)
        blamed = {*suspects, *([] if why is None else why[:1])}
        spared = [[number for number in batch if number not in blamed] for batch in worker.held]
        self._again += filter(None, spared)
        self._workers.append(_start_worker(self._assignment))
        for _ in range(AHEAD):
            self._feed(self._workers[-1])

    def _suspects(self, worker: _Worker) -> list[int]:
        """Return what a dead worker was decoding, or, as it seems, embedding."""
        decoding = worker.decoding()
        if decoding is not None:
            return [decoding.number]
        return worker.held[0] if worker.ready and worker.held else []

    def _require_hope(self, reason: str) -> None:
        """Give up if no worker ever gets ready, or they die again and again."""
        if self._deaths_in_a_row > (_DEATHS_IN_A_ROW if self._any_ready else _DEATHS_AT_START):
            raise GelkitError(
                f"Expected the workers to live. Received: {self._deaths_in_a_row} deaths in a row, "
                f"the last by {reason}. What was finished is kept; run again, with fewer --workers "
                "if memory was short."
            )

    def _suspected(self, numbers: Sequence[int], reason: str) -> list[Failure]:
        """Try images again, each alone, and give up those that had their attempts."""
        self._deaths.update(numbers)
        given_up = [number for number in numbers if self._deaths[number] >= _ATTEMPTS]
        self._again += [[number] for number in numbers if number not in given_up]
        error = f"the process that worked on it died {_ATTEMPTS} times ({reason})"
        return [self._failed(number, error) for number in given_up]

    def _too_slow(self) -> str:
        return (
            f"expected an image that is read and decoded within {self._decode_secs:g} s. Received: "
            "one that took longer. Make it smaller, or raise --decode-seconds."
        )

    def _failed(self, number: int, error: str) -> Failure:
        item = self._items.pop(number)
        return Failure(item.name, item.sha256, error, retry=True)


def _start_worker(assignment: Assignment) -> _Worker:
    try:
        return _started_worker(assignment)
    except OSError as error:
        raise GelkitError(
            f"Expected to start a worker process. Received: {error.strerror}. Run again with fewer "
            "--workers."
        ) from error


def _started_worker(assignment: Assignment) -> _Worker:
    child = SYSTEM.start(_PROGRAM, Clock.SIZE, _environment(assignment))
    Clock(child.memory).stop()
    with suppress(BrokenPipeError, ConnectionResetError):  # it has died, and will be found dead
        child.line.send(assignment)
    return _Worker(child)


def _environment(assignment: Assignment) -> dict[str, str]:
    """Return a worker's environment: importing what this process would, one thread on the CPU."""
    environment = os.environ | {"PYTHONPATH": import_path()}
    if assignment.hardware == "cpu":
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return environment
