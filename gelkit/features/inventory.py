"""What caches there are below a folder, and what each of them holds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gelkit.errors import UsageError
from gelkit.features.cache import Cache
from gelkit.features.recipe import Recipe
from gelkit.features.shards import CacheError, read_recipe


@dataclass(frozen=True)
class Inventory:
    """What one cache holds."""

    folder: Path
    recipe: Recipe
    images: int
    views: int
    """Rows: an image has one for each view."""
    failures: int
    shards: int
    bytes: int
    """What the shards take on the disk."""


def take_inventory(root: Path) -> list[Inventory]:
    """Count what the caches below a folder hold; their bytes are read, their embeddings not.

    :raises UsageError: there is no such folder.
    :raises CacheError: a shard is damaged, or lies in the wrong folder.
    """
    return [_inventory(cache) for cache in list_caches(root)]


def list_caches(root: Path) -> list[Cache]:
    """Return the caches below a folder that hold rows, by the names of their folders.

    :raises UsageError: there is no such folder.
    :raises CacheError: a shard is damaged, or lies in the wrong folder.
    """
    if not root.is_dir():
        raise UsageError(
            f"Expected a folder of caches. Received: {str(root)!r}, which does not exist. Name it "
            "with --cache."
        )
    caches: dict[Path, Cache] = {}
    for shard in sorted(root.glob("*/shard-*.h5")):
        if shard.parent not in caches:
            with suppress(FileNotFoundError):  # a compaction has put its rows elsewhere meanwhile
                recipe = read_recipe(shard)
                require_home(shard, recipe)
                caches[shard.parent] = Cache(root, recipe)
    return list(caches.values())


def require_home(shard: Path, recipe: Recipe) -> None:
    """Check that a shard lies in the folder that is named after its recipe.

    :raises CacheError: it does not.
    """
    if shard.parent.name != recipe.folder_name:
        raise CacheError(
            f"Expected {shard} to lie in a folder called {recipe.folder_name}, after its recipe. "
            f"Received: one called {shard.parent.name}. Move it."
        )


def _inventory(cache: Cache) -> Inventory:
    identities = cache.identities()
    sizes = [shard.stat().st_size for shard in cache.folder.glob("shard-*.h5")]
    return Inventory(
        folder=cache.folder,
        recipe=cache.recipe,
        images=len({sha256 for sha256, _ in identities}),
        views=len(identities),
        failures=len(cache.list_failures()),
        shards=len(sizes),
        bytes=sum(sizes),
    )
