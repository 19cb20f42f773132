"""Saved heads: a ``.keras`` file, and beside it what is needed to use and to trace it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gelkit.features.recipe import Recipe, RecipeOptions
from gelkit.files import write_atomically
from gelkit.heads.configurations import Configuration
from gelkit.heads.training import Settings
from gelkit.systems import SYSTEM

_FOLDER = "heads"
_BESIDE_THE_RECORD = (".keras", ".npy")


@dataclass(frozen=True)
class SavedHead:
    """A trained head's record, the ``.json`` beside its ``.keras`` file."""

    configuration: Configuration
    classes: tuple[str, ...]
    """What the columns of the head's output stand for."""
    recipe: Recipe
    """How the embeddings that the head expects are made."""
    options: RecipeOptions
    """What to ask stage one for to get them."""
    settings: Settings
    fingerprint: str
    """The SHA-256 over all that decided the head; the same again need not be trained again."""
    sha256s: tuple[str, ...]
    """The images that the head was trained on."""
    row: dict[str, Any]
    """Its row of results.csv."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of its other files, by their ending, as :func:`write_head` wrote them."""

    def with_columns(self, columns: dict[str, Any]) -> SavedHead:
        """Return the record with some columns of its result row filled."""
        return replace(self, row=self.row | columns)

    def untested(self) -> SavedHead:
        """Return the record without what a test set has said of the head."""
        row = {name: value for name, value in self.row.items() if not name.startswith("test_")}
        return replace(self, row=row)


def head_path(out: Path, configuration: Configuration) -> Path:
    """Return where a configuration's ``.keras`` file is."""
    return out / _FOLDER / f"{configuration.name}.keras"


def write_head(
    out: Path, saved: SavedHead, head: bytes, probabilities: npt.NDArray[np.float32]
) -> None:
    """Keep a head, its out-of-fold predictions and, last, its record."""
    path = head_path(out, saved.configuration)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, probabilities, allow_pickle=False)
    contents = dict(zip(_BESIDE_THE_RECORD, (head, buffer.getvalue()), strict=True))
    with suppress(FileNotFoundError):  # an old record must not speak for a new head
        SYSTEM.delete(path.with_suffix(".json"))
    for ending, content in contents.items():
        write_atomically(path.with_suffix(ending), content)
    digests = {ending: sha256(content).hexdigest() for ending, content in contents.items()}
    write_record(out, replace(saved, digests=digests))


def write_record(out: Path, saved: SavedHead) -> None:
    """Write the record alone."""
    path = head_path(out, saved.configuration).with_suffix(".json")
    write_atomically(path, json.dumps(asdict(saved), indent=1, default=str).encode())


def is_whole(out: Path, saved: SavedHead) -> bool:
    """Tell whether a head's files are there, and are what was written with its record."""
    path = head_path(out, saved.configuration)
    try:
        return saved.digests == {
            ending: sha256(path.with_suffix(ending).read_bytes()).hexdigest()
            for ending in _BESIDE_THE_RECORD
        }
    except OSError:
        return False


def read_records(out: Path) -> dict[str, SavedHead | None]:
    """Read all records by the names of their files; one of another version is None."""
    return {path.stem: _read(path) for path in sorted((out / _FOLDER).glob("*.json"))}


def read_record(out: Path, configuration: Configuration) -> SavedHead | None:
    """Read a configuration's record; None if it is not there or of another version."""
    return _read(head_path(out, configuration).with_suffix(".json"))


def _read(path: Path) -> SavedHead | None:
    try:
        return _from_json(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def read_probabilities(out: Path, configuration: Configuration) -> npt.NDArray[np.float32]:
    """Read the out-of-fold predictions (repeats x images x classes)."""
    path = head_path(out, configuration).with_suffix(".npy")
    probabilities: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    return probabilities


def _from_json(values: dict[str, Any]) -> SavedHead:
    return SavedHead(
        configuration=Configuration(**values["configuration"]),
        classes=tuple(values["classes"]),
        recipe=Recipe.from_values(values["recipe"]),
        options=_options(dict(values["options"])),
        settings=Settings(**values["settings"]),
        fingerprint=values["fingerprint"],
        sha256s=tuple(values["sha256s"]),
        row=dict(values["row"]),
        digests=dict(values["digests"]),
    )


def _options(values: dict[str, Any]) -> RecipeOptions:
    """Give back the types that JSON has not."""
    directory = values["weights_dir"]
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return RecipeOptions(**values | {"weights_dir": None if directory is None else Path(directory)})
