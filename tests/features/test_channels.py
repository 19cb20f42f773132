"""Channels: each that a manifest names is an image of its own, from the file to a prediction."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from rounding import assert_close

from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import extract, load
from gelkit.features.planning import plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.surveys import survey
from gelkit.features.workers import Prepared, Rendering, Task, prepare
from gelkit.heads.grouping import decode_again, group_images
from gelkit.images.catalog import Catalog, image_identity, read_catalog, write_manifest
from gelkit.images.formats import DecodeOptions, decode
from gelkit.images.views import render

QUICK: dict[str, Any] = {"backbone": "mobilenet-v3", "options": RecipeOptions(weights="random")}
ROWS = (
    "path,label,page,channel",
    "dyes.png,a,,1",
    "dyes.png,a,,3",
    "blot.tif,a,,2",
    "stack.tif,a,2,1",
    "red.png,b,,",
    "blue.png,b,,",
    "second.png,b,,",
    "page2red.png,b,,",
    "blot.tif,a,,9",
    "blot.tif,a,,",
)
PARTS = {
    "dyes.png[channel 1]": "red.png",
    "dyes.png[channel 3]": "blue.png",
    "blot.tif[channel 2]": "second.png",
    "stack.tif[page 2, channel 1]": "page2red.png",
}
"""Parts of files, and the files that hold the same grey alone."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest that names channels, one of which its file does not have."""
    folder = tmp_path_factory.mktemp("data")
    dyes, first, second = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), np.uint8)
    Image.fromarray(dyes).save(folder / "dyes.png")
    two = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(folder / "blot.tif", first[..., :2], **two)
    pages = [Image.fromarray(first), Image.fromarray(second)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    alone = {
        "red": dyes[..., 0],
        "blue": dyes[..., 2],
        "second": first[..., 1],
        "page2red": second[..., 0],
    }
    for name, grey in alone.items():
        Image.fromarray(grey).save(folder / f"{name}.png")
    (folder / "gels.csv").write_text("\n".join(ROWS))
    return folder / "gels.csv"


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


@pytest.mark.exhaustive("exhaustive grids")
@pytest.mark.parametrize("part", PARTS)
def test_each_channel_has_the_embedding_of_its_picture(part: str, embeddings: Embeddings) -> None:
    """All dyes of a blot would get the embedding of one of them, or of their mixture."""
    one, alone = (embeddings.names.index(name) for name in (part, PARTS[part]))
    assert_close(embeddings.values[[one]], embeddings.values[[alone]])


def test_channels_that_fail_are_named_with_their_remedy(embeddings: Embeddings) -> None:
    """Nobody would know which row of the manifest is meant, nor what to write into it."""
    errors = {failure.name: failure.error for failure in embeddings.failures}
    assert set(errors) == {"blot.tif", "blot.tif[channel 9]"}
    assert (
        "a channel from 1 to 2, which this file has. Received: 9" in errors["blot.tif[channel 9]"]
    )
    assert "2 channels of equal standing" in errors["blot.tif"]
    assert "a manifest's column 'channel'" in errors["blot.tif"]


def test_channels_of_one_file_are_one_group(embeddings: Embeddings) -> None:
    """One dye of a blot would train and another be predicted."""
    unlabelled = embeddings.take(np.arange(4))
    groups = group_images(unlabelled, find_near_duplicates=False)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    files = [sha256(image.path.read_bytes()).hexdigest() for image in embeddings.images]
    assert embeddings.file_sha256s == tuple(files)
    assert len(set(embeddings.sha256s)) == len(embeddings)


def test_a_kept_manifest_finds_its_channels(
    embeddings: Embeddings, cache: Path, tmp_path: Path
) -> None:
    """Evaluation would look for a file where a channel was trained on."""
    write_manifest(Catalog("training", embeddings.images), tmp_path / "training.csv")
    catalog = read_catalog(tmp_path / "training.csv", allow_outside=True)
    assert plan(catalog, cache=cache, **QUICK).tasks == ()
    assert load(catalog, cache=cache, **QUICK).sha256s == embeddings.sha256s


def test_the_manifests_channel_comes_before_the_recipes(manifest: Path) -> None:
    """Whoever says --channel would get that one of every file, whatever the table says."""
    path = manifest.parent / "dyes.png"
    data = path.read_bytes()
    file = sha256(data).hexdigest()
    rendering = Rendering(decoding=DecodeOptions(channel=1))
    for channel in (None, 2):
        identity = image_identity(file, None, channel)
        prepared = prepare(Task(path, "", identity, channel=channel), rendering)
        assert isinstance(prepared, Prepared)
        expected = render(decode(data, DecodeOptions(channel=channel or 1)))
        np.testing.assert_array_equal(prepared.views[0], expected)


def test_a_channel_is_decoded_again_as_it_was(embeddings: Embeddings) -> None:
    """Copies of a dye would be looked for in the mixture of all."""
    number = embeddings.names.index("dyes.png[channel 3]")
    image, identity = embeddings.images[number], embeddings.sha256s[number]
    again = decode_again(image, identity, embeddings.recipe.decoding)
    alone = decode((image.path.parent / "blue.png").read_bytes())
    assert np.array_equal(again.pixels, alone.pixels)


def test_looking_at_images_lists_each_channel(manifest: Path, embeddings: Embeddings) -> None:
    """What is embedded of a file of several channels could not be seen before."""
    found = survey(read_catalog(manifest), workers=1)
    named = {image.name: (image.record.page, image.record.channel) for image in found.images}
    assert {name: named[name] for name in PARTS} == {
        "dyes.png[channel 1]": (1, 1),
        "dyes.png[channel 3]": (1, 3),
        "blot.tif[channel 2]": (1, 2),
        "stack.tif[page 2, channel 1]": (2, 1),
    }
    assert [image.sha256 for image in found.images] == list(embeddings.sha256s)
