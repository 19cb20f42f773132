"""The cache: a folder of immutable shards for each recipe, and what failed beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np

from gelkit.features.recipe import Recipe
from gelkit.features.shards import (
    CacheError,
    OpenShard,
    Rows,
    concatenate,
    encode,
    file_name,
    open_verified,
    read,
    read_bytes,
    read_identities,
    to_strings,
)
from gelkit.files import make_folder, may_change, remove, rename, write_atomically
from gelkit.images.shares import Share
from gelkit.paths import as_path
from gelkit.tables import parse_table, table_bytes

COMPACTED_BYTES = 2**29
"""Shards are merged into one of at most about this size, held in memory while it is made."""

_FAILURE_COLUMNS = ("path", "sha256", "error", "retry", "decoder")
_LEFTOVER_SECS = 24 * 3600
_VANISHED_RETRIES = 20
_VANISHED_WAIT_SECS = 0.05

Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """An image that gave no embedding."""

    name: str
    sha256: str
    """Empty if the file could not even be read."""
    error: str
    retry: bool
    """Whether another attempt on the same bytes can go differently."""
    decoder: str = ""
    """What refused the bytes, with its version; another version tries again."""


class Cache:
    """The embeddings of one recipe.

    Any number of processes may read and publish at the same time. Nothing is made on disk before
    the first rows are published.

    :param root: the folder that holds the caches of all recipes.
    :param share: what this process works on while others work on other shares: what fails is then
        kept in a table of the share's own, and compacting left to a run over the whole.
    :param aside: the folder for what is added, where ``root`` may only be read; None: ``root``.
    """

    def __init__(
        self, root: Path, recipe: Recipe, share: Share | None = None, aside: Path | None = None
    ) -> None:
        self.recipe = recipe
        self.folder = as_path(root) / recipe.folder_name
        self._share = share
        self._aside = None if aside is None else aside / recipe.folder_name

    def may_change(self) -> bool:
        """Tell whether rows can be added: whether the folder, or what is above it, is writable."""
        place = self._written
        while not place.exists() and place != place.parent:
            place = place.parent
        return may_change(place)

    def adding_to(self, root: Path) -> Cache:
        """Return this cache with what is added kept in another folder; both are read."""
        return Cache(self.folder.parent, self.recipe, self._share, root)

    def identities(self) -> set[tuple[str, int]]:
        """Return the (SHA-256, view) of all rows, without reading the embeddings.

        :raises CacheError: a shard is damaged, or of another recipe.
        """
        return self._retried(
            lambda shards: {
                identity for shard in shards for identity in read_identities(shard, self.recipe)
            }
        )

    def read(self, sha256s: Sequence[str], view: int = 0) -> Rows:
        """Return the rows of images, in the order given; an image may be asked for twice.

        :raises CacheError: as of :meth:`identities`.
        :raises KeyError: there is no such row.
        """
        wanted = {sha256.encode() for sha256 in sha256s}
        rows = self._retried(
            lambda shards: (
                concatenate([_chosen(read(shard, self.recipe), wanted, view) for shard in shards])
                if shards
                else None
            )
        )
        if rows is None:
            raise KeyError(sha256s[0])
        positions = {sha256: i for i, sha256 in enumerate(to_strings(rows.columns["sha256"]))}
        return rows.take(np.array([positions[sha256] for sha256 in sha256s], dtype=np.intp))

    def open_shards(self) -> tuple[ExitStack, list[OpenShard]]:
        """Open all shards to read parts of them; return what closes them, too.

        :raises CacheError: as of :meth:`identities`.
        """
        return self._retried(self._open_all)

    def _open_all(self, shards: list[Path]) -> tuple[ExitStack, list[OpenShard]]:
        with ExitStack() as stack:
            opened = [stack.enter_context(open_verified(shard, self.recipe)) for shard in shards]
            return stack.pop_all(), opened

    def weights_sha256(self) -> str | None:
        """Return the full SHA-256 of the weights file that made the rows; None without rows."""
        return self._retried(
            lambda shards: (
                str(read(shards[0], self.recipe).provenance[0]["weights_sha256"])
                if shards
                else None
            )
        )

    def publish(self, rows: Rows) -> None:
        """Add rows as a shard that readers see whole or not at all, and that survives a crash.

        :raises CacheError: the disk refused (full, read-only); nothing that was there is lost.
        """
        self._publish(rows, datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ"))

    def compact(self) -> None:
        """Merge small shards into one; whatever interrupts it, no row is lost.

        Removes what runs that were killed a day ago or more had begun to write. A folder that may
        only be read stays as it is.

        :raises CacheError: a shard is damaged, or the disk refused.
        """
        if self._share is not None or self._aside is not None or not may_change(self.folder):
            return
        self._retried(self._merge_small)
        self._remove(self._leftovers())

    @property
    def failures_file(self) -> Path:
        """The table of what failed, as CSV."""
        return self._written / f"failures{self._share.suffix if self._share else ''}.csv"

    def failures(self) -> dict[str, Failure]:
        """Return the images that failed, by SHA-256.

        :raises CacheError: the disk refused to give the list.
        """
        return {failure.sha256: failure for failure in self.list_failures() if failure.sha256}

    def list_failures(self) -> list[Failure]:
        """Return all that failed, in whichever share. A damaged list is empty: it is a record only.

        :raises CacheError: the disk refused to give the list.
        """
        return _listed_failures([self.failures_file, *self._others_failures()])

    def record_failures(self, failures: Iterable[Failure], resolved: Iterable[str] = ()) -> None:
        """Keep failures beside the shards, a row for each file that failed.

        What was known of ``resolved`` SHA-256s, and of those that failed now, is forgotten, and
        so are all files that have no SHA-256 since they were never read. A run over the whole also
        takes over what shares have kept.
        """
        new = {(its.name, its.sha256): its for its in failures}
        forgotten = {"", *resolved, *(sha256 for _, sha256 in new)}
        takes_over = self._share is None and may_change(self.folder)
        others = self._others_failures() if takes_over else []
        listed = _listed_failures([self.failures_file, *others])
        kept = [*(its for its in listed if its.sha256 not in forgotten), *new.values()]
        if kept != listed or others:
            self._write(self.failures_file.name, table_bytes(_FAILURE_COLUMNS, map(astuple, kept)))
        self._remove(others)

    def _others_failures(self) -> list[Path]:
        files = [self.folder / "failures.csv", *sorted(self.folder.glob("failures-*.csv"))]
        return [file for file in files if file != self.failures_file]

    def _shards(self) -> list[Path]:
        """List the shards, the earliest first: of doubled rows the earliest counts.

        Twice, until both lists agree: a large folder is not listed in one instant, and a compaction
        in between would hide the old shards and the new one.
        """
        before, shards = None, self._listed()
        while shards != before:
            before, shards = shards, self._listed()
        return shards

    def _listed(self) -> list[Path]:
        added = [] if self._aside is None else sorted(self._aside.glob("shard-*.h5"))
        return [*sorted(self.folder.glob("shard-*.h5")), *added]

    @property
    def _written(self) -> Path:
        return self._aside or self.folder

    def _leftovers(self) -> Iterator[Path]:
        latest = time.time() - _LEFTOVER_SECS
        return (file for file in self.folder.glob(".*.tmp") if file.stat().st_mtime < latest)

    def _merge_small(self, shards: list[Path]) -> None:
        sizes = {shard: shard.stat().st_size for shard in shards}
        for batch in _fitting(sizes, COMPACTED_BYTES):
            merged = concatenate([read(shard, self.recipe) for shard in batch])
            published = self._publish(merged, batch[0].name.split("-")[1])
            self._remove(shard for shard in batch if shard != published)

    def _retried(self, action: Callable[[list[Path]], Result]) -> Result:
        """Act on the shards; list them again if a compaction took one away meanwhile."""
        for _ in range(_VANISHED_RETRIES):
            try:
                return action(self._shards())
            except FileNotFoundError as error:
                vanished = error.filename
                time.sleep(_VANISHED_WAIT_SECS)
        raise CacheError(
            f"Expected the shards that {self.folder} lists to be there. Received: "
            f"{_VANISHED_RETRIES} times one that is not, the last {vanished}. If it is a link, "
            "remove it; if other runs work on this cache, wait for them."
        )

    def _publish(self, rows: Rows, stamp: str) -> Path:
        data = encode(rows, self.recipe)
        return self._write(file_name(stamp, data), data)

    def _remove(self, files: Iterable[Path]) -> None:
        try:
            remove(files)
        except OSError as error:
            raise CacheError(
                f"Expected to remove files of {self.folder} whose content is in another. "
                f"Received: {error.strerror}. Nothing is lost or doubled; the next run tries again."
            ) from error

    def _write(self, name: str, data: bytes) -> Path:
        try:
            make_folder(self._written)
            write_atomically(self._written / name, data)
        except OSError as error:
            raise CacheError(
                f"Expected to write {len(data)} bytes into {self._written}. Received: "
                f"{error.strerror}. Make room or choose another --cache; what the cache held "
                "before is untouched."
            ) from error
        return self._written / name


def set_aside(shard: Path) -> Path:
    """Rename a damaged shard, so that nobody reads it and nothing of it is lost.

    :raises CacheError: the disk refused.
    """
    aside = shard.with_name(f"damaged-{shard.name}")
    try:
        rename(shard, aside)
    except OSError as error:
        raise CacheError(
            f"Expected to rename {shard} to {aside.name}. Received: {error.strerror}. Make its "
            "folder one that can be changed."
        ) from error
    return aside


def _listed_failures(files: Iterable[Path]) -> list[Failure]:
    """Return the failures of tables, one for each file that failed: the first."""
    failures: dict[tuple[str, str], Failure] = {}
    for file in files:
        for failure in _failures_in(file):
            failures.setdefault((failure.name, failure.sha256), failure)
    return list(failures.values())


def _failures_in(file: Path) -> list[Failure]:
    try:
        columns, rows = parse_table(read_bytes(file))
    except (FileNotFoundError, ValueError):
        return []
    if columns != list(_FAILURE_COLUMNS):
        return []
    return [
        Failure(name, sha256, error, retry.casefold() == "true", decoder)
        for name, sha256, error, retry, decoder in rows
    ]


def _fitting(sizes: Mapping[Path, int], most: int) -> list[list[Path]]:
    """Group neighbouring shards that fit into ``most`` together.

    Only neighbours: a row that an earlier shard holds too must not come to stand before it.
    """
    groups: list[list[Path]] = []
    total = 0
    for shard, size in sizes.items():
        if not groups or total + size > most:
            groups.append([])
            total = 0
        groups[-1].append(shard)
        total += size
    return [group for group in groups if len(group) > 1]


def _chosen(rows: Rows, wanted: set[bytes], view: int) -> Rows:
    digests, views = rows.columns["sha256"].tolist(), rows.columns["view"].tolist()
    index = [
        i
        for i, (digest, number) in enumerate(zip(digests, views, strict=True))
        if number == view and digest in wanted
    ]
    return rows.take(np.array(index, dtype=np.intp))
