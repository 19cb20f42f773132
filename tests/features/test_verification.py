"""Verification: every flipped bit is found, and no more is lost than the rows it hit."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from gelkit.errors import UsageError
from gelkit.features.cache import Cache
from gelkit.features.recipe import make_recipe
from gelkit.features.shards import COLUMNS, Rows, make_rows
from gelkit.features.verification import verify

RECIPE = make_recipe("resnet18", "cpu")
COUNT = 1500


def _rows(count: int = COUNT) -> Rows:
    rng = np.random.default_rng(count)
    columns = {name: rng.integers(0, 9, count) for name in COLUMNS}
    columns |= {
        "sha256": [f"{number:064x}" for number in range(count)],
        "view": np.zeros(count),
        "embedding": rng.normal(size=(count, 512)),
        "intensity": rng.normal(size=(count, 13)),
    }
    return make_rows(columns, {"weights_sha256": "", "host": "here"})


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Return the one shard of a cache of 1,500 rows, which takes several chunks."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(_rows())
    return next(cache.folder.glob("shard-*.h5"))


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def _place_of_row(path: Path, row: int) -> int:
    """Return where in the file a value of a row's embedding lies."""
    with h5py.File(path) as file:
        dataset = file["embedding"]
        chunk, inside = divmod(row, dataset.chunks[0])
        info = dataset.id.get_chunk_info(chunk)
    return int(info.byte_offset) + inside * 512 * 4 + 100


def test_whole_caches_are_whole(shard: Path, tmp_path: Path) -> None:
    """A user would be told to compute again what is right."""
    (found,) = verify(tmp_path)
    assert (found.rows, found.lost, found.error) == (COUNT, (), "")
    assert verify(tmp_path, repair=True) == [found]
    assert shard.is_file()


@pytest.mark.parametrize("row", [0, 700, COUNT - 1])
def test_a_flipped_bit_of_an_embedding_costs_one_row(row: int, shard: Path, tmp_path: Path) -> None:
    """One bad sector would cost hours of extraction."""
    _flip(shard, _place_of_row(shard, row))
    (found,) = verify(tmp_path)
    assert (found.rows, found.lost) == (COUNT - 1, ((f"{row:064x}", 0),))
    assert shard.is_file(), "nothing is changed without --repair"
    (mended,) = verify(tmp_path, repair=True)
    assert mended.set_aside is not None
    assert mended.set_aside.is_file()
    cache = Cache(tmp_path, RECIPE)
    expected = {(f"{number:064x}", 0) for number in range(COUNT) if number != row}
    assert cache.identities() == expected
    kept = [number for number in range(COUNT) if number != row]
    embeddings = cache.read([f"{number:064x}" for number in kept]).columns["embedding"]
    assert np.array_equal(embeddings, _rows().columns["embedding"][kept])


@pytest.mark.exhaustive("fault states")
def test_every_flipped_bit_is_found_and_no_wrong_row_is_kept(shard: Path, tmp_path: Path) -> None:
    """A repair would publish what the damage made of a row."""
    truth, data = _rows().columns["embedding"], shard.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, 3000, 12), *rng.integers(3000, len(data), 12)]:
        for old in shard.parent.iterdir():
            old.unlink()
        shard.write_bytes(data)
        _flip(shard, int(place))
        (found,) = verify(tmp_path, repair=True)
        assert found.error
        cache = Cache(tmp_path, RECIPE)
        whole = sorted(int(sha256, 16) for sha256, _ in cache.identities())
        assert len(whole) == found.rows
        if whole:
            rows = cache.read([f"{number:064x}" for number in whole])
            assert np.array_equal(rows.columns["embedding"], truth[whole])


def test_a_bomb_is_not_salvaged(shard: Path, tmp_path: Path) -> None:
    """A small file from a stranger could fill the memory of whoever verifies it."""
    with h5py.File(shard, "r+") as file:
        del file["embedding"]
        file.create_dataset("embedding", (COUNT, 2**34), "f4", chunks=(1, 1024))
    (found,) = verify(tmp_path)
    assert (found.rows, found.lost) == (0, None)


def test_what_is_no_hdf5_any_more_is_set_aside(shard: Path, tmp_path: Path) -> None:
    """A repair would fail on just the files that need it."""
    shard.write_bytes(b"zeros" * 100)
    (found,) = verify(tmp_path, repair=True)
    assert (found.rows, found.lost) == (0, None)
    assert Cache(tmp_path, RECIPE).identities() == set()


def test_a_shard_in_the_wrong_folder_is_found(shard: Path, tmp_path: Path) -> None:
    """Embeddings of two recipes would lie in one folder until a run fails on them."""
    other = tmp_path / make_recipe("resnet18", "tpu").folder_name
    other.mkdir()
    shard.rename(other / shard.name)
    (found,) = verify(tmp_path)
    assert "belongs into resnet18-imagenet1k_v1-cpu" in found.error


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A misspelt folder would be reported as whole."""
    with pytest.raises(UsageError, match="does not exist"):
        verify(tmp_path / "nowhere")
