"""Shards: what is read is what was written, or an error; never other rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import (
    COLUMNS,
    CacheError,
    Rows,
    concatenate,
    decode,
    encode,
    file_name,
    make_rows,
    read,
    read_identities,
    row_checksums,
)

RECIPE = make_recipe("resnet18", "cpu")


def rows_of(count: int, seed: int = 0, host: str = "here") -> Rows:
    """Make rows of random content."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, 100, count) for name in COLUMNS}
    columns |= {
        "sha256": [rng.bytes(32).hex() for _ in range(count)],
        "view": np.zeros(count),
        "embedding": rng.normal(size=(count, 512)),
        "intensity": rng.normal(size=(count, 13)),
        "format": ["PNG"] * count,
        "mode": ["I;16"] * count,
    }
    return make_rows(columns, {"host": host, "weights_sha256": ""})


def same(one: Rows, other: Rows) -> bool:
    """Tell whether rows are equal, bit for bit, provenance included."""
    return one.provenance == other.provenance and all(
        one.columns[name].tobytes() == other.columns[name].tobytes() for name in COLUMNS
    )


SHARD = encode(rows_of(40), RECIPE)


def _put(folder: Path, data: bytes = SHARD) -> Path:
    path = folder / file_name("now", data)
    path.write_bytes(data)
    return path


@settings(max_examples=40, deadline=None)
@given(
    embedding=hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 40))),
    number=st.integers(0, 2**64 - 1),
    note=st.text(max_size=20),
)
def test_rows_read_back_bit_for_bit(embedding: np.ndarray, number: int, note: str) -> None:
    """Values would be rounded, or large hashes cut off."""
    plain = rows_of(len(embedding), host=note)
    numbers = np.full(len(embedding), number, dtype="u8")
    columns = {**plain.columns, "embedding": embedding, "perceptual_hash": numbers}
    rows = Rows(columns, plain.provenance)
    assert same(decode(encode(rows, RECIPE), RECIPE, "the shard"), rows)


def _every_place(data: bytes) -> Iterator[int]:
    """Yield where HDF5 keeps its structures, all of it, and a sample of the rest."""
    yield from range(0, 2500)
    yield from np.random.default_rng(0).integers(2500, len(data), 1500).tolist()


@pytest.mark.exhaustive("fault states")
def test_a_flipped_bit_is_never_taken_for_data(tmp_path: Path) -> None:
    """A failing disk would change embeddings without a word, or hang the run in HDF5."""
    path = _put(tmp_path)
    for place in _every_place(SHARD):
        data = bytearray(SHARD)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        for reader in (read, read_identities):
            with pytest.raises(CacheError, match="its bytes are not those its name was made from"):
                reader(path, RECIPE)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, len(SHARD) - 1))
def test_a_truncated_shard_is_an_error(
    length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Half a copied file would pass for a smaller data set."""
    path = tmp_path_factory.getbasetemp() / file_name("now", SHARD)
    path.write_bytes(SHARD[:length])
    with pytest.raises(CacheError, match="gelkit cache verify --repair"):
        read(path, RECIPE)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_changed_value_changes_its_rows_checksum_alone(name: str) -> None:
    """The whole rows of a damaged shard could not be told from the broken ones."""
    rows = rows_of(3)
    columns = {key: column.copy() for key, column in rows.columns.items()}
    other = Rows(columns, (*rows.provenance, {"host": "there"}))
    columns[name].view(np.uint8).reshape(3, -1)[1, 0] ^= 1
    assert (row_checksums(other) != row_checksums(rows)).tolist() == [False, True, False]


def _external_link(file: h5py.File, target: Path) -> None:
    del file["embedding"]
    file["embedding"] = h5py.ExternalLink(str(target), "/embedding")


def _soft_link(file: h5py.File, target: Path) -> None:
    file["moved"] = file["embedding"]
    del file["embedding"]
    file["embedding"] = h5py.SoftLink("/moved")


def _virtual(file: h5py.File, target: Path) -> None:
    shape = file["embedding"].shape
    del file["embedding"]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(str(target), "embedding", shape)
    file.create_virtual_dataset("embedding", layout)


def _external_storage(file: h5py.File, target: Path) -> None:
    shape = file["embedding"].shape
    del file["embedding"]
    file.create_dataset("embedding", shape, "f4", external=str(target))


def _bomb(file: h5py.File, target: Path) -> None:
    del file["embedding"]
    file.create_dataset("embedding", (40, 2**34), "f4", chunks=(1, 1024))


def _other_type(file: h5py.File, target: Path) -> None:
    del file["embedding"]
    file["embedding"] = np.zeros((40, 512), "S4")


def _missing(file: h5py.File, target: Path) -> None:
    del file["embedding"]


def _other_schema(file: h5py.File, target: Path) -> None:
    file.attrs["schema_version"] = 2


TRAPS = [
    _external_link,
    _soft_link,
    _virtual,
    _external_storage,
    _bomb,
    _other_type,
    _missing,
    _other_schema,
]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_shard_that_reaches_elsewhere_is_refused(trap: object, tmp_path: Path) -> None:
    """A cache from a stranger could read other files, or fill the memory."""
    trapped, other = tmp_path / "trapped.h5", tmp_path / "other.h5"
    trapped.write_bytes(SHARD)
    other.write_bytes(SHARD)
    with h5py.File(trapped, "r+") as file:
        trap(file, other)
    path = _put(tmp_path, trapped.read_bytes())
    with pytest.raises(CacheError, match=f"Expected .*{path.name}"):
        read(path, RECIPE)


def test_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    """Embeddings of other weights would be taken for those asked for."""
    path = _put(tmp_path)
    other = make_recipe("resnet18", "cpu", RecipeOptions(geometry="pad"))
    for reader in (read, read_identities):
        with pytest.raises(CacheError, match="geometry: 'pad' here, 'stretch' there"):
            reader(path, other)


def test_of_doubled_rows_the_first_stays() -> None:
    """Merged caches would hold images twice, or lose track of who computed them."""
    first, second = rows_of(5, seed=1, host="a"), rows_of(5, seed=2, host="b")
    again = Rows({**first.columns, "embedding": first.columns["embedding"] + 1}, ({"host": "c"},))
    merged = concatenate([first, second, again])
    assert len(merged) == 10
    assert np.array_equal(merged.columns["embedding"][:5], first.columns["embedding"])
    hosts = [merged.provenance[i]["host"] for i in merged.columns["provenance"]]
    assert hosts == ["a"] * 5 + ["b"] * 5


def test_identities_are_those_of_the_rows(tmp_path: Path) -> None:
    """Known images would be embedded again."""
    expected = [(digest.decode(), 0) for digest in rows_of(40).columns["sha256"]]
    assert read_identities(_put(tmp_path), RECIPE) == expected
