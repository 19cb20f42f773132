"""Merging: caches that were made apart become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gelkit.errors import UsageError
from gelkit.features.cache import Cache
from gelkit.features.inventory import list_caches, require_home
from gelkit.features.shards import CacheError, read_any
from gelkit.files import remove
from gelkit.images.fingerprints import Fingerprints
from gelkit.progress import Progress, reported, silent

_FINGERPRINTS = "fingerprints*.json"


@dataclass(frozen=True)
class Merged:
    """What became of the rows of one cache that was merged into another."""

    folder: Path
    """The cache that they came from."""
    rows: int
    """How many were new."""
    known: int
    """How many the other cache held already."""


def merge(root: Path, sources: Sequence[Path], *, progress: Progress = silent) -> list[Merged]:
    """Add to the caches below ``root`` the rows of the caches below other folders.

    The others stay as they are. Their shards are read one at a time, and of each what is new is
    published whole or not at all, so that after an interruption the same call goes on; then small
    shards become large ones, and what shares have kept apart (failures, known files) is put
    together.

    :param sources: none: only the latter is done.
    :raises UsageError: a folder that is not there, or named twice.
    :raises CacheError: a shard is damaged or lies in the wrong folder: all others are merged, and
        the message names it; or the disk refused.
    """
    _require_folders(root, sources)
    shards = [shard for source in sources for shard in sorted(source.glob("*/shard-*.h5"))]
    merged: dict[Path, Merged] = {}
    known: dict[str, set[tuple[str, int]]] = {}
    damaged: list[CacheError] = []
    for shard in reported(shards, "merge shards", len(shards), progress):
        try:
            its = _publish_new(shard, root, known)
        except CacheError as error:
            damaged.append(error)
            continue
        before = merged.get(its.folder, Merged(its.folder, 0, 0))
        merged[its.folder] = Merged(its.folder, before.rows + its.rows, before.known + its.known)
    caches = list_caches(root) if root.is_dir() else []
    for cache in reported(caches, "compact caches", len(caches), progress):
        _take_over_failures(cache, sources)
        cache.compact()
    _take_over_fingerprints(root, sources)
    if damaged:
        raise CacheError(
            f"{damaged[0]} ({len(damaged)} of {len(shards)} shards were not merged; all others "
            "are.)"
        )
    return list(merged.values())


def _require_folders(root: Path, sources: Sequence[Path]) -> None:
    for source in sources:
        if not source.is_dir():
            raise UsageError(f"Expected a folder of caches. Received: {str(source)!r}.")
    folders = [folder.resolve() for folder in (root, *sources)]
    if len(set(folders)) < len(folders):
        raise UsageError(
            "Expected folders of caches that differ from each other and from --cache. Received: "
            f"{', '.join(map(str, (root, *sources)))}."
        )


def _publish_new(shard: Path, root: Path, known: dict[str, set[tuple[str, int]]]) -> Merged:
    """Publish those of a shard's rows that the cache of its recipe lacks.

    :param known: which rows each cache holds, by the name of its folder; kept up to date.
    """
    recipe, rows = read_any(shard)
    require_home(shard, recipe)
    cache = Cache(root, recipe)
    if recipe.folder_name not in known:
        known[recipe.folder_name] = cache.identities()
    held = known[recipe.folder_name]
    identities = rows.identities()
    new = [place for place, identity in enumerate(identities) if identity not in held]
    if new:
        cache.publish(rows.take(np.array(new, dtype=np.intp)))
        held.update(identities)
    return Merged(shard.parent, len(new), len(rows) - len(new))


def _take_over_failures(cache: Cache, sources: Sequence[Path]) -> None:
    listed = cache.list_failures()
    for source in sources:
        listed += Cache(source, cache.recipe).list_failures()
    embedded = {sha256 for sha256, _ in cache.identities()}
    failed = [its for its in listed if its.sha256 not in embedded]
    cache.record_failures(failed, resolved=embedded)


def _take_over_fingerprints(root: Path, sources: Sequence[Path]) -> None:
    whole = root / "fingerprints.json"
    fingerprints = Fingerprints(whole)
    others = [file for file in sorted(root.glob(_FINGERPRINTS)) if file != whole]
    for file in (*others, *_files(sources)):
        fingerprints.absorb(file)
    fingerprints.save()
    remove(others)


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        yield from sorted(source.glob(_FINGERPRINTS))
