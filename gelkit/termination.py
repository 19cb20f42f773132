"""Termination: SIGTERM ends a command as Ctrl-C does, so that what was finished is kept.

On Windows, where nothing sends it, Ctrl-Break does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gelkit.systems import SYSTEM

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell, a scheduler or a container engine takes for the end of a terminated command."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Whatever cleans up after Ctrl-C cleans up after this, too."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """Raise :class:`Terminated` in the main thread when the first such signal arrives.

    Later ones are ignored, as schedulers send several and would interrupt the cleaning up. Who
    starts the process or calls this may have a will of their own about one: it stays theirs.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [its for its in SYSTEM.ending_signals if signal.getsignal(its) is signal.SIG_DFL]
    if not in_main_thread or not ours:
        yield
        return
    for its in ours:
        signal.signal(its, _terminate)
    try:
        yield
    finally:
        for its in ours:
            signal.signal(its, signal.SIG_DFL)


@contextmanager
def termination_kept() -> Iterator[None]:
    """Put back what SIGTERM does after a library that sets a handler of its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Terminated
