"""Spellings: names that are one to a person and several to a program.

``good`` and ``good `` (a spreadsheet), ``Good`` (a colleague), or an ``ü`` that is one character on
one disk and two on another would be two classes, of which no head can learn the difference.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from gelkit.errors import UsageError

if TYPE_CHECKING:
    from gelkit.images.catalog import CatalogImage

_CASE_COUNTS = ("group",)
"""What may be a running letter: the gels A and a."""


def spelling_key(name: str, *, case_counts: bool = False) -> str:
    """Return what names that differ in white space, Unicode's normal form and case share.

    :param case_counts: names that differ in case share nothing.
    """
    key = " ".join(unicodedata.normalize("NFC", name).split())
    return key if case_counts else unicodedata.normalize("NFC", key.casefold())


def find_alike(names: Iterable[str], *, case_counts: bool = False) -> list[list[str]]:
    """Return the names that share a :func:`spelling_key`, those of each together.

    >>> find_alike(["good ", "bad", "Good"])
    [['Good', 'good ']]
    """
    spellings: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        spellings.setdefault(spelling_key(name, case_counts=case_counts), []).append(name)
    return [its for its in spellings.values() if len(its) > 1]


def require_one_spelling(images: Sequence[CatalogImage], known: Collection[str] = ()) -> None:
    """Check that labels, sources and groups are each spelled in one way.

    :param known: labels that there are already, such as those of trained heads.
    :raises UsageError: otherwise, naming the spellings.
    """
    for column in ("label", "source", "group"):
        names = {getattr(image, column) for image in images} - {None}
        alike = find_alike(
            names | set(known) if column == "label" else names, case_counts=column in _CASE_COUNTS
        )
        if alike:
            raise UsageError(
                f"Expected each {column} to be spelled in one way. Received: "
                f"{'; '.join(map(spelled, alike))}. Rename the folders, or change the "
                f"manifest's column {column!r}; if different ones are meant, give them names that "
                "differ more."
            )


def spelled(names: Sequence[str]) -> str:
    r"""Return names such that one sees how they differ.

    >>> print(spelled(["Gr\u00fcn", "Gru\u0308n"]))
    'Gr\xfcn', 'Gru\u0308n'
    """
    composed = all(unicodedata.is_normalized("NFC", name) for name in names)
    return ", ".join(map(repr if composed else ascii, names))
