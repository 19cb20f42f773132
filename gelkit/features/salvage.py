"""Salvage: the rows of a damaged shard that are still whole.

HDF5 can crash or hang on damaged bytes, so the file is opened in a process of its own, with a
limit of time; and each row counts only if its own checksum is right.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gelkit.features.recipe import Recipe
from gelkit.features.shards import (
    CHECKSUMS,
    COLUMNS,
    DAMAGE,
    RECORDS,
    Rows,
    decode,
    encode,
    row_checksums,
)
from gelkit.paths import as_path
from gelkit.processes import import_path

_LIMIT_SECS = 120
_PROGRAM = "from gelkit.features.salvage import main; main()"


@dataclass(frozen=True)
class Salvaged:
    """What is left of a damaged shard."""

    recipe: Recipe
    rows: Rows | None
    """The rows that are whole; None if none is."""
    lost: tuple[tuple[str, int], ...]
    """The SHA-256 and view of the others, as far as they can be read."""


def salvage(path: Path) -> Salvaged | None:
    """Return what is left of a damaged shard; None if HDF5 cannot open it any more.

    :raises CacheError: what was salvaged contradicts itself.
    """
    environment = os.environ | {"PYTHONPATH": import_path()}
    command = [sys.executable, "-P", "-c", _PROGRAM, str(path)]
    try:
        run = subprocess.run(command, capture_output=True, timeout=_LIMIT_SECS, env=environment)
    except subprocess.TimeoutExpired:
        return None
    if run.returncode != 0:
        return None
    head, _, data = run.stdout.partition(b"\n")
    found = json.loads(head)
    recipe = Recipe.from_json(found["recipe"])
    rows = decode(data, recipe, f"what is left of {path}") if data else None
    return Salvaged(recipe, rows, tuple((sha256, view) for sha256, view in found["lost"]))


def main() -> None:
    """Write, for the shard named on the command line, its recipe and a shard of its whole rows."""
    data = as_path(sys.argv[1]).read_bytes()
    with h5py.File(io.BytesIO(data), "r") as file:
        recipe = Recipe.from_json(file.attrs["recipe"])
        for name in (*COLUMNS, RECORDS, CHECKSUMS):
            _require_modest(file, name, len(data))
        everything, whole = _all_rows(file)
    rows, others = everything.take(np.flatnonzero(whole)), everything.take(np.flatnonzero(~whole))
    names = [sha256.decode(errors="replace") for sha256 in others.columns["sha256"].tolist()]
    lost = list(zip(names, others.columns["view"].tolist(), strict=True))
    head = json.dumps({"recipe": recipe.to_json(), "lost": lost})
    sys.stdout.buffer.write(head.encode() + b"\n" + (encode(rows, recipe) if len(rows) else b""))


def _require_modest(file: h5py.File, name: str, size: int) -> None:
    """Refuse what is stored elsewhere, or declares to be larger than its file."""
    dataset = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.chunks is None or dataset.is_virtual:
        raise ValueError(f"expected a dataset {name!r} stored in chunks")
    if max(dataset.nbytes, int(np.prod(dataset.chunks)) * dataset.dtype.itemsize) > size:
        raise ValueError(f"expected {name!r} to be no larger than its file")


def _all_rows(file: h5py.File) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """Return all rows, and which of them are whole."""
    columns = {name: _read(file, name) for name in COLUMNS}
    records = [_json(record) for record in _read(file, RECORDS).tolist()]
    known = columns["provenance"] < len(records)
    columns["provenance"] = np.where(known, columns["provenance"], 0).astype("u4")
    rows = Rows(columns, tuple(records))
    return rows, known & (row_checksums(rows) == _read(file, CHECKSUMS))


def _read(file: h5py.File, name: str) -> npt.NDArray[Any]:
    """Read a dataset chunk by chunk, past HDF5's checksums; a chunk that is lost reads as zeros."""
    dataset = file[name]
    values = np.zeros(dataset.shape, dataset.dtype)
    step = dataset.chunks[0]
    for start in range(0, len(values), step):
        try:
            _, data = dataset.id.read_direct_chunk((start, *[0] * (values.ndim - 1)))
        except DAMAGE:
            continue
        size = int(np.prod(dataset.chunks)) * values.itemsize
        if len(data) == size + 4:  # the checksum stands behind
            chunk = np.frombuffer(data[:size], values.dtype).reshape(dataset.chunks)
            values[start : start + step] = chunk[: len(values) - start]
    return values.astype(COLUMNS[name]) if name in COLUMNS else values


def _json(record: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(record))
    except ValueError:
        return {}
