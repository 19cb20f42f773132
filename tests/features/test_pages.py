"""Pages: each that a manifest names is an image of its own, from the file to the cache and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rounding import assert_close

from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import extract, load
from gelkit.features.planning import identify, plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.surveys import survey
from gelkit.features.workers import Prepared, Rendering, Task, prepare
from gelkit.images.catalog import Catalog, image_identity, read_catalog, write_manifest
from gelkit.images.formats import DecodeOptions, decode
from gelkit.images.views import render

QUICK: dict[str, Any] = {"backbone": "mobilenet-v3", "options": RecipeOptions(weights="random")}
ROWS = (
    "path,label,page",
    "stack.tif,a,1",
    "stack.tif,a,2",
    "page1.tif,b,",
    "page2.tif,b,",
    "page3.tif,b,",
    "stack.tif,a,3",
    "stack.tif,a,9",
    "stack.tif,a,",
)


def _write_stack(folder: Path, pages: int = 3) -> Path:
    """Write a file of pages of equal size, each page as a file of its own, and a manifest."""
    pictures = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30), np.uint8))
        for seed in range(pages)
    ]
    folder.mkdir(exist_ok=True)
    pictures[0].save(folder / "stack.tif", save_all=True, append_images=pictures[1:])
    for number, picture in enumerate(pictures, start=1):
        picture.save(folder / f"page{number}.tif")
    (folder / "gels.csv").write_text("\n".join(ROWS))
    return folder / "gels.csv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest that names pages of a file, one of which it does not have."""
    return _write_stack(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that holds the embeddings of the manifest's images."""
    folder = tmp_path_factory.mktemp("features")
    extract(read_catalog(manifest), cache=folder, **QUICK)
    return folder


@pytest.fixture(scope="module")
def embeddings(manifest: Path, cache: Path) -> Embeddings:
    """Return the embeddings of the manifest's images, from the cache."""
    return load(read_catalog(manifest), cache=cache, **QUICK)


def _rows(embeddings: Embeddings, names: Sequence[str]) -> np.ndarray:
    return embeddings.values[[embeddings.names.index(name) for name in names]]


def test_each_page_has_the_embedding_of_its_picture(embeddings: Embeddings) -> None:
    """All pages of a file would get the embedding of one of them, or none any."""
    pages = _rows(embeddings, [f"stack.tif[page {number}]" for number in (1, 2, 3)])
    alone = _rows(embeddings, [f"page{number}.tif" for number in (1, 2, 3)])
    assert len(embeddings) == 6
    assert_close(pages, alone)
    assert not np.allclose(alone[0], alone[1], rtol=1e-2)


def test_pages_that_fail_are_named_each(embeddings: Embeddings, manifest: Path) -> None:
    """Nobody would know which page of the file is meant, or the pages that are there fail too."""
    errors = {failure.name: failure.error for failure in embeddings.failures}
    assert set(errors) == {"stack.tif", "stack.tif[page 9]"}
    assert "from 1 to 3, which this file has. Received: 9" in errors["stack.tif[page 9]"]
    assert "3 pages of equal standing" in errors["stack.tif"]
    assert "a manifest's column 'page'" in errors["stack.tif"]
    sha256s = {failure.name: failure.sha256 for failure in embeddings.failures}
    file = sha256((manifest.parent / "stack.tif").read_bytes()).hexdigest()
    assert sha256s == {"stack.tif": file, "stack.tif[page 9]": image_identity(file, 9)}


def test_the_file_of_a_page_is_known(embeddings: Embeddings, manifest: Path) -> None:
    """Exposures of one blot could not be kept together, or all images would be one group."""
    for its in (embeddings, embeddings.take(np.array([4, 0, 5, 2]))):
        files = [sha256(image.path.read_bytes()).hexdigest() for image in its.images]
        assert its.file_sha256s == tuple(files)
        assert len(set(its.sha256s)) == len(its)


def test_a_kept_manifest_and_a_moved_file_find_their_pages(
    embeddings: Embeddings, manifest: Path, cache: Path, tmp_path: Path
) -> None:
    """Evaluation would look for a file where a page was trained on, and compute it all again."""
    moved = _write_stack(tmp_path / "moved")
    write_manifest(Catalog("training", embeddings.images), tmp_path / "training.csv")
    for path in (moved, tmp_path / "training.csv"):
        catalog = read_catalog(path, allow_outside=True)
        assert plan(catalog, cache=cache, **QUICK).tasks == ()
        assert load(catalog, cache=cache, **QUICK).sha256s == embeddings.sha256s


def test_without_pages_everything_is_known_by_its_bytes(manifest: Path, tmp_path: Path) -> None:
    """Every cache and every saved head of before would have to be made again."""
    identified = identify(read_catalog(manifest.parent), tmp_path)
    paths = [image.path for image in identified.catalog.images]
    assert identified.sha256s == tuple(sha256(path.read_bytes()).hexdigest() for path in paths)
    assert identified.files == {}


def test_the_manifests_page_comes_before_the_recipes(manifest: Path) -> None:
    """Whoever says --page would get that page of every file, whatever the table says."""
    data = (manifest.parent / "stack.tif").read_bytes()
    file = sha256(data).hexdigest()
    rendering = Rendering(decoding=DecodeOptions(page=1))
    for page in (None, 2):
        task = Task(manifest.parent / "stack.tif", "", image_identity(file, page), page=page)
        prepared = prepare(task, rendering)
        assert isinstance(prepared, Prepared)
        expected = render(decode(data, DecodeOptions(page=page or 1)))
        np.testing.assert_array_equal(prepared.views[0], expected)
    other = replace(task, sha256=image_identity(file, 3))
    assert "its bytes are not those" in getattr(prepare(other, rendering), "error", "")


def test_looking_at_images_lists_each_page(manifest: Path, embeddings: Embeddings) -> None:
    """What is embedded of a file of several pages could not be seen before."""
    found = survey(read_catalog(manifest), workers=1)
    pages = {image.name: (image.record.page, image.record.pages) for image in found.images}
    assert pages == {
        **{f"page{number}.tif": (1, 1) for number in (1, 2, 3)},
        **{f"stack.tif[page {number}]": (number, 3) for number in (1, 2, 3)},
    }
    assert {image.name: image.sha256 for image in found.images} == dict(
        zip(embeddings.names, embeddings.sha256s, strict=True)
    )
    assert [failure.name for failure in found.failures] == ["stack.tif[page 9]", "stack.tif"]
