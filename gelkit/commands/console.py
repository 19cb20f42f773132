"""What all commands share: text that is safe to show, warnings, progress bars, common choices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from gelkit.errors import UsageError
from gelkit.progress import Progress
from gelkit.systems import SYSTEM
from gelkit.text import printable

if TYPE_CHECKING:
    from gelkit.images.formats import Limits


IMAGES_FAILED = click.ClickException(
    "Expected every image to be read (--strict). Received failures, listed above."
)

_RESULTS = Path("results")
"""Where the folders of results go by default."""


class Warnings(logging.Handler):
    """Shows the library's warnings on stderr, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one warning."""
        from tqdm import tqdm

        with tqdm.external_write_mode():
            message = printable(record.getMessage())
            click.secho(f"Warning: {message}", err=True, fg="yellow")


@contextmanager
def bars() -> Iterator[Progress]:
    """Show progress as a bar for each thing that is done; silent when not on a terminal."""
    from tqdm import tqdm

    shown: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in shown:
            _close(shown)
            shown[what] = tqdm(
                total=total,
                desc=what,
                unit="",
                disable=None,
                leave=False,
                ncols=get_terminal_size().columns,  # tqdm shows nothing on a terminal of no width
            )
        shown[what].update(done - shown[what].n)

    try:
        yield report
    finally:
        _close(shown)


def _close(shown: dict[str, Any]) -> None:
    for bar in shown.values():
        bar.close()
    shown.clear()


def chosen_limits(given: dict[str, Any]) -> Limits:
    """Take the limits out of the options that were given."""
    from gelkit.images.formats import Limits

    return Limits(**{name: given.pop(name) for name in Limits.__dataclass_fields__})


def only_results() -> Path:
    """Return the one folder of results that is there.

    :raises UsageError: there are none, or several.
    """
    found = _all_results()
    if len(found) != 1:
        make = "" if found else ", or make one with: gelkit heads DATA"
        raise UsageError(
            f"Expected one folder of results in {str(_RESULTS.resolve())!r}. Received: "
            f"{', '.join(map(str, found)) or 'none'}. Name it with --out{make}"
        )
    return found[0]


def words_for(results: Path, cache: Path) -> str:
    """Return the options that another command needs to find results and caches; or nothing."""
    words = [] if _all_results() == [results] else ["--out", str(results)]
    words += [] if str(cache) == "features" else ["--cache", str(cache)]
    return "".join(f" {SYSTEM.quoted(word)}" for word in words)


def _all_results() -> list[Path]:
    return sorted(path.parent for path in _RESULTS.glob("*/results.csv"))


def echo_if_any(text: str, *, err: bool = False) -> None:
    """Show a text unless it is empty."""
    if text:
        echo(text, err=err)


def echo(text: str, *, err: bool = False) -> None:
    """Show a text in which names of files and classes cannot command the terminal."""
    click.echo(printable(text), err=err)
