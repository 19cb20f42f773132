"""One shard: rows of a cache as an immutable HDF5 file, checked against itself when read.

The only module that opens HDF5. The schema is described for readers in ``features/README.md``.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError
from gelkit.features.recipe import Recipe
from gelkit.images.formats import FLAGS
from gelkit.images.likeness import INTENSITY_STATISTICS
from gelkit.paths import RemotePath

SCHEMA = "gelkit-embeddings"
SCHEMA_VERSION = 1

COLUMNS = {
    "sha256": "S64",
    "view": "u4",
    "embedding": "f4",
    "perceptual_hash": "u8",
    "height": "u4",
    "width": "u4",
    "bit_depth": "u1",
    "n_bytes": "u8",
    "format": "S16",
    "mode": "S16",
    "intensity": "f4",
    "flags": "u8",
    "extraction_secs": "f4",
    "provenance": "u4",
}
"""The datasets of a shard and their types, one entry for each row; little-endian on disk."""

_WIDE_COLUMNS = ("embedding", "intensity")
RECORDS = "provenance_records"
CHECKSUMS = "row_crc32"
_NAME_DIGITS = 12
_CHUNK_BYTES = 2**20

DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
"""What h5py raises, by experience, on damaged files."""

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]


class CacheError(GelkitError):
    """A cache is damaged, is made of something else, or cannot be written."""


@dataclass(frozen=True)
class Rows:
    """Rows of a cache, column by column.

    ``columns`` holds an array for each name of :data:`COLUMNS`: (rows,), and for ``embedding`` and
    ``intensity`` (rows x width). ``provenance`` is what the column of that name points into: which
    versions, device and weights file computed the row.
    """

    columns: Columns
    provenance: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.columns["sha256"])

    def take(self, index: npt.NDArray[np.intp]) -> Rows:
        """Return the rows at ``index``, in its order."""
        return Rows({name: column[index] for name, column in self.columns.items()}, self.provenance)

    def identities(self) -> list[tuple[str, int]]:
        """Return the SHA-256 and view of each row."""
        return list(
            zip(to_strings(self.columns["sha256"]), self.columns["view"].tolist(), strict=True)
        )


def make_rows(columns: Mapping[str, object], provenance: Mapping[str, Any]) -> Rows:
    """Make rows of one origin from sequences; the column ``provenance`` is filled in."""
    count = len(columns["sha256"])  # type: ignore[arg-type]
    filled = {**columns, "provenance": np.zeros(count)}
    return Rows(
        {name: np.asarray(filled[name]).astype(dtype) for name, dtype in COLUMNS.items()},
        (provenance,),
    )


def concatenate(pieces: Sequence[Rows]) -> Rows:
    """Put rows one after another, keeping the first of rows of the same image and view."""
    records: list[Mapping[str, Any]] = []
    origins = []
    for piece in pieces:
        positions = [_position(records, record) for record in piece.provenance]
        origins.append(np.array(positions, dtype="u4")[piece.columns["provenance"]])
    columns = {name: np.concatenate([p.columns[name] for p in pieces]) for name in COLUMNS}
    columns["provenance"] = np.concatenate(origins)
    return Rows(columns, tuple(records)).take(_first_of_each(columns))


def file_name(stamp: str, data: bytes) -> str:
    """Name a shard by when it was made and by the first digits of its bytes' SHA-256."""
    return f"shard-{stamp}-{hashlib.sha256(data).hexdigest()[:_NAME_DIGITS]}.h5"


def encode(rows: Rows, recipe: Recipe) -> bytes:
    """Return a shard's bytes, built in memory and read back before they are returned.

    :raises CacheError: what was read back is not what was written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["recipe"] = recipe.to_json()
        file.attrs["recipe_sha256"] = recipe.sha256
        file.attrs["rows_sha256"] = _rows_sha256(rows)
        file.attrs["flag_names"] = json.dumps(list(FLAGS))
        file.attrs["intensity_names"] = json.dumps(INTENSITY_STATISTICS)
        for name, column in rows.columns.items():
            _write(file, name, column.astype(np.dtype(COLUMNS[name]).newbyteorder("<")))
        _write(file, RECORDS, np.array([json.dumps(record) for record in rows.provenance], "S"))
        _write(file, CHECKSUMS, row_checksums(rows).astype("<u4"))
    data = buffer.getvalue()
    decode(data, recipe, "the shard in memory")
    return data


def read_bytes(path: Path) -> bytes:
    """Read a file of a cache.

    :raises FileNotFoundError: it is gone; perhaps it was compacted.
    :raises CacheError: the disk refused.
    """
    with _reading(path) as file:
        return file.read()


def read(path: Path, recipe: Recipe) -> Rows:
    """Read a shard whole and verify it.

    :raises FileNotFoundError: it is gone; perhaps it was compacted.
    :raises CacheError: it is damaged, or of another recipe or schema.
    """
    return decode(_verified_bytes(path), recipe, str(path))


def read_any(path: Path) -> tuple[Recipe, Rows]:
    """Read a shard whole and verify it, whatever recipe it says it is of; errors as above."""
    data = _verified_bytes(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            recipe = Recipe.from_json(file.attrs["recipe"])
    except DAMAGE as error:
        raise _damaged(str(path), str(error)) from error
    return recipe, decode(data, recipe, str(path))


def read_recipe(path: Path) -> Recipe:
    """Read only what a shard says that it is of; errors as of :func:`read`."""
    with _reading(path) as file:
        _require_name(path, hashlib.file_digest(file, "sha256").hexdigest())
        try:
            with h5py.File(file, "r") as opened:
                return Recipe.from_json(opened.attrs["recipe"])
        except DAMAGE as error:
            raise _damaged(str(path), str(error)) from error


def read_identities(path: Path, recipe: Recipe) -> list[tuple[str, int]]:
    """Read only the SHA-256 and view of each row; errors as of :func:`read`."""
    with open_verified(path, recipe) as shard:
        digests, views = shard.column("sha256"), shard.column("view")
    return list(zip(to_strings(digests), views.tolist(), strict=True))


@contextmanager
def open_verified(path: Path, recipe: Recipe) -> Iterator[OpenShard]:
    """Open a shard to read parts of it, after its bytes were compared with its name.

    The file is opened once, since a compaction may remove it meanwhile. Errors as of :func:`read`.
    """
    with _reading(path) as file:
        _require_name(path, hashlib.file_digest(file, "sha256").hexdigest())
        with OpenShard(file, file.tell(), recipe, str(path)) as shard:
            yield shard


def decode(data: bytes, recipe: Recipe, name: str) -> Rows:
    """Read a shard's bytes and verify its rows; errors as of :func:`read`."""
    with OpenShard(io.BytesIO(data), len(data), recipe, name) as shard:
        columns = {column: shard.column(column) for column in COLUMNS}
        records = tuple(json.loads(record) for record in shard.column(RECORDS))
        rows = Rows(columns, records)
        shard.require(len({len(column) for column in columns.values()}) == 1, "one length")
        shard.require(len(rows) > 0, "at least one row")
        shard.require(int(columns["provenance"].max()) < len(records), "known provenance")
        shard.require(_rows_sha256(rows) == shard.attribute("rows_sha256"), "its own SHA-256")
    return rows


def row_checksums(rows: Rows) -> npt.NDArray[np.uint32]:
    """Return a CRC-32 for each row, (rows,), by which the whole rows of a damaged shard are told.

    Over the row's values in the order of :data:`COLUMNS`, little-endian, with its provenance
    record's JSON in place of the number.
    """
    records = [zlib.crc32(json.dumps(record).encode()) for record in rows.provenance]
    checksums = [records[number] for number in rows.columns["provenance"]]
    for name in COLUMNS:
        if name != "provenance":
            values = _little(rows, name).reshape(len(rows), -1).view(np.uint8)
            checksums = [zlib.crc32(v.data, c) for v, c in zip(values, checksums, strict=True)]
    return np.array(checksums, dtype=np.uint32)


def to_strings(column: npt.NDArray[Any]) -> list[str]:
    """Return a column of bytes as strings."""
    return [value.decode() for value in column.tolist()]


class OpenShard:
    """A shard open to be read; what HDF5 raises on damage leaves it as :class:`CacheError`."""

    def __init__(
        self, source: io.BufferedReader | io.BytesIO, size: int, recipe: Recipe, name: str
    ) -> None:
        self._source, self._size, self._recipe, self._name = source, size, recipe, name

    def __enter__(self) -> OpenShard:
        try:
            self._file = h5py.File(self._source, "r")
        except DAMAGE as error:
            raise _damaged(self._name, str(error)) from error
        try:
            self._require_recipe()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, DAMAGE):
            raise _damaged(self._name, str(error)) from error

    def attribute(self, name: str) -> object:
        """Return what the shard says of itself."""
        return self._file.attrs[name]

    def column(self, name: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Read a column, or some of its rows.

        :raises CacheError: it is damaged.
        """
        try:
            dataset, dtype = self._dataset(name)
            values: npt.NDArray[Any] = dataset[rows].astype(dtype, copy=False)
        except DAMAGE as error:
            raise _damaged(self._name, str(error)) from error
        return values

    def count(self, name: str) -> int:
        """Return how many rows a column has."""
        return int(self._dataset(name)[0].shape[0])

    def rows_per_chunk(self, name: str) -> int:
        """Return how many rows of a column are stored together, and read together."""
        chunks = self._dataset(name)[0].chunks
        self.require(chunks is not None, f"{name!r} in chunks")
        return int(chunks[0])

    def _dataset(self, name: str) -> tuple[h5py.Dataset, np.dtype[Any]]:
        """Return a dataset that is stored in this file and no larger than the file."""
        self.require(isinstance(self._file.get(name, getlink=True), h5py.HardLink), "no links")
        dataset = self._file[name]
        self.require(isinstance(dataset, h5py.Dataset), f"a dataset {name!r}")
        self.require(not dataset.is_virtual and dataset.external is None, "no outside storage")
        self.require(dataset.nbytes <= self._size, f"{name!r} no larger than its file")
        dtype = np.dtype(COLUMNS[name]) if name in COLUMNS else dataset.dtype
        self.require(dataset.dtype.kind == dtype.kind, f"{name!r} of the type {dtype}")
        self.require(dataset.ndim == (2 if name in _WIDE_COLUMNS else 1), f"{name!r} in its shape")
        return dataset, dtype

    def require(self, holds: bool, what: str) -> None:
        """Call the shard damaged unless something holds."""
        if not holds:
            raise _damaged(self._name, f"not {what}")

    def _require_recipe(self) -> None:
        attributes = self._file.attrs
        if attributes.get("schema") != SCHEMA or attributes["schema_version"] != SCHEMA_VERSION:
            raise CacheError(
                f"Expected {self._name} to be a shard of {SCHEMA} {SCHEMA_VERSION}. Received: "
                f"{attributes.get('schema')} {attributes.get('schema_version')}. Move it away, or "
                "read it with the version of gelkit that wrote it."
            )
        stored = Recipe.from_json(attributes["recipe"])
        if stored != self._recipe:
            raise CacheError(
                f"Expected {self._name} to hold embeddings of the recipe asked for. Received "
                f"another recipe ({self._recipe.differences(stored)}). Give the options it was "
                "made with, or another --cache."
            )


@contextmanager
def _reading(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file to be read; what the disk refuses leaves it as :class:`CacheError`."""
    try:
        with _opened(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(
            f"Expected to read {path}. Received: {error.strerror}. Check the disk and the file's "
            "permissions, or give another --cache."
        ) from error


def _opened(path: Path) -> io.BufferedReader:
    """Open a file, or an object, whose bytes are all fetched at once."""
    if isinstance(path, RemotePath):
        return io.BufferedReader(io.BytesIO(path.read_bytes()))
    return open(path, "rb")


def _verified_bytes(path: Path) -> bytes:
    data = read_bytes(path)
    _require_name(path, hashlib.sha256(data).hexdigest())
    return data


def _require_name(path: Path, sha256: str) -> None:
    """Check a shard's bytes against its name, before HDF5 sees them.

    A flipped bit in the right place sends HDF5 into an endless loop, or past its buffers.
    """
    digits = path.stem.rpartition("-")[2]
    if len(digits) != _NAME_DIGITS or not sha256.startswith(digits):
        raise _damaged(str(path), "its bytes are not those its name was made from")


def _damaged(name: str, reason: str) -> CacheError:
    return CacheError(
        f"Expected {name} to be a whole shard. Received: a damaged one ({reason}). "
        "Run `gelkit cache verify --repair`, which keeps its rows that are whole, and then `gelkit "
        "features`, which computes the others again."
    )


def _write(file: h5py.File, name: str, column: npt.NDArray[Any]) -> None:
    bytes_per_row = max(1, column.nbytes // len(column))
    rows_per_chunk = min(len(column), max(1, _CHUNK_BYTES // bytes_per_row))
    chunks = (rows_per_chunk, *column.shape[1:])
    file.create_dataset(name, data=column, chunks=chunks, fletcher32=True)


def _rows_sha256(rows: Rows) -> str:
    digest = hashlib.sha256()
    for name in COLUMNS:
        values = _little(rows, name)
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.data)
    for record in rows.provenance:
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def _little(rows: Rows, name: str) -> npt.NDArray[Any]:
    """Return a column as it is on disk: little-endian and contiguous."""
    dtype = np.dtype(COLUMNS[name]).newbyteorder("<")
    return np.ascontiguousarray(rows.columns[name].astype(dtype, copy=False))


def _position(records: list[Mapping[str, Any]], record: Mapping[str, Any]) -> int:
    if record not in records:
        records.append(record)
    return records.index(record)


def _first_of_each(columns: Columns) -> npt.NDArray[np.intp]:
    identities = zip(columns["sha256"].tolist(), columns["view"].tolist(), strict=True)
    return np.array(_firsts(identities), dtype=np.intp)


def _firsts(identities: Iterable[tuple[bytes, int]]) -> list[int]:
    seen: dict[tuple[bytes, int], int] = {}
    for position, identity in enumerate(identities):
        seen.setdefault(identity, position)
    return list(seen.values())
