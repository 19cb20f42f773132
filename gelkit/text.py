"""Text for people: names of files may hold anything, and what is shown of them must not."""

from __future__ import annotations


def shown(name: str) -> str:
    """Return a name in which all that does not print (escapes, line ends, bytes) is spelled out."""
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else _spelled(each) for each in name)


def printable(text: str) -> str:
    """Return a text of several lines, each of them as :func:`shown`."""
    return "\n".join(map(shown, text.split("\n")))


def _spelled(character: str) -> str:
    return ascii(character)[1:-1]
