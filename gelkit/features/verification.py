"""Verification: every row of every cache is read, and what is damaged is found and mended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gelkit.errors import UsageError
from gelkit.features.cache import Cache, set_aside
from gelkit.features.recipe import Recipe
from gelkit.features.salvage import salvage
from gelkit.features.shards import CacheError, read_any
from gelkit.paths import as_path
from gelkit.progress import Progress, reported, silent


@dataclass(frozen=True)
class VerifiedShard:
    """What became of one shard."""

    path: Path
    rows: int
    """Rows that are whole."""
    lost: tuple[tuple[str, int], ...] | None = ()
    """The SHA-256 and view of rows that must be computed again; None if nobody can tell which."""
    error: str = ""
    """What is wrong with it; empty if nothing is."""
    set_aside: Path | None = None
    """Where a repair has moved it, after publishing its whole rows anew."""


def verify(
    root: str | Path, *, repair: bool = False, progress: Progress = silent
) -> list[VerifiedShard]:
    """Read every shard below a folder of caches, and check every bit of it.

    :param repair: keep the whole rows of a damaged shard as a new one, and set the damaged one
        aside. What was lost is then missing, and stage one computes it again.
    :raises UsageError: there is no such folder.
    """
    root = as_path(root)
    if not root.is_dir():
        raise UsageError(
            f"Expected a folder of caches. Received: {str(root)!r}, which does not exist. Name it "
            "with --cache."
        )
    shards = sorted(root.glob("*/shard-*.h5"))
    verified = [
        _verified(shard, repair)
        for shard in reported(shards, "verify shards", len(shards), progress)
    ]
    return [shard for shard in verified if shard is not None]


def _verified(shard: Path, repair: bool) -> VerifiedShard | None:
    try:
        recipe, rows = read_any(shard)
    except FileNotFoundError:
        return None  # a compaction has put its rows elsewhere meanwhile
    except CacheError as error:
        return _damaged(shard, str(error), repair)
    if _is_at_home(shard, recipe):
        return VerifiedShard(shard, len(rows))
    return VerifiedShard(shard, 0, None, f"Move it: it belongs into {recipe.folder_name}.")


def _damaged(shard: Path, error: str, repair: bool) -> VerifiedShard:
    found = salvage(shard)
    if found is None or not _is_at_home(shard, found.recipe):
        aside = set_aside(shard) if repair else None
        return VerifiedShard(shard, 0, None, error, aside)
    whole = 0 if found.rows is None else len(found.rows)
    if repair and found.rows is not None:
        Cache(shard.parent.parent, found.recipe).publish(found.rows)
    aside = set_aside(shard) if repair else None
    return VerifiedShard(shard, whole, found.lost, error, aside)


def _is_at_home(shard: Path, recipe: Recipe) -> bool:
    return shard.parent.name == recipe.folder_name
