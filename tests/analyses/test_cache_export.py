"""Embeddings for other programs: what they are given is what the cache holds, bit by bit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import gelkit
from gelkit.analyses.cache_export import KINDS, describe, export_embeddings, text_of, unicode_of
from gelkit.errors import GelkitError, UsageError
from gelkit.features.cache import Cache
from gelkit.features.embeddings import Embeddings
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.images.catalog import CatalogImage
from gelkit.tables import read_table

pytestmark = [
    # anndata 0.12 asks pandas 3 for an option that this no longer needs
    pytest.mark.filterwarnings("ignore:The 'future.infer_string' option"),
]

needs_anndata = pytest.mark.skipif(
    find_spec("anndata") is None,
    reason="anndata is not installed; beside pandas 3 it cannot be before Python 3.12",
)
ENDINGS = [
    pytest.param(ending, marks=needs_anndata) if ending == ".h5ad" else ending for ending in KINDS
]

WIDTH = 3

Texts = list[str | None]


@dataclass(frozen=True)
class Export:
    """What a program that is not gelkit reads of an export."""

    values: np.ndarray
    image: Texts
    sha256: Texts
    label: Texts
    group: Texts
    source: Texts
    description: dict[str, Any]


def _read_npz(path: Path) -> Export:
    with np.load(path, allow_pickle=False) as file:
        columns = dict(file)

    def texts(name: str) -> Texts:
        has = columns.get(f"has_{name}", np.ones(len(columns[name]), bool))
        return [text_of(str(t)) if h else None for t, h in zip(columns[name], has, strict=True)]

    return Export(
        columns["embedding"],
        *map(texts, ("image", "sha256", "label", "group", "source")),
        json.loads(str(columns["gelkit"])),
    )


def _read_csv(path: Path) -> Export:
    header, rows = read_table(path)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))

    def texts(name: str) -> Texts:
        has = columns.get(f"has_{name}", ["yes"] * len(rows))
        return [t if h == "yes" else None for t, h in zip(columns[name], has, strict=True)]

    values = [columns[name] for name in header if name.startswith("embedding_")]
    return Export(
        np.array(values).T.astype(np.float64).astype(np.float32),  # the way most readers go
        *map(texts, ("image", "sha256", "label", "group", "source")),
        json.loads(columns["gelkit"][0]),
    )


def _read_parquet(path: Path) -> Export:
    from pyarrow.parquet import read_table as read_parquet

    table = read_parquet(path)

    def texts(name: str) -> Texts:
        return [None if text is None else text_of(text) for text in table[name].to_pylist()]

    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return Export(
        flat.reshape(table.num_rows, -1),
        *map(texts, ("image", "sha256", "label", "group", "source")),
        json.loads(table.schema.metadata[b"gelkit"]),
    )


def _read_h5ad(path: Path) -> Export:
    import anndata

    table = anndata.read_h5ad(path)

    def texts(name: str) -> Texts:
        return [text_of(t) if isinstance(t, str) else None for t in table.obs[name].tolist()]

    return Export(
        np.asarray(table.X),
        [text_of(name) for name in table.obs_names],
        *map(texts, ("sha256", "label", "group", "source")),
        json.loads(table.uns["gelkit"]),
    )


READERS: dict[str, Callable[[Path], Export]] = {
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".h5ad": _read_h5ad,
}

FILE_NAMES = st.one_of(
    st.binary(min_size=1, max_size=12).map(lambda name: os.fsdecode(name.replace(b"\0", b"0"))),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.sampled_from(["=1+1", "'=", "'", "b'x'", 'b"x"', "b'", "a\nb", '"', "nan", "NA", "\ufeff"]),
)
LABELS = st.one_of(st.none(), st.just(""), st.just("a\0"), FILE_NAMES)
FLOATS = st.floats(width=32, allow_nan=False)


@st.composite
def embeddings(draw: st.DrawFn) -> Embeddings:
    """Draw embeddings of up to four images, called and sorted as any file and folder may be."""
    names = draw(st.lists(FILE_NAMES, min_size=1, max_size=4, unique=True))
    images = tuple(
        CatalogImage(Path(name), name, draw(LABELS), draw(LABELS), draw(LABELS)) for name in names
    )
    rows = [draw(st.lists(FLOATS, min_size=WIDTH, max_size=WIDTH)) for _ in names]
    return _embeddings(images, np.array(rows, np.float32))


def _embeddings(images: tuple[CatalogImage, ...], values: np.ndarray) -> Embeddings:
    return Embeddings(
        values=values,
        images=images,
        sha256s=tuple(f"{number:064x}" for number in range(len(images))),
        recipe=make_recipe("resnet18", "cpu", RecipeOptions(weights="random")),
        device="cpu (drawn)",
        extraction_secs=0.5,
    )


SMALL = _embeddings(
    (CatalogImage(Path("a.png"), "a.png", "gel"), CatalogImage(Path("b.png"), "b.png", "other")),
    np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32),
)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(embeddings=embeddings())
def test_all_that_is_exported_is_read_back(
    embeddings: Embeddings, ending: str, tmp_path: Path
) -> None:
    """Another program would get other numbers, or the wrong image's, or lose a name or label."""
    path = tmp_path / f"export{ending}"
    export_embeddings(embeddings, path)
    export = READERS[ending](path)
    assert export.values.dtype == np.float32
    assert export.values.tobytes() == embeddings.values.tobytes()
    assert export.image == [*embeddings.names]
    assert export.sha256 == [*embeddings.sha256s]
    assert export.label == [*embeddings.labels]
    assert export.group == [image.group for image in embeddings.images]
    assert export.source == [image.source for image in embeddings.images]
    assert export.description == describe(embeddings)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_digit_is_kept(ending: str, tmp_path: Path) -> None:
    """Where a few digits more are needed than usual, embeddings would come back rounded."""
    bits = np.random.default_rng(0).integers(0, 2**32, (500, WIDTH), np.uint32)
    drawn = bits.view(np.float32)
    values = np.where(np.isnan(drawn), np.float32(-0.0), drawn)
    images = tuple(CatalogImage(Path(f"{n}"), f"{n}") for n in range(len(values)))
    export_embeddings(_embeddings(images, values), tmp_path / f"export{ending}")
    assert READERS[ending](tmp_path / f"export{ending}").values.tobytes() == values.tobytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_exports_of_several_pieces_are_whole(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large cache the rows at the seams would be lost, doubled or out of order."""
    monkeypatch.setattr("gelkit.analyses.cache_export._PIECE_BYTES", 3 * 4 * WIDTH)
    values = np.random.default_rng(0).normal(size=(10, WIDTH)).astype(np.float32)
    images = tuple(CatalogImage(Path(f"{n}"), f"{n}", str(n % 3)) for n in range(10))
    export_embeddings(_embeddings(images, values), tmp_path / f"export{ending}")
    export = READERS[ending](tmp_path / f"export{ending}")
    assert np.array_equal(export.values, values)
    assert export.image == [image.name for image in images]
    assert export.label == [image.label for image in images]


def test_an_export_tells_how_the_embeddings_were_made() -> None:
    """A file found a year later could not be traced to a backbone, weights or data."""
    description = describe(SMALL)
    assert description["recipe"]["backbone"] == "resnet18"
    assert description["recipe_sha256"] == SMALL.recipe.sha256
    assert description["fingerprint"] == SMALL.fingerprint
    assert description["device"] == "cpu (drawn)"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("gel.png", "gel.png"),
        ("Zürich\n泳道", "Zürich\n泳道"),
        ("gel\udcff.png", r"b'gel\xff.png'"),
        ("b'x'", '''b"b'x'"'''),
        ("a\0", r"b'a\x00'"),
    ],
    ids=["plain", "unicode", "no unicode", "like a literal", "nul"],
)
def test_texts_in_files_that_hold_unicode_alone(text: str, stored: str) -> None:
    """A file could not be written for one odd name, or two names would become one."""
    assert unicode_of(text) == stored
    assert text_of(stored) == text


@pytest.mark.parametrize("name", ["export.xlsx", "export", ".npz"])
def test_an_unknown_ending_is_refused(name: str, tmp_path: Path) -> None:
    """A misspelt name would give a file that nothing opens."""
    with pytest.raises(UsageError, match=r"\.npz .*\.parquet .*\.csv .*\.h5ad .*Received"):
        export_embeddings(SMALL, tmp_path / name)
    assert [*tmp_path.iterdir()] == []


def test_endings_may_be_in_capitals(tmp_path: Path) -> None:
    """A name from a system that writes .NPZ would be refused."""
    export_embeddings(SMALL, tmp_path / "EXPORT.NPZ")
    assert np.array_equal(_read_npz(tmp_path / "EXPORT.NPZ").values, SMALL.values)


def test_no_embeddings_are_refused(tmp_path: Path) -> None:
    """An empty file would pass for an export."""
    with pytest.raises(UsageError, match="Expected embeddings"):
        export_embeddings(SMALL.take(np.arange(0)), tmp_path / "export.npz")


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_fails_leaves_the_old_file(ending: str, tmp_path: Path) -> None:
    """An export that breaks off would destroy the last good one, or leave half a file."""
    path = tmp_path / f"export{ending}"
    path.write_bytes(b"as before")
    broken = replace(SMALL, images=(SMALL.images[0], replace(SMALL.images[1], label="\ud800")))
    with pytest.raises(UnicodeEncodeError):  # no file system gives such a name
        export_embeddings(broken, path)
    assert path.read_bytes() == b"as before"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_that_is_not_there_is_named(ending: str, tmp_path: Path) -> None:
    """The user would see a traceback of some package instead of what to do."""
    with pytest.raises(GelkitError, match=r"Expected to write .*nowhere.*Received: .+ Make room"):
        export_embeddings(SMALL, tmp_path / "nowhere" / f"export{ending}")


@pytest.mark.parametrize(
    ("ending", "package", "extra"),
    [(".parquet", "pyarrow", "parquet"), (".h5ad", "anndata", "anndata")],
)
def test_a_package_that_is_missing_is_named(
    ending: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user would not know what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GelkitError, match=rf"{package}.*gelkit\[{extra}\]"):
        export_embeddings(SMALL, tmp_path / f"export{ending}")
    assert [*tmp_path.iterdir()] == []


@needs_anndata
def test_a_full_disk_is_told_before_hdf5_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk HDF5 would end the program without a word."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=20))
    with pytest.raises(GelkitError, match=r"20 bytes free .* the 24 to write"):
        export_embeddings(SMALL, tmp_path / "export.h5ad")
    assert [*tmp_path.iterdir()] == []


FRAMED = _embeddings(
    (
        CatalogImage(Path("a.png"), "a.png", "gel", "g", "imager"),
        CatalogImage(Path("b\udcff.png"), "b\udcff.png", ""),
        CatalogImage(Path("c.png"), "c.png"),
    ),
    np.arange(9, dtype=np.float32).reshape(3, WIDTH),
)


def test_a_frame_has_all_there_is() -> None:
    """A notebook would join embeddings with the wrong images, or lose what is missing in them."""
    frame = FRAMED.to_frame()
    assert [*frame.columns] == [
        *("image", "sha256", "label", "group", "source"),
        *("embedding_0", "embedding_1", "embedding_2"),
    ]
    assert frame["image"].tolist() == ["a.png", "b\udcff.png", "c.png"]
    assert frame["sha256"].tolist() == [*FRAMED.sha256s]
    assert frame["label"].tolist() == ["gel", "", None]
    assert frame["group"].tolist() == ["g", None, None]
    assert frame["source"].tolist() == ["imager", None, None]
    assert frame.index.tolist() == [0, 1, 2]
    values = frame.filter(like="embedding_").to_numpy()
    assert values.dtype == np.float32
    assert np.array_equal(values, FRAMED.values)


def test_torch_is_given_pairs_of_embedding_and_class() -> None:
    """A torch training loop would get other types, or numbers of other classes."""
    import torch

    dataset = SMALL.to_torch()
    assert len(dataset) == 2
    value, target = dataset[1]
    assert (value.dtype, target.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(value.numpy(), SMALL.values[1])
    assert SMALL.classes[int(target)] == "other"


def test_torch_is_given_embeddings_alone_where_nothing_has_a_label() -> None:
    """New images could not be embedded for torch, or would be given a class that they have not."""
    unlabelled = replace(SMALL, images=tuple(replace(its, label=None) for its in SMALL.images))
    assert [len(pair) for pair in unlabelled.to_torch()] == [1, 1]
    with pytest.raises(UsageError, match=r"Expected a label for every image.*c\.png"):
        FRAMED.to_torch()


@pytest.mark.parametrize("change", ["frame", "torch"])
def test_what_is_made_of_embeddings_may_be_changed(change: str) -> None:
    """A normalisation in place would silently change the embeddings and their fingerprint."""
    before = SMALL.values.copy()
    if change == "frame":
        frame = SMALL.to_frame()
        frame.loc[0, "embedding_0"] = 7.0
    else:
        SMALL.to_torch().tensors[0].zero_()
    assert np.array_equal(SMALL.values, before)


def test_embeddings_introduce_themselves() -> None:
    """A notebook's cell would be filled with numbers, or names would command a terminal."""
    assert repr(SMALL) == "<Embeddings: 2 images x 3 by resnet18 (random) on cpu; gel 1, other 1>"
    labels = ["\x1b[2J", None, *"bcdefg"]
    images = tuple(CatalogImage(Path(f"{label}"), f"{label}", label) for label in labels)
    many = _embeddings(images, np.zeros((len(images), WIDTH), np.float32))
    assert repr(many).endswith(
        r"; \x1b[2J 1, b 1, c 1, d 1, e 1, 2 more classes, 1 without a label>"
    )


def test_a_folder_can_be_loaded_by_its_name(tmp_path: Path) -> None:
    """The three lines for a notebook would end in an error about catalogs."""
    for number, label in enumerate(("gel", "other")):
        (tmp_path / "my_gels" / label).mkdir(parents=True)
        Image.new("L", (4, 4), number).save(tmp_path / "my_gels" / label / f"{number}.png")
    options = RecipeOptions(weights="random")
    catalog = gelkit.read_catalog(tmp_path / "my_gels")
    digests = [sha256(image.path.read_bytes()).hexdigest() for image in catalog.images]
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, np.zeros(2))
    columns |= {"sha256": digests, "embedding": SMALL.values, "intensity": np.zeros((2, 13))}
    rows = make_rows(columns, {"weights_sha256": "", "device": "cpu (drawn)"})
    Cache(tmp_path / "features", make_recipe("resnet18", "cpu", options)).publish(rows)
    for folder in (str(tmp_path / "my_gels"), tmp_path / "my_gels"):
        for make in (gelkit.load, gelkit.extract):
            its = make(folder, backbone="resnet18", cache=tmp_path / "features", options=options)
            assert np.array_equal(its.values, SMALL.values)
            assert its.labels == ("gel", "other")
