"""Caches made apart, by shares or on other machines, become one; nothing is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import RECIPE, make, numbers_in, sha256_of

import gelkit
from gelkit.features.cache import Cache, Failure
from gelkit.features.inventory import take_inventory
from gelkit.features.merging import merge
from gelkit.features.planning import identify
from gelkit.features.shards import CacheError
from gelkit.images.shares import Share

RANDOM = gelkit.RecipeOptions(weights="random")


def _failure(number: int, *, read: bool = True) -> Failure:
    return Failure(f"{number}.png", sha256_of(number) if read else "", "broken", retry=True)


@pytest.mark.exhaustive("exhaustive grids")
@settings(deadline=None, max_examples=30)
@given(
    held=st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=8), max_size=2),
    others=st.lists(
        st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=8), max_size=3), max_size=3
    ),
)
def test_a_merged_cache_holds_what_all_held(
    held: list[set[int]],
    others: list[list[set[int]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Embeddings that another machine took hours for would be lost, or exchanged."""
    tmp_path = tmp_path_factory.mktemp("merge")
    mine = Cache(tmp_path / "mine", RECIPE)
    for numbers in held:
        mine.publish(make(numbers))
    sources = [tmp_path / f"{place}" for place in range(len(others))]
    for source, shards in zip(sources, others, strict=True):
        source.mkdir()
        for numbers in shards:
            Cache(source, RECIPE).publish(make(numbers))
    before = {file: file.read_bytes() for source in sources for file in source.rglob("*.h5")}
    everything = set().union(*held, *(numbers for shards in others for numbers in shards))
    merged = merge(tmp_path / "mine", sources)
    assert numbers_in(mine) == everything
    assert sum(its.rows for its in merged) == len(everything - set().union(*held))
    assert made_up.count_stored(mine) == len(everything)
    assert {
        file: file.read_bytes() for source in sources for file in source.rglob("*.h5")
    } == before
    assert not any(its.rows for its in merge(tmp_path / "mine", sources))
    assert numbers_in(mine) == everything


def test_of_two_embeddings_the_one_that_was_there_stays(tmp_path: Path) -> None:
    """Results would change because somebody else's cache was merged in."""
    mine, other = Cache(tmp_path / "mine", RECIPE), Cache(tmp_path / "other", RECIPE)
    other.publish(make([1, 2], attempt=1))
    mine.publish(make([1]))
    merge(tmp_path / "mine", [tmp_path / "other"])
    assert numbers_in(mine, {2: 1}) == {1, 2}


def test_a_damaged_shard_keeps_no_other_from_being_merged(tmp_path: Path) -> None:
    """One flipped bit on one machine would hold up the work of all the others."""
    other = Cache(tmp_path / "other", RECIPE)
    for number in range(3):
        other.publish(make([number]))
    damaged = sorted(other.folder.glob("shard-*.h5"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(CacheError, match=rf"{damaged.name}.*1 of 3 shards were not merged"):
        merge(tmp_path / "mine", [tmp_path / "other"])
    assert numbers_in(Cache(tmp_path / "mine", RECIPE)) == {1, 2}


def test_a_shard_in_the_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    """Embeddings of one backbone would be given out as those of another."""
    Cache(tmp_path / "other", RECIPE).publish(make([1]))
    (tmp_path / "other" / RECIPE.folder_name).rename(tmp_path / "other" / "vgg16-random-cpu-0")
    with pytest.raises(CacheError, match=f"called {RECIPE.folder_name}, after its recipe"):
        merge(tmp_path / "mine", [tmp_path / "other"])
    assert not list((tmp_path / "mine").rglob("*.h5"))


@pytest.mark.parametrize("sources", [["mine"], ["other", "other/../other"], ["none"]])
def test_folders_that_cannot_be_merged_are_refused(sources: list[str], tmp_path: Path) -> None:
    """A mistyped folder would be taken for an empty one."""
    for name in ("mine", "other"):
        Cache(tmp_path / name, RECIPE).publish(make([1]))
    with pytest.raises(gelkit.UsageError, match=r"Expected (a folder|folders) of caches"):
        merge(tmp_path / "mine", [tmp_path / source for source in sources])


def test_failures_of_shares_are_kept_apart_and_put_together(tmp_path: Path) -> None:
    """Processes that share a cache would overwrite each other's list of what failed."""
    shares = [Cache(tmp_path, RECIPE, Share(number, 2)) for number in (1, 2)]
    for number, share in enumerate(shares):
        share.publish(make([10 + number]))
        share.record_failures([_failure(number), _failure(20 + number, read=False)])
    whole = Cache(tmp_path, RECIPE)
    everything = {_failure(0), _failure(1), _failure(20, read=False), _failure(21, read=False)}
    for cache in (*shares, whole):
        assert set(cache.list_failures()) == everything
    shares[0].record_failures([], resolved=[sha256_of(0)])
    assert set(whole.list_failures()) == {_failure(1), _failure(21, read=False)}
    merge(tmp_path, [])
    assert [file.name for file in tmp_path.rglob("*.csv")] == ["failures.csv"]
    assert set(whole.list_failures()) == {_failure(1), _failure(21, read=False)}


def test_what_has_an_embedding_now_has_failed_no_more(tmp_path: Path) -> None:
    """An image that another machine could read would stay listed as a failure."""
    mine, other = Cache(tmp_path / "mine", RECIPE), Cache(tmp_path / "other", RECIPE)
    mine.publish(make([1]))
    mine.record_failures([_failure(2), _failure(3)])
    other.publish(make([2]))
    other.record_failures([_failure(1), _failure(4)])
    merge(tmp_path / "mine", [tmp_path / "other"])
    assert set(mine.list_failures()) == {_failure(3), _failure(4)}


def test_a_run_over_the_whole_takes_over_what_shares_know(tmp_path: Path) -> None:
    """After a job array, all its images would be read once more to be known."""
    data, cache = tmp_path / "gels", tmp_path / "features"
    cache.mkdir()
    gelkit.draw_samples(data, count=4)
    catalog = gelkit.read_catalog(data)
    for image in catalog.images:
        os.utime(image.path, (1e9, 1e9))
    known = identify(catalog, cache).sha256s
    (cache / "fingerprints.json").unlink()
    for number in (1, 2):
        identify(catalog, cache, share=Share(number, 2))
    for image in catalog.images:  # other bytes, all signs of a change hidden
        image.path.write_bytes(bytes(image.path.stat().st_size))
        os.utime(image.path, (1e9, 1e9))
    assert identify(catalog, cache).sha256s == known
    (cache / "fingerprints.json").unlink()
    merge(cache, [])
    assert [file.name for file in cache.iterdir()] == ["fingerprints.json"]
    assert identify(catalog, cache).sha256s == known


@pytest.mark.exhaustive("clusters")
def test_processes_of_a_job_array_make_the_cache_that_one_makes(tmp_path: Path) -> None:
    """A run on a cluster would give other embeddings, or lose those of a job that was killed."""
    data, alone, together = tmp_path / "gels", tmp_path / "alone", tmp_path / "together"
    gelkit.draw_samples(data, count=16)
    (data / "gel" / "broken.png").write_bytes(b"no image")
    one = gelkit.extract(data, cache=alone, options=RANDOM)
    jobs = [_start(data, together, number) for number in (1, 2, 3)]
    _kill_when_it_works(jobs[1])
    for job in (jobs[0], jobs[2], _start(data, together, 2)):
        assert job.wait() == 0
    caches = take_inventory(together)
    assert [(its.images, its.failures) for its in caches] == [(16, 1)]
    merge(together, [])
    several = gelkit.load(data, cache=together, options=RANDOM)
    assert several.sha256s == one.sha256s
    assert np.array_equal(several.values, one.values)
    assert several.failures == one.failures


def _start(data: Path, cache: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from gelkit.cli import main; main()", "features", str(data)]
    command += [
        "--cache",
        str(cache),
        "--backbone",
        "resnet18",
        "--weights",
        "random",
        "--workers",
        "1",
    ]
    return subprocess.Popen([*command, "--shard", f"{number}/3"], stdout=subprocess.DEVNULL)


def _kill_when_it_works(job: subprocess.Popen[bytes]) -> None:
    """Kill a process when its worker has begun, which is then to end by itself."""
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    while not children.read_text().split():
        time.sleep(0.01)
    time.sleep(1)
    os.kill(job.pid, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
