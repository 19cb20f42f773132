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

_LIMIT_SECS = 120
_PROGRAM = "from gelkit.features.salvage import main; main()"


@dataclass(frozen=True)
class Salvaged:
    """What is left of a damaged shard."""

    recipe: Recipe
    rows: Rows | None
    """The rows that are whole; None if none is."""
    total: int
    """How many there were."""


def salvage(path: Path) -> Salvaged | None:
    """Return what is left of a damaged shard; None if HDF5 cannot open it any more.

    :raises CacheError: what was salvaged contradicts itself.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _PROGRAM, str(path)]
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
    return Salvaged(recipe, rows, found["total"])


def main() -> None:
    """Write, for the shard named on the command line, its recipe and a shard of its whole rows."""
    with h5py.File(io.BytesIO(Path(sys.argv[1]).read_bytes()), "r") as file:
        recipe = Recipe.from_json(file.attrs["recipe"])
        rows, total = _whole_rows(file), len(file["sha256"])
    head = json.dumps({"recipe": recipe.to_json(), "total": total})
    sys.stdout.buffer.write(head.encode() + b"\n" + (encode(rows, recipe) if len(rows) else b""))


def _whole_rows(file: h5py.File) -> Rows:
    columns = {name: _read(file, name) for name in COLUMNS}
    records = [_json(record) for record in _read(file, RECORDS).tolist()]
    known = columns["provenance"] < len(records)
    columns["provenance"] = np.where(known, columns["provenance"], 0).astype("u4")
    rows = Rows(columns, tuple(records))
    whole = known & (row_checksums(rows) == _read(file, CHECKSUMS))
    return rows.take(np.flatnonzero(whole))


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
