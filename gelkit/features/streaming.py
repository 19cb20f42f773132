"""Streaming: a cache of any size, read a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError
from gelkit.features.advice import say_how
from gelkit.features.backbones import get_backbone
from gelkit.features.cache import Cache
from gelkit.features.recipe import Recipe, RecipeOptions, make_recipe
from gelkit.features.shards import OpenShard
from gelkit.paths import as_path

_SHUFFLED_BYTES = 2**26
"""Of so many bytes of embeddings, from all over the cache, the order is mixed at a time."""


def open_cache(
    cache: str | Path = "features",
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    options: RecipeOptions | None = None,
    view: int = 0,
) -> CacheReader:
    """Open the cache of one recipe, to read its embeddings a part at a time.

    For caches that do not fit into memory; :func:`gelkit.load` reads a catalog's embeddings at
    once. Close it when done, or use it in a ``with`` statement.

    :param cache: the folder that holds the caches of all recipes.
    :param view: which view of each image.
    :raises UsageError: an unknown backbone, hardware or option.
    :raises GelkitError: the cache holds no such embeddings.
    :raises CacheError: it is damaged, or of another recipe.
    """
    recipe = make_recipe(backbone, hardware, options, augmented=view > 0)
    opened = Cache(as_path(cache), recipe)
    stack, shards = opened.open_shards()
    reader = CacheReader(recipe, stack, shards, view)
    if not len(reader):
        reader.close()
        pairs = [(backbone, hardware)]
        raise GelkitError(
            f"Expected {opened.folder} to hold embeddings of view {view}. Received: none. "
            f"{say_how(pairs, options or RecipeOptions(), as_path(cache), view=view)}"
        )
    return reader


class CacheReader:
    """The embeddings of one recipe, numbered from 0, in the order in which they are stored.

    Memory grows by 72 bytes for each embedding (five times that while it is opened), and not with
    what an embedding takes; of a cache in a store, whole shards are held. What is published after
    it was opened is not seen; what a compaction removes still is.

    :param stack: closes the shards.
    """

    def __init__(
        self, recipe: Recipe, stack: ExitStack, shards: Sequence[OpenShard], view: int
    ) -> None:
        self.recipe = recipe
        self.width = get_backbone(recipe.backbone).width
        """Values of an embedding."""
        self._stack = stack
        self._shards = shards
        self._chunks = np.array([shard.rows_per_chunk("embedding") for shard in shards])
        self._sha256s, self._shard, self._row = _index(shards, view)

    def __enter__(self) -> CacheReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._sha256s)

    def __repr__(self) -> str:
        """Tell what these are embeddings of."""
        its = self.recipe
        return (
            f"<CacheReader: {len(self):,} x {self.width} by {its.backbone} ({its.weights}) on "
            f"{its.hardware}>"
        )

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def sha256s(self) -> npt.NDArray[np.bytes_]:
        """What the images are known by, (images,), 64 hexadecimal digits each."""
        return self._sha256s

    def positions(self, sha256s: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the numbers of images' embeddings, (images,); -1 where there is none."""
        if not len(sha256s):
            return np.zeros(0, dtype=np.int64)
        order: npt.NDArray[np.int64] = np.argsort(self._sha256s).astype(np.int64)
        wanted = np.array([sha256.encode() for sha256 in sha256s], dtype=self._sha256s.dtype)
        places = np.searchsorted(self._sha256s, wanted, sorter=order).clip(max=len(self) - 1)
        found: npt.NDArray[np.int64] = order[places]
        found[self._sha256s[found] != wanted] = -1
        return found

    def read(self, positions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the embeddings of these numbers, (numbers x width), in the order given.

        :raises IndexError: a number below 0, or beyond the last.
        :raises CacheError: the cache is damaged.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"Expected numbers from 0 to {len(self) - 1}.")
        values = np.empty((len(wanted), self.width), dtype=np.float32)
        order = np.argsort(wanted, kind="stable")
        for block in self._together(wanted[order]):
            values[order[block]] = self._read_chunk(wanted[order[block]])
        return values

    def batches(
        self, size: int, *, seed: int | None = None
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield every embedding once, as numbers (size,) and embeddings (size x width).

        The last batch may be smaller.

        :param seed: mixes the order: chunks of neighbours are drawn from all over the cache, and
            64 MB of them mixed at a time. None keeps the order.
        :raises CacheError: the cache is damaged.
        """
        held = np.zeros(0, dtype=np.int64)
        values = np.zeros((0, self.width), dtype=np.float32)
        for positions in self._portions(seed):
            held = np.concatenate([held, positions])
            values = np.concatenate([values, self.read(positions)])
            whole = len(held) - len(held) % size
            for start in range(0, whole, size):
                yield held[start : start + size], values[start : start + size]
            held, values = held[whole:], values[whole:]
        if len(held):
            yield held, values

    def sample(self, count: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
        """Draw numbers of embeddings without replacement, each as likely as any, sorted.

        :raises ValueError: there are fewer.
        """
        random = np.random.default_rng(seed)
        drawn: npt.NDArray[np.int64] = random.choice(len(self), count, replace=False, shuffle=False)
        return np.sort(drawn)

    def _portions(self, seed: int | None) -> Iterator[npt.NDArray[np.int64]]:
        """Yield all numbers, as many at a time as are to be held in memory."""
        most = max(1, _SHUFFLED_BYTES // (4 * self.width))
        if seed is None:
            for start in range(0, len(self), most):
                yield np.arange(start, min(start + most, len(self)))
            return
        blocks = self._together(np.arange(len(self)))
        random = np.random.default_rng(seed)
        portion: list[npt.NDArray[np.int64]] = []
        count = 0
        for place in random.permutation(len(blocks)):
            portion.append(np.arange(blocks[place].start, blocks[place].stop))
            count += len(portion[-1])
            if count >= most:
                yield random.permutation(np.concatenate(portion))
                portion, count = [], 0
        if portion:
            yield random.permutation(np.concatenate(portion))

    def _together(self, positions: npt.NDArray[np.int64]) -> list[slice]:
        """Group sorted numbers by the chunk that holds their embeddings."""
        if not len(positions):
            return []
        shard = self._shard[positions]
        chunk = self._row[positions] // self._chunks[shard]
        cuts = np.flatnonzero((np.diff(shard) != 0) | (np.diff(chunk) != 0)) + 1
        return list(map(slice, [0, *cuts.tolist()], [*cuts.tolist(), len(positions)]))

    def _read_chunk(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read sorted numbers whose embeddings lie in one chunk."""
        shard, rows = self._shards[self._shard[positions[0]]], self._row[positions]
        first = int(rows[0])
        values = shard.column("embedding", slice(first, int(rows[-1]) + 1))
        shard.require(values.shape[1] == self.width, f"embeddings of {self.width} values")
        chosen: npt.NDArray[np.float32] = values[rows - first]
        return chosen


def _index(
    shards: Sequence[OpenShard], view: int
) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the SHA-256, the shard and the row of each embedding of a view, the first of each."""
    sha256s, places, rows = [np.zeros(0, "S64")], [np.zeros(0, "i4")], [np.zeros(0, "i4")]
    for place, shard in enumerate(shards):
        views, digests = shard.column("view"), shard.column("sha256")
        shard.require(len(views) == len(digests) == shard.count("embedding"), "one length")
        chosen = np.flatnonzero(views == view).astype("i4")
        sha256s.append(digests[chosen])
        rows.append(chosen)
        places.append(np.full(len(chosen), place, "i4"))
    listed = np.concatenate(sha256s)
    first = np.sort(np.unique(listed, return_index=True)[1])
    return listed[first], np.concatenate(places)[first], np.concatenate(rows)[first]
