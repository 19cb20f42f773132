"""The cache: whatever happens, a published row stays, and readers see whole rows alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from gelkit.features.cache import Cache, Failure
from gelkit.features.recipe import make_recipe
from gelkit.features.shards import COLUMNS, CacheError, Rows, make_rows

RECIPE = make_recipe("resnet18", "cpu")


def _rows(start: int, count: int, value: float = 0.0) -> Rows:
    """Make rows whose embedding tells their number, plus ``value``."""
    numbers = np.arange(start, start + count)
    columns = dict.fromkeys(COLUMNS, numbers)
    columns |= {
        "sha256": [_sha256(number) for number in numbers],
        "view": np.zeros(count),
        "embedding": np.repeat(numbers[:, np.newaxis] + value, 512, axis=1),
        "intensity": np.zeros((count, 13)),
        "bit_depth": np.full(count, 8),
    }
    return make_rows(columns, {"weights_sha256": "", "value": value})


def _sha256(number: int) -> str:
    return f"{number:064x}"


def _numbers(cache: Cache) -> list[int]:
    """Return the numbers of all rows, checked against their embeddings."""
    sha256s = sorted(sha256 for sha256, _ in cache.identities())
    numbers = [int(sha256, 16) for sha256 in sha256s]
    if sha256s:
        embeddings = cache.read(sha256s).columns["embedding"]
        assert np.array_equal(embeddings, np.repeat([[n] for n in numbers], 512, axis=1))
    return numbers


def test_rows_come_back_in_the_order_asked(tmp_path: Path) -> None:
    """Labels would be attached to the embeddings of other images."""
    cache = Cache(tmp_path, RECIPE)
    assert list(tmp_path.iterdir()) == []
    cache.publish(_rows(0, 4))
    cache.publish(_rows(4, 4))
    wanted = [6, 1, 1, 4]
    rows = cache.read([_sha256(number) for number in wanted])
    assert rows.columns["embedding"][:, 0].tolist() == wanted
    with pytest.raises(KeyError):
        cache.read([_sha256(99)])


def test_caches_merge_by_copying_files(tmp_path: Path) -> None:
    """Work shared between two machines would have to be done again."""
    here, there = Cache(tmp_path / "a", RECIPE), Cache(tmp_path / "b", RECIPE)
    here.publish(_rows(0, 6))
    there.publish(_rows(3, 6, value=0.5))
    shutil.copytree(there.folder, here.folder, dirs_exist_ok=True)
    embeddings = here.read([_sha256(number) for number in range(9)]).columns["embedding"]
    assert embeddings[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6.5, 7.5, 8.5]
    here.compact()
    assert len(list(here.folder.glob("shard-*.h5"))) == 1
    again = here.read([_sha256(number) for number in range(9)]).columns["embedding"]
    assert np.array_equal(again, embeddings)


def test_many_small_shards_become_one_file(tmp_path: Path) -> None:
    """A cache that grew over months would be thousands of files."""
    cache = Cache(tmp_path, RECIPE)
    for start in range(0, 30, 3):
        cache.publish(_rows(start, 3))
    cache.compact()
    files = list(cache.folder.iterdir())
    assert len(files) == 1
    assert _numbers(cache) == list(range(30))
    cache.compact()
    assert list(cache.folder.iterdir()) == files
    cache.publish(_rows(0, 1, value=7))  # later, so it does not count
    cache.compact()
    assert _numbers(cache) == list(range(30))


def test_an_interrupted_compaction_does_no_harm(tmp_path: Path) -> None:
    """Rows would be lost or doubled by a crash at the wrong moment."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows(0, 3))
    cache.publish(_rows(3, 3))
    before = {path.name: path.read_bytes() for path in cache.folder.iterdir()}
    cache.compact()
    for name, data in before.items():
        (cache.folder / name).write_bytes(data)
    (cache.folder / ".shard-half.h5.tmp").write_bytes(b"half")
    assert _numbers(cache) == list(range(6))
    cache.compact()
    assert _numbers(cache) == list(range(6))


def test_what_a_killed_run_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """Hidden files of half a gigabyte would pile up; or one be taken from a run that writes it."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows(0, 3))
    old, young = (cache.folder / f".shard-{name}.h5.tmp" for name in ("old", "young"))
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.compact()
    assert not old.exists()
    assert young.exists()


def test_readers_and_compactions_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A second terminal that looks at a growing cache would see an error or half of it."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows(0, 5))
    failures: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                assert len(_numbers(Cache(tmp_path, RECIPE))) >= 5
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(5, 65, 5):
        cache.publish(_rows(start, 5))
        cache.compact()
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert _numbers(cache) == list(range(65))


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_cache import Cache, RECIPE, _rows
cache = Cache(Path({root!r}), RECIPE)
for start in range({start}, {start} + 1000):
    cache.publish(_rows(start, 1))
    print(start, flush=True)
    if start % 5 == 0:
        cache.compact()
"""


def test_a_killed_writer_leaves_all_that_it_published(tmp_path: Path) -> None:
    """A crash after hours of work would cost more than the last minute."""
    cache = Cache(tmp_path, RECIPE)
    published: set[int] = set()
    for kill in range(4):
        program = WRITER.format(
            tests=str(Path(__file__).parent), root=str(tmp_path), start=kill * 1000
        )
        writer = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.Random(kill).uniform(0, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        published |= {kill * 1000, *map(int, writer.communicate()[0].split())}
        numbers = set(_numbers(cache))
        assert numbers >= published
        assert len(numbers - published) <= kill + 1  # each time, killed before it could say so


LIMITED = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_cache import Cache, RECIPE, _rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
Cache(Path({root!r}), RECIPE).publish(_rows(10, 50))
"""


def test_a_disk_that_refuses_loses_nothing(tmp_path: Path) -> None:
    """A full disk would destroy what was computed before, or crash the program."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows(0, 5))
    program = LIMITED.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "CacheError: Expected to write" in run.stderr
    assert "what the cache held before is untouched" in run.stderr
    assert [path.suffix for path in cache.folder.iterdir()] == [".h5"]
    assert _numbers(cache) == list(range(5))


def test_h5py_alone_reads_a_cache(tmp_path: Path) -> None:
    """Other programs could not use the embeddings."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows(0, 5))
    with h5py.File(next(cache.folder.glob("shard-*.h5"))) as shard:
        assert set(shard) == {*COLUMNS, "provenance_records", "row_crc32"}
        assert shard["embedding"].shape == (5, 512)
        assert shard["embedding"].fletcher32
        assert shard["embedding"].compression is None
        assert json.loads(shard.attrs["recipe"])["backbone"] == "resnet18"
        assert json.loads(shard["provenance_records"][0])["value"] == 0.0


def test_failures_are_remembered_until_resolved(tmp_path: Path) -> None:
    """A damaged image would be decoded again in every run."""
    cache = Cache(tmp_path, RECIPE)
    failures = [Failure(f"{n}.png", _sha256(n), "broken", retry=bool(n)) for n in range(2)]
    cache.record_failures(failures)
    assert cache.failures() == {failure.sha256: failure for failure in failures}
    cache.record_failures([], resolved=[_sha256(0)])
    assert list(cache.failures()) == [_sha256(1)]
    unread = [Failure(f"{n}.png", "", "a named pipe", retry=True) for n in (3, 4)]
    cache.record_failures(unread)
    cache.record_failures(unread[1:])
    assert cache.list_failures() == [failures[1], unread[1]]
    same = [replace(failures[1], name=name) for name in ("a.png", "b.png")]
    cache.record_failures(same)
    assert cache.list_failures() == same
    (cache.folder / "failures.csv").write_bytes(b'path,sha256\n"')
    assert cache.list_failures() == []


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    """A user would not know which file to delete."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows(0, 5))
    shard = next(cache.folder.glob("shard-*.h5"))
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(CacheError, match=shard.name):
        cache.identities()
