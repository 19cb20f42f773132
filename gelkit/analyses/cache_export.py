"""Export of cached embeddings: one file of a kind that other programs read.

Each kind holds the embeddings bit by bit, with the images' names, SHA-256s, labels, groups and
sources, and under the name ``gelkit`` a description of the whole as JSON: see :func:`describe`.
What an image has not is told from an empty text.

CSV keeps names that are no Unicode as gelkit's tables do. The other kinds hold Unicode alone: there
such a text, one with a NUL, and one that might be taken for either, is written as Python writes its
bytes, ``b'gel\\xff.png'``; :func:`text_of` gives back the text.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gelkit
from gelkit.errors import GelkitError, UsageError
from gelkit.features.embeddings import Embeddings, described, value_names
from gelkit.files import rename
from gelkit.systems import SYSTEM
from gelkit.tables import table_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

DESCRIPTION = "gelkit"
SCHEMA = "gelkit embeddings 1"

_OPTIONAL = ("label", "group", "source")
"""What an image may be without."""

_LITERALS = ("b'", 'b"')
_PIECE_BYTES = 2**26
"""Of embeddings that are turned into another form at a time."""


@dataclass(frozen=True)
class Kind:
    """One kind of file; a row of :data:`KINDS`."""

    about: str
    write: Callable[[Embeddings, Path], None]


def export_embeddings(embeddings: Embeddings, path: str | Path) -> None:
    """Write embeddings into one file, of the kind that its ending names, a key of :data:`KINDS`.

    A reader never sees half of it, and what was there before is replaced. No kind copies the
    embeddings as a whole: beyond their own memory it takes that of the names, and of a piece.

    :raises UsageError: another ending, or no embeddings.
    :raises GelkitError: the kind needs a package that is not installed, or the disk refused.
    """
    path = Path(path)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(f"{ending} ({its.about})" for ending, its in KINDS.items())
        raise UsageError(
            f"Expected the name of a file that ends in {known}. Received: {str(path)!r}. Give it "
            "one of these endings."
        )
    if not len(embeddings):
        raise UsageError("Expected embeddings. Received: none. Choose at least one image.")
    try:
        with _made_whole(path) as temporary:
            kind.write(embeddings, temporary)
    except OSError as error:
        raise GelkitError(
            f"Expected to write {path}. Received: {error.strerror or error}. Make room, or choose "
            "another folder; what was there before is untouched."
        ) from error


def describe(embeddings: Embeddings) -> dict[str, Any]:
    """Return what an export says of itself: recipe, fingerprints, and where the values come from.

    ``recipe_sha256`` names the recipe, ``fingerprint`` is that of :class:`Embeddings`, over recipe,
    images and values.
    """
    return {
        "schema": SCHEMA,
        "images": len(embeddings),
        "width": embeddings.values.shape[1],
        "recipe": json.loads(embeddings.recipe.to_json()),
        "recipe_sha256": embeddings.recipe.sha256,
        "fingerprint": embeddings.fingerprint,
        "device": embeddings.device,
        "extraction_secs": embeddings.extraction_secs,
        "failed": len(embeddings.failures),
        "gelkit_version": gelkit.__version__,
    }


def unicode_of(text: str) -> str:
    """Return what stands for a text in kinds of files that hold Unicode alone."""
    if _is_unicode(text) and not text.startswith(_LITERALS):
        return text
    return repr(os.fsencode(text))


def text_of(stored: str) -> str:
    """Return the text that :func:`unicode_of` made ``stored`` of."""
    return os.fsdecode(ast.literal_eval(stored)) if stored.startswith(_LITERALS) else stored


def _is_unicode(text: str) -> bool:
    return text.isprintable() or not any(
        character == "\0" or "\ud800" <= character <= "\udfff" for character in text
    )


@contextmanager
def _made_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to, which becomes ``path`` when all is on the disk."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            SYSTEM.sync(file.fileno())
        rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            SYSTEM.delete(temporary)
        raise


def _write_npz(embeddings: Embeddings, path: Path) -> None:
    columns: dict[str, npt.NDArray[Any]] = {"embedding": embeddings.values}
    for name, column in described(embeddings).items():
        columns[name] = np.array([unicode_of(text or "") for text in column])
        if name in _OPTIONAL:
            columns[f"has_{name}"] = np.array([text is not None for text in column])
    columns[DESCRIPTION] = np.array(_description(embeddings))
    with open(path, "wb") as file:  # a name without the ending .npz would be given one
        np.savez(file, allow_pickle=False, **columns)


def _write_csv(embeddings: Embeddings, path: Path) -> None:
    known = described(embeddings)
    has = {
        f"has_{name}": ["no" if text is None else "yes" for text in known[name]]
        for name in _OPTIONAL
    }
    description = [_description(embeddings), *[None] * (len(embeddings) - 1)]
    texts: dict[str, Sequence[str | None]] = {**known, **has, DESCRIPTION: description}
    header = [*texts, *value_names(embeddings.values.shape[1])]
    first = table_bytes(header, ())
    with open(path, "wb") as file:
        file.write(first)
        for piece in _pieces(embeddings):
            cells = zip(*(column[piece] for column in texts.values()), strict=True)
            rows = zip(cells, embeddings.values[piece], strict=True)
            lines = table_bytes(header, ((*cell, *_decimals(values)) for cell, values in rows))
            file.write(lines[len(first) :])


def _decimals(values: npt.NDArray[np.float32]) -> Iterable[float]:
    """Return numbers that take nine digits: they tell every float32, also when read as float64."""
    return (float(f"{value:.9g}") for value in values.tolist())


def _write_parquet(embeddings: Embeddings, path: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise _missing("pyarrow", "parquet") from None
    known = {
        name: [None if text is None else unicode_of(text) for text in column]
        for name, column in described(embeddings).items()
    }
    width = embeddings.values.shape[1]
    fields = [pa.field(name, pa.string()) for name in known]
    fields.append(pa.field("embedding", pa.list_(pa.float32(), width)))
    schema = pa.schema(fields, metadata={DESCRIPTION: _description(embeddings)})
    with ParquetWriter(path, schema, compression="zstd") as writer:
        for piece in _pieces(embeddings):
            columns = [pa.array(column[piece], pa.string()) for column in known.values()]
            flat = pa.array(np.ascontiguousarray(embeddings.values[piece]).ravel())
            columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _write_h5ad(embeddings: Embeddings, path: Path) -> None:
    try:
        import anndata
    except ImportError:
        raise _missing("anndata", "anndata") from None
    import pandas as pd

    _require_room(path.parent, embeddings.values.nbytes)
    known = described(embeddings)
    names = [unicode_of(str(name)) for name in known["image"]]
    images = pd.DataFrame({"sha256": known["sha256"]}, index=pd.Index(names, name="image"))
    for name in _OPTIONAL:
        texts = [None if text is None else unicode_of(text) for text in known[name]]
        images[name] = pd.Categorical(texts, categories=sorted({*texts} - {None}, key=str))
    table = anndata.AnnData(
        embeddings.values,
        obs=images,
        var=pd.DataFrame(index=value_names(embeddings.values.shape[1])),
        uns={DESCRIPTION: _description(embeddings)},
    )
    with anndata.settings.override(allow_write_nullable_strings=True):  # pandas 3 has no others
        table.write_h5ad(path)


def _require_room(folder: Path, num_bytes: int) -> None:
    """Check that a file fits: on a full disk HDF5 ends the whole program instead of saying so."""
    free = shutil.disk_usage(folder).free
    if free < 1.1 * num_bytes:
        raise OSError(f"{free:,} bytes free on the disk, fewer than the {num_bytes:,} to write")


def _missing(package: str, extra: str) -> GelkitError:
    return GelkitError(
        f"Expected the package {package}, to write this kind of file. Received: an environment "
        f'without it. Install it with pip install "gelkit[{extra}]", or choose another ending.'
    )


def _description(embeddings: Embeddings) -> str:
    return json.dumps(describe(embeddings), sort_keys=True)


def _pieces(embeddings: Embeddings) -> Iterator[slice]:
    """Yield slices of the rows, each of about :data:`_PIECE_BYTES`."""
    rows = max(1, _PIECE_BYTES // max(1, embeddings.values[:1].nbytes))
    return (slice(start, start + rows) for start in range(0, len(embeddings), rows))


KINDS: Mapping[str, Kind] = {
    ".npz": Kind("NumPy", _write_npz),
    ".parquet": Kind("Apache Parquet", _write_parquet),
    ".csv": Kind("a table of text", _write_csv),
    ".h5ad": Kind("AnnData", _write_h5ad),
}
"""The kinds of files by their ending."""
