"""The pool: processes that train, started as stage one starts its own.

The caller's program is not imported a second time: it needs no guard, and may be a notebook.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, TypeVar

from gelkit.children import Child, Line
from gelkit.errors import GelkitError
from gelkit.processes import import_path
from gelkit.systems import SYSTEM

_PROGRAM = """
from gelkit.children import join
line, _ = join()
from gelkit.heads.pool import serve
serve(line)
"""

Result = TypeVar("Result")


def call_in_processes(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], processes: int
) -> Generator[tuple[int, Result], None, None]:
    """Call a function with each of several arguments, as many at once as there are processes.

    Yields the place of the arguments and the result, in the order in which results come. Whoever
    does not take all of them has to close the generator: that ends the processes.

    :param function: of a module that can be imported; it can be sent, as can what it is given.
    :raises GelkitError: a process died, or could not be started.
    :raises Exception: what the function raised.
    """
    waiting = deque(enumerate(arguments))
    held: dict[Any, tuple[Child, int]] = {}
    children: list[Child] = []
    try:
        for _ in range(min(processes, len(arguments), SYSTEM.most_children)):
            children.append(_started())
        for child in children:
            _give(child, function, waiting, held)
        while held:
            for line in wait(list(held)):
                child, place = held.pop(line)
                try:
                    outcome: Any = child.line.recv()
                except (EOFError, ConnectionResetError) as error:
                    children.remove(child)
                    raise _died(SYSTEM.end(child)) from error
                if isinstance(outcome, Exception):
                    raise outcome
                _give(child, function, waiting, held)
                yield place, outcome
    finally:
        for child in children:
            SYSTEM.end(child)


def serve(line: Line) -> None:
    """Call what is asked for, until whoever asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, arguments = line.recv()
            line.send(_outcome(function, arguments))


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # whatever it is, the parent raises it
        if not isinstance(error, GelkitError):
            error.add_note(f"In a training process:\n{traceback.format_exc()}")
        return error


def _started() -> Child:
    environment = os.environ | {"PYTHONPATH": import_path(), "KERAS_BACKEND": "torch"}
    try:
        return SYSTEM.start(_PROGRAM, 1, environment)
    except OSError as error:
        raise GelkitError(
            f"Expected to start a training process. Received: {error.strerror}. Run again with "
            "fewer --workers; what was finished is kept."
        ) from error


def _give(
    child: Child,
    function: Callable[..., Any],
    waiting: deque[tuple[int, tuple[Any, ...]]],
    held: dict[Any, tuple[Child, int]],
) -> None:
    """Give a process what waits first, if anything does."""
    if waiting:
        place, arguments = waiting.popleft()
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, and will be found dead
            child.line.send((function, arguments))
        held[child.line] = (child, place)


def _died(cause: str) -> GelkitError:
    return GelkitError(
        f"Expected the training processes to finish. Received: one died ({cause}), perhaps out of "
        "memory. Run again with fewer --workers; what was finished is kept."
    )
