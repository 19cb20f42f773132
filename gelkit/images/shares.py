"""Shares: a catalog dealt out to processes that know nothing of each other."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from hashlib import sha256

from gelkit.errors import UsageError
from gelkit.images.catalog import Catalog

_FORM = re.compile("([0-9]{1,9})/([0-9]{1,9})")
_MOST = 1_000_000


@dataclass(frozen=True)
class Share:
    """One of ``count`` shares of any catalog, by number, from 1.

    Which share an image belongs to depends on its name alone, so that nobody reads the images of
    others: it is the remainder of the first 64 bits of the name's SHA-256 divided by ``count``.

    :raises UsageError: there is no such share.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= _MOST:
            raise UsageError(
                f"Expected a share from 1/N to N/N, N at most {_MOST:,}. Received: {self}."
            )

    def __str__(self) -> str:
        """Return the share as it is asked for: ``3/16``."""
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """What the names of the files that belong to the share alone end in."""
        return f"-{self.number}-of-{self.count}"

    def holds(self, name: str) -> bool:
        """Tell whether an image of this name belongs to the share."""
        first = int.from_bytes(sha256(os.fsencode(name)).digest()[:8], "big")
        return first % self.count == self.number - 1

    def of(self, catalog: Catalog) -> Catalog:
        """Return what of a catalog belongs to the share, in the catalog's order."""
        return replace(
            catalog,
            images=tuple(its for its in catalog.images if self.holds(its.name)),
            unreadable=tuple(its for its in catalog.unreadable if self.holds(its.name)),
            skipped=tuple(filter(self.holds, catalog.skipped)),
            leftovers=tuple(its for its in catalog.leftovers if self.holds(its.name)),
        )


def parse_share(text: str) -> Share:
    """Read a share as it is asked for, such as ``3/16``.

    :raises UsageError: it is none.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"Expected a share like 3/16. Received: {text!r}.")
    return Share(int(found[1]), int(found[2]))
