"""Made-up rows whose every bit is known, and programs that publish and read them.

A module of its own, so that other processes can import it without the tests.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gelkit.features.cache import Cache
from gelkit.features.recipe import make_recipe
from gelkit.features.shards import COLUMNS, Rows, make_rows, read
from gelkit.features.workers import Batch

RECIPE = make_recipe("resnet18", "cpu")


def sha256_of(number: int) -> str:
    """Return what stands for the SHA-256 of image ``number``."""
    return f"{number:064x}"


@functools.cache
def embedding_of(number: int, attempt: int = 0) -> npt.NDArray[np.float32]:
    """Return the embedding of an image; another attempt differs in the last digits."""
    values = np.random.default_rng(number).normal(size=512)
    return (values * (1 + attempt * 1e-6)).astype(np.float32)


def make(numbers: Iterable[int], attempt: int = 0) -> Rows:
    """Make the rows of images."""
    numbers = list(numbers)
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, np.zeros(len(numbers)))
    columns |= {
        "sha256": [sha256_of(number) for number in numbers],
        "embedding": np.stack([embedding_of(number, attempt) for number in numbers]),
        "intensity": np.zeros((len(numbers), 13)),
    }
    return make_rows(columns, {"weights_sha256": "", "attempt": attempt})


def numbers_in(cache: Cache, attempts: dict[int, int] | None = None) -> set[int]:
    """Return which images have a row, after every bit of each embedding was compared.

    :param attempts: which attempt each image's row must be of; 0 if it is not named.
    """
    sha256s = sorted(sha256 for sha256, _ in cache.identities())
    numbers = [int(sha256, 16) for sha256 in sha256s]
    if numbers:
        expected = [embedding_of(number, (attempts or {}).get(number, 0)) for number in numbers]
        rows = cache.read(sha256s)
        assert rows.columns["sha256"].astype(str).tolist() == sha256s, "a row of another image"
        assert np.array_equal(rows.columns["embedding"], np.stack(expected)), "a wrong embedding"
    return set(numbers)


def embeddings_in(batches: Iterable[Batch]) -> dict[tuple[str, int], npt.NDArray[np.float32]]:
    """Return what an engine's batches hold, by SHA-256 and view, each of which came once."""
    found: dict[tuple[str, int], npt.NDArray[np.float32]] = {}
    for batch in batches:
        if batch.rows is not None:
            identities = batch.rows.identities()
            assert not set(identities) & set(found), "a row came twice"
            found |= dict(zip(identities, batch.rows.columns["embedding"], strict=True))
    return found


def count_stored(cache: Cache) -> int:
    """Return how many rows all shards hold, doubled ones counted twice."""
    return sum(len(read(shard, RECIPE)) for shard in cache.folder.glob("shard-*.h5"))


def publish_many(root: Path, start: int, count: int, said: Path) -> None:
    """Publish rows one by one, compact now and then, and say in a file what was published."""
    cache = Cache(root, RECIPE)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(start, start + count):
        cache.publish(make([number]))
        os.write(descriptor, f"{number}\n".encode())
        if number % 3 == 0:
            cache.compact()


def read_on(root: Path, count: int, found: Any) -> None:
    """Read until all of the rows are there; put an error, or nothing, into a queue."""
    cache, seen = Cache(root, RECIPE), set[int]()
    try:
        while len(seen) < count:
            now = numbers_in(cache)
            assert now >= seen, f"rows vanished: {sorted(seen - now)}"
            seen = now
    except BaseException as error:
        found.put(f"{type(error).__name__}: {error}")
    else:
        found.put("")
