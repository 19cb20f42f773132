"""Text for people: names of files may hold anything, and what is shown of them must not."""

from __future__ import annotations

from collections.abc import Sequence


def shown(name: str) -> str:
    """Return a name in which all that does not print (escapes, line ends, bytes) is spelled out."""
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else _spelled(each) for each in name)


def quoted(name: str) -> str:
    """Return a name as :func:`shown`, in quotes if one could not see its white space otherwise.

    >>> print(quoted("good"), quoted("good "))
    good 'good '
    """
    return shown(name) if name == " ".join(name.split()) else repr(name)


def printable(text: str) -> str:
    """Return a text of several lines, each of them as :func:`shown`."""
    return "\n".join(map(shown, text.split("\n")))


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts, such as ``1 image`` or ``1,200 images``."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def inline(words: Sequence[str], most: int = 10) -> str:
    """Return words in one line, the rest of a long list counted.

    >>> print(inline(["a", "b", "c"], most=2))
    a, b and 1 more
    """
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def listed(lines: Sequence[str], most: int = 10) -> str:
    """Return a list with a line for each, indented, the rest of a long one counted."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(f"  {line}" for line in [*lines[:most], *more])


def _spelled(character: str) -> str:
    return ascii(character)[1:-1]
