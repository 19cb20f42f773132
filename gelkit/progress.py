"""How long work tells its caller how far it is."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``: what is being done, and how many of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


def reported(items: Iterable[Item], what: str, total: int, progress: Progress) -> Iterator[Item]:
    """Yield ``items``, reporting each one after it has been dealt with; without any, nothing."""
    if total:
        progress(what, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, total)
