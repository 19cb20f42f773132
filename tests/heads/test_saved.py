"""Saved heads: a record speaks for its own head alone, and says all that is needed to use it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gelkit.errors import GelkitError
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.heads.architectures import load_keras
from gelkit.heads.configurations import Configuration
from gelkit.heads.saved import (
    SavedHead,
    head_path,
    is_whole,
    read_probabilities,
    read_record,
    read_records,
    write_head,
    write_record,
)
from gelkit.heads.training import Settings, load_head

keras = load_keras()

FIFTH = Configuration(5, "cpu", "vgg16", "single", "adam")
OPTIONS = RecipeOptions(weights="random", weights_seed=3)
SAVED = SavedHead(
    configuration=FIFTH,
    classes=("001", "NA"),
    recipe=make_recipe("vgg16", "cpu", OPTIONS),
    options=OPTIONS,
    settings=Settings(epochs=3),
    fingerprint="abc",
    sha256s=("a", "b"),
    row={"model_id": 5, "accuracy": 0.75, "conf_mat": [[1.5, 0.5], [0.0, 2.0]]},
)
PROBABILITIES = np.random.default_rng(0).random((2, 3, 2)).astype(np.float32)

AGAIN = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _record_path(out: Path) -> Path:
    return head_path(out, FIFTH).with_suffix(".json")


def _read_record(out: Path) -> SavedHead | None:
    """Read the record, as it was before the head was written."""
    saved = read_record(out, FIFTH)
    return None if saved is None else replace(saved, digests={})


def test_a_head_and_what_belongs_to_it_are_kept(tmp_path: Path) -> None:
    """A trained head would be lost, or be another than its record says."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    assert head_path(tmp_path, FIFTH).read_bytes() == b"a head"
    assert np.array_equal(read_probabilities(tmp_path, FIFTH), PROBABILITIES)
    assert _read_record(tmp_path) == SAVED
    assert set(read_records(tmp_path)) == {FIFTH.name}
    names = sorted(path.name for path in (tmp_path / "heads").iterdir())
    assert names == [f"05-cpu-vgg16-single-adam.{ending}" for ending in ("json", "keras", "npy")]


ROW_VALUES = st.one_of(
    st.text(), st.floats(allow_nan=False), st.integers(), st.lists(st.lists(st.floats(0, 9)))
)


@AGAIN
@given(
    classes=st.lists(st.text() | st.sampled_from(["001", "NA", ' a,b"c', "é"]), min_size=2),
    options=st.builds(
        RecipeOptions,
        weights=st.sampled_from(["imagenet", "random"]),
        weights_seed=st.integers(0, 2**40),
        weights_dir=st.none() | st.sampled_from([Path("weights"), Path("/a b/é")]),
        geometry=st.sampled_from(["stretch", "pad"]),
        augmentations=st.sampled_from([("flip",), ("crop", "flip")]),
        emulate_tpu=st.booleans(),
    ),
    its_settings=st.builds(Settings, learning_rate=st.floats(1e-9, 1), seed=st.integers(0, 2**40)),
    row=st.dictionaries(st.text(), ROW_VALUES),
)
def test_a_record_is_read_back_as_it_was(
    tmp_path: Path,
    classes: list[str],
    options: RecipeOptions,
    its_settings: Settings,
    row: dict[str, Any],
) -> None:
    """A head would be used with other classes, or be trained again in every run."""
    saved = replace(
        SAVED,
        classes=tuple(classes),
        options=options,
        recipe=make_recipe("vgg16", "cpu", options),
        settings=its_settings,
        row=row,
    )
    head_path(tmp_path, FIFTH).parent.mkdir(exist_ok=True)
    write_record(tmp_path, saved)
    assert read_record(tmp_path, FIFTH) == saved


def test_there_is_no_record_before_a_head() -> None:
    """The first run would end in a traceback."""
    assert read_record(Path("nowhere"), FIFTH) is None
    assert read_records(Path("nowhere")) == {}


@AGAIN
@given(st.integers(0, 10_000))
def test_half_a_record_is_none(tmp_path: Path, length: int) -> None:
    """A damaged file would end the run instead of costing one training."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    content = _record_path(tmp_path).read_bytes()
    _record_path(tmp_path).write_bytes(content[: length % len(content)])
    assert read_record(tmp_path, FIFTH) is None


SAVED_AS_JSON: dict[str, Any] = {
    "configuration": {
        "model_id": 5,
        "hardware": "cpu",
        "backbone": "vgg16",
        "head": "single",
        "optimizer": "adam",
    },
    "options": {"weights_dir": None},
}

DAMAGED = {
    "not UTF-8": b"\xff\xfe{",
    "a number": b"5",
    "a list": b"[]",
    "nothing": b"null",
    "no record": b"{}",
    "options that are a list": b'{"options": [], "configuration": {}}',
    "options that are nothing": b'{"options": null}',
    "half of the fields": json.dumps(SAVED_AS_JSON).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_record_is_none(damage: str, tmp_path: Path) -> None:
    """A file of something else would end the run."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    _record_path(tmp_path).write_bytes(DAMAGED[damage])
    assert read_record(tmp_path, FIFTH) is None


@pytest.mark.parametrize("part", ["configuration", "recipe", "options", "settings"])
def test_a_record_of_another_version_is_none(part: str, tmp_path: Path) -> None:
    """A head that was made by other rules would be taken for one of today's."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    values = json.loads(_record_path(tmp_path).read_bytes())
    values[part]["invented_later"] = 1
    _record_path(tmp_path).write_text(json.dumps(values))
    assert read_record(tmp_path, FIFTH) is None
    del values[part]["invented_later"]
    _record_path(tmp_path).write_text(json.dumps(values))
    assert _read_record(tmp_path) == SAVED


@pytest.mark.parametrize(
    "part", ["configuration", "classes", "recipe", "options", "settings", "sha256s", "row"]
)
def test_a_record_that_lacks_a_part_is_none(part: str, tmp_path: Path) -> None:
    """A file that another program touched would end the run instead of costing one training."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    values = json.loads(_record_path(tmp_path).read_bytes())
    _record_path(tmp_path).write_text(json.dumps(values | {part: None}))
    assert read_record(tmp_path, FIFTH) is None
    del values[part]
    _record_path(tmp_path).write_text(json.dumps(values))
    assert read_record(tmp_path, FIFTH) is None


HARM: dict[str, Callable[[Path], object]] = {
    "lost": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "another": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("ending", [".keras", ".npy"])
def test_lost_and_damaged_files_are_noticed(ending: str, harm: str, tmp_path: Path) -> None:
    """A head that cannot be used would be taken for done, in this run and in every other."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    saved = read_record(tmp_path, FIFTH)
    assert saved is not None
    assert is_whole(tmp_path, saved)
    HARM[harm](head_path(tmp_path, FIFTH).with_suffix(ending))
    assert not is_whole(tmp_path, saved)
    assert not is_whole(tmp_path, SAVED)


def test_filling_columns_keeps_a_head_whole(tmp_path: Path) -> None:
    """Each evaluation would cost the training of all heads."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    saved = read_record(tmp_path, FIFTH)
    assert saved is not None
    write_record(tmp_path, saved.with_columns({"test_accuracy": 0.5}))
    again = read_record(tmp_path, FIFTH)
    assert again is not None
    assert is_whole(tmp_path, again)


def test_an_old_record_never_speaks_for_a_new_head(tmp_path: Path) -> None:
    """After a crash between two files, a head would have the figures of its predecessor."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    with pytest.raises(TypeError):
        write_head(tmp_path, SAVED, "text cannot be written", PROBABILITIES)  # type: ignore[arg-type]
    assert read_record(tmp_path, FIFTH) is None
    write_head(tmp_path, SAVED, b"another head", PROBABILITIES)
    with pytest.raises(TypeError):
        write_head(tmp_path, replace(SAVED, row={1j: 1}), b"a third", PROBABILITIES)  # type: ignore[dict-item]
    assert read_record(tmp_path, FIFTH) is None


def _external_link(weights: h5py.Group, other: Path) -> None:
    weights["0"] = h5py.ExternalLink(str(other), "/0")


def _soft_link(weights: h5py.Group, other: Path) -> None:
    weights.file["other"] = np.zeros((2, 2), np.float32)
    weights["0"] = h5py.SoftLink("/other")


def _external_storage(weights: h5py.Group, other: Path) -> None:
    weights.create_dataset("0", (2, 2), "f4", external=str(other))


def _virtual(weights: h5py.Group, other: Path) -> None:
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource(str(other), "0", (2, 2))
    weights.create_virtual_dataset("0", layout)


def _terabytes(weights: h5py.Group, other: Path) -> None:
    weights.create_dataset("0", (2**20, 2**20), "f4", chunks=(1, 1024))


TRAPS = {
    _external_link: "H5 file with ExternalLink",
    _soft_link: "H5 file with SoftLink",
    _external_storage: "H5 file with external Dataset",
    _virtual: "H5 file with virtual Dataset",
    _terabytes: "refusing to load a potential decompression/shape bomb",
}


def _trapped(head: Path, trap: Callable[[h5py.Group, Path], None], other: Path) -> None:
    """Set a trap in place of a weight of a head with one dense layer."""
    with zipfile.ZipFile(head) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    weights = head.with_suffix(".h5")
    weights.write_bytes(contents["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        trap(group, other)
    contents["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(head, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_head_that_reaches_elsewhere_is_refused(
    trap: Callable[[h5py.Group, Path], None], tmp_path: Path
) -> None:
    """A head from a stranger could read other files, or fill the memory."""
    path = tmp_path / "head.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")]).save(path)
    assert len(load_head(path).get_weights()) == 2
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["0"] = np.ones((2, 2), np.float32)
    _trapped(path, trap, tmp_path / "other.h5")
    with pytest.raises(GelkitError, match=TRAPS[trap]):
        load_head(path)


class _Malice:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.proof),)


def test_predictions_that_are_a_program_are_not_run(tmp_path: Path) -> None:
    """Opening results from somebody else would run whatever they put into them."""
    write_head(tmp_path, SAVED, b"a head", PROBABILITIES)
    planted = np.empty(1, dtype=object)
    planted[0] = _Malice(tmp_path / "executed")
    np.save(head_path(tmp_path, FIFTH).with_suffix(".npy"), planted, allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_probabilities(tmp_path, FIFTH)
    assert not (tmp_path / "executed").exists()


def test_columns_are_added_to_a_row_and_the_rest_stays() -> None:
    """Scoring a test set would lose the cross-validated figures."""
    filled = SAVED.with_columns({"test_accuracy": 0.5, "test_overlap": 0})
    assert filled.row == SAVED.row | {"test_accuracy": 0.5, "test_overlap": 0}
    assert replace(filled, row=SAVED.row) == SAVED
