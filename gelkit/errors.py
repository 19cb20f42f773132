"""The errors that a user can cause or mend; the command line shows them without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches

_ALIKE = 0.7
"""Of 1: 'resnet19' is 0.88 like 'resnet18'; 'gpu' is 0.67 like 'cpu', and meant otherwise."""


class GelkitError(Exception):
    """Something failed. The message says what was expected, what was received, what to do."""


class UsageError(GelkitError):
    """Gelkit was asked for something that cannot be done as asked: change the call or the data."""


class UnknownNameError(UsageError):
    """A name was given that is in no table.

    :param kind: of what: ``backbone``, ``hardware``; also the name of its option.
    :param known: the names that there are.
    :param others: further names, too many to be listed.
    :param more: what these others are.
    """

    def __init__(
        self,
        kind: str,
        given: str,
        known: Iterable[str],
        others: Iterable[str] = (),
        more: str = "",
    ) -> None:
        names = list(known)
        article = "an" if kind[0] in "aeiou" else "a"
        listed = f"{', '.join(names)}; or {more}" if more else ", ".join(names)
        super().__init__(
            f"Expected {article} {kind}: {listed}. Received: {given!r}."
            f"{_meant(kind, given, [*names, *others])}"
        )


def _meant(kind: str, given: str, known: list[str]) -> str:
    """Say what an unknown name may have been meant for; empty if it is like none."""
    if "," in given:
        several = " ".join(f"--{kind} {name.strip()}" for name in given.split(",") if name.strip())
        return f" Where a command takes several, name each by itself: {several}."
    alike = get_close_matches(given.casefold(), known, n=1, cutoff=_ALIKE)
    return f" Did you mean {alike[0]}?" if alike else ""
