"""Caches read a part at a time: the same embeddings as at once, each once an epoch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import RECIPE, embedding_of, make, sha256_of

import gelkit
from gelkit.features import streaming
from gelkit.features.cache import Cache
from gelkit.features.shards import CacheError

SHARDS = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=25), min_size=1, max_size=4)


def _numbers(reader: gelkit.CacheReader) -> list[int]:
    return [int(sha256, 16) for sha256 in reader.sha256s]


@settings(deadline=None, max_examples=40)
@given(
    shards=SHARDS, asked=st.lists(st.integers(0, 10_000)), held=st.sampled_from([1, 2**14, 2**26])
)
def test_parts_are_those_of_the_whole(
    shards: list[list[int]],
    asked: list[int],
    held: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """An embedding would be given for another image, or left out of training."""
    root = tmp_path_factory.mktemp("cache")
    for attempt, numbers in enumerate(shards):
        Cache(root, RECIPE).publish(make(dict.fromkeys(numbers), attempt))
    first = {}
    for attempt, numbers in enumerate(shards):
        for number in numbers:
            first.setdefault(number, embedding_of(number, attempt))
    with pytest.MonkeyPatch.context() as patch, gelkit.open_cache(root) as reader:
        patch.setattr(streaming, "_SHUFFLED_BYTES", held)
        assert sorted(_numbers(reader)) == sorted(first)
        expected = np.stack([first[number] for number in _numbers(reader)])
        positions = [number % len(reader) for number in asked]
        assert np.array_equal(reader.read(positions), expected[positions].reshape(-1, 512))
        for size, seed in ((1, None), (7, 0), (1000, 3)):
            batches = list(reader.batches(size, seed=seed))
            seen = np.concatenate([numbers for numbers, _ in batches])
            assert sorted(seen) == list(range(len(reader)))
            assert np.array_equal(np.concatenate([values for _, values in batches]), expected[seen])
            assert {len(values) for _, values in batches[:-1]} <= {size}
            if seed is None:
                assert seen.tolist() == sorted(seen)


def test_images_are_found_by_what_they_are_known_by(tmp_path: Path) -> None:
    """Labels would be put to the embeddings of other images."""
    for numbers in ([5, 3], [9, 3, 1]):
        Cache(tmp_path, RECIPE).publish(make(numbers))
    with gelkit.open_cache(tmp_path) as reader:
        found = reader.positions([sha256_of(number) for number in (1, 5, 9, 2, 3, 5)])
        assert (found < 0).tolist() == [False, False, False, True, False, False]
        expected = [embedding_of(number) for number in (1, 5, 9, 3, 5)]
        assert np.array_equal(reader.read(found[found >= 0]), np.stack(expected))
        assert reader.positions([]).tolist() == []


def test_epochs_are_mixed_and_can_be_repeated(tmp_path: Path) -> None:
    """A head would see a cache class after class, or every epoch in the same order."""
    for start in range(0, 4000, 1000):
        Cache(tmp_path, RECIPE).publish(make(range(start, start + 1000)))
    with gelkit.open_cache(tmp_path) as reader:
        orders = [
            np.concatenate([numbers for numbers, _ in reader.batches(256, seed=seed)])
            for seed in (0, 0, 1)
        ]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    # each tenth of an epoch has images of each quarter of the cache: 100 expected, deviation 8.2
    tenths = (orders[0] // 1000).reshape(10, 400)
    counts = np.stack([(tenths == quarter).sum(axis=1) for quarter in range(4)])
    assert counts.min() > 50


def test_a_sample_is_fair_and_without_doubles(tmp_path: Path) -> None:
    """Statistics of a sample would be those of the first images."""
    Cache(tmp_path, RECIPE).publish(make(range(100)))
    with gelkit.open_cache(tmp_path) as reader:
        samples = [reader.sample(20, seed=seed) for seed in range(200)]
        with pytest.raises(ValueError, match="larger"):
            reader.sample(101)
    for sample in samples:
        assert len(set(sample.tolist())) == 20
        assert sample.tolist() == sorted(sample)
    counts = np.bincount(np.concatenate(samples), minlength=100)
    assert 15 < counts.min() < counts.max() < 70  # 40 expected, standard deviation 5.7


def test_a_compaction_takes_nothing_from_an_open_reader(tmp_path: Path) -> None:
    """Training on a cache would end with an error when somebody else adds to it."""
    cache = Cache(tmp_path, RECIPE)
    for number in range(3):
        cache.publish(make([number]))
    with gelkit.open_cache(tmp_path) as reader:
        cache.compact()
        assert len(list(cache.folder.glob("*.h5"))) == 1
        expected = np.stack([embedding_of(number) for number in _numbers(reader)])
        assert np.array_equal(reader.read(range(3)), expected)


@pytest.mark.parametrize("number", [-1, 3])
def test_a_number_that_is_none_is_refused(number: int, tmp_path: Path) -> None:
    """The last embedding would be given for an image that is not there."""
    Cache(tmp_path, RECIPE).publish(make(range(3)))
    with gelkit.open_cache(tmp_path) as reader, pytest.raises(IndexError, match="from 0 to 2"):
        reader.read([0, number])


def test_an_empty_cache_names_the_command_that_fills_it(tmp_path: Path) -> None:
    """A training run would end with an error that says nothing."""
    with pytest.raises(gelkit.GelkitError, match="gelkit features DATA --backbone vgg16"):
        gelkit.open_cache(tmp_path, backbone="vgg16")


def test_a_damaged_cache_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    """HDF5 would hang on a flipped bit in the middle of a training run."""
    Cache(tmp_path, RECIPE).publish(make(range(9)))
    shard = next(tmp_path.rglob("shard-*.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match="cache verify --repair"):
        gelkit.open_cache(tmp_path)


MEASURED = """
import resource, sys, gelkit
with gelkit.open_cache(sys.argv[1]) as reader:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(len(values) for _, values in reader.batches(1000, seed=0))
    print(total, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.exhaustive("exhaustive grids")
def test_memory_does_not_grow_with_the_cache(tmp_path: Path) -> None:
    """A cache larger than memory could not be trained on."""
    rows = make(range(1000))
    for start in range(0, 200_000, 50_000):
        numbers = range(start, start + 50_000)
        index = np.arange(50_000) % 1000
        many = rows.take(index)
        many.columns["sha256"][:] = [sha256_of(number).encode() for number in numbers]
        Cache(tmp_path, RECIPE).publish(many)
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    total, grown = map(int, run.stdout.split())
    assert total == 200_000
    assert grown < 300e6  # the embeddings take 410 MB
