"""What the tests of reports share: a comparison of images whose names would do harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gelkit
from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.heads.configurations import choose_configurations
from gelkit.images.catalog import Catalog, CatalogImage, read_catalog

HOSTILE_CLASS = "<img src=x onerror=window.pwned=1>"
HOSTILE_NAMES = (
    "<script>window.pwned=1<!--.png",
    '"><img src=x onerror=window.pwned=1>.png',
    "'onmouseover='window.pwned=1'.png",
    "a\nb.png",
    "\u202egnp.evil.png",
    "\u0647\u0644\u0627\u0645.png",
    "{{ 7 * 7 }}.png",
    "&lt;b&gt;.png",
    os.fsdecode(b"\xff\xfe.png"),
)
MISLABELLED = "gel/plain-11.png"
"""Its embedding is one of the other class, far from its own."""
TWINS = ("plain-12.png", "plain-13.png")
IMAGES_A_CLASS = 16
OPTIONS = RecipeOptions(weights="random", emulate_tpu=True)


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    out: Path
    cache: Path
    data: Path


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """Compare two heads on two hardware types, on drawn images and made-up embeddings."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("comparison")
    its = Comparison(out=root / "out", cache=root / "cache", data=root / "data")
    _draw_images(its.data)
    catalog = read_catalog(its.data)
    for hardware in ("cpu", "tpu"):
        _publish(catalog, its.cache, hardware)
    gelkit.compare(
        catalog,
        cache=its.cache,
        out=its.out,
        configurations=choose_configurations(backbones=("resnet18",), optimizers=("adam",)),
        options=OPTIONS,
        settings=gelkit.Settings(folds=3, repeats=2, epochs=40, learning_rate=0.02),
    )
    yield its
    torch.set_num_threads(threads)


def _draw_images(data: Path) -> None:
    """Draw stripes of other widths for each image, but for the twins, which differ in a pixel."""
    for label in ("gel", HOSTILE_CLASS):
        names = HOSTILE_NAMES if label != "gel" else ()
        names += tuple(f"plain-{number}.png" for number in range(len(names), IMAGES_A_CLASS))
        (data / label).mkdir(parents=True)
        for number, name in enumerate(names):
            seed = number - (name == TWINS[1] and label == "gel")
            pixels = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
            large = pixels.repeat(8, axis=0).repeat(8, axis=1)
            large[0, 0] = number + IMAGES_A_CLASS * (label == "gel")
            Image.fromarray(large).save(data / label / name, "PNG")


def _publish(catalog: Catalog, root: Path, hardware: str) -> None:
    """Put into a cache what stage one would have."""
    digests = [sha256(image.path.read_bytes()).hexdigest() for image in catalog.images]
    count = len(digests)
    columns: dict[str, object] = dict.fromkeys(COLUMNS, np.zeros(count))
    columns |= {
        "sha256": digests,
        "embedding": [
            _embedding(image, digest) for image, digest in zip(catalog.images, digests, strict=True)
        ],
        "perceptual_hash": [_perceptual_hash(image) for image in catalog.images],
        **{name: np.full(count, 8) for name in ("height", "width", "bit_depth")},
        "n_bytes": np.full(count, 80),
        "format": np.full(count, "PNG", "S16"),
        "mode": np.full(count, "L", "S16"),
        "intensity": np.random.default_rng(0).random((count, 13)),
        "extraction_secs": np.full(count, 0.5),
    }
    device = "cpu (drawn)" if hardware == "cpu" else "XLA:CPU (emulated)"
    rows = make_rows(columns, {"weights_sha256": "", "device": device})
    Cache(root, make_recipe("resnet18", hardware, OPTIONS)).publish(rows)


def _embedding(image: CatalogImage, digest: str) -> np.ndarray:
    noise = np.random.default_rng(int(digest[:8], 16)).normal(size=6)
    if image.name == MISLABELLED:
        return noise - 2.0
    return noise + (3.0 if image.label == "gel" else 0.0)


def _perceptual_hash(image: CatalogImage) -> int:
    name = TWINS[0] if image.label == "gel" and image.path.name == TWINS[1] else image.name
    return int.from_bytes(sha256(os.fsencode(Path(name).name + str(image.label))).digest()[:8])
