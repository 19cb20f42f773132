"""What the tests of heads share: embeddings and caches that no backbone had to make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gelkit.features.cache import Cache
from gelkit.features.embeddings import Embeddings
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.images.catalog import Catalog, CatalogImage, read_catalog

sys.path.insert(0, str(Path(__file__).parent))  # for twin.py

WIDTH = 6

MakeEmbeddings = Callable[..., Embeddings]
DrawImages = Callable[..., Catalog]
PublishEmbeddings = Callable[..., Cache]


def _make_embeddings(
    labels: Sequence[str | None],
    *,
    groups: Sequence[str | None] | None = None,
    sha256s: Sequence[str] | None = None,
    separation: float = 3.0,
    width: int = WIDTH,
    seed: int = 0,
) -> Embeddings:
    """Make normal values, those of a class shifted by ``separation`` along an axis of its own."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), width))
    axes = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    for number, label in enumerate(labels):
        noise[number, axes[label] % width] += separation
    groups = [None] * len(labels) if groups is None else groups
    images = tuple(
        CatalogImage(Path(f"{number}.png"), f"{number}.png", label, group)
        for number, (label, group) in enumerate(zip(labels, groups, strict=True))
    )
    return Embeddings(
        values=noise.astype(np.float32),
        images=images,
        sha256s=tuple(sha256s or [f"{number:064x}" for number in range(len(labels))]),
        recipe=make_recipe("resnet18", "cpu", RecipeOptions(weights="random")),
        device="cpu (drawn)",
        extraction_secs=0.5,
        records=_draw_records(len(labels)),
    )


def _draw_records(count: int) -> dict[str, np.ndarray]:
    """Draw what stage one would have noted of images that are all alike but in their hashes."""
    generator = np.random.default_rng(0)
    return {
        "perceptual_hash": generator.integers(0, 2**64, count, dtype=np.uint64),
        **{name: np.full(count, 4, np.uint32) for name in ("height", "width")},
        "bit_depth": np.full(count, 8, np.uint8),
        "n_bytes": np.full(count, 80, np.uint64),
        **{
            name: np.full(count, value, "S16") for name, value in (("format", "PNG"), ("mode", "L"))
        },
        "flags": np.zeros(count, np.uint64),
        "intensity": generator.random((count, 13), dtype=np.float32),
    }


def _draw_images(folder: Path, counts: dict[str, int], *, start: int = 0) -> Catalog:
    """Write ``counts`` tiny images, all different, into a folder for each class."""
    number = start
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            image = Image.new("L", (4, 4), number % 256)
            image.putpixel((0, 0), number // 256)
            image.save(folder / label / f"{number}.png")
            number += 1
    return read_catalog(folder)


def _publish_embeddings(
    catalog: Catalog,
    root: Path,
    *,
    backbone: str = "resnet18",
    options: RecipeOptions | None = None,
    separation: float = 2.0,
) -> Cache:
    """Put embeddings of a catalog's images into a cache, as if stage one had made them."""
    options = options or RecipeOptions()
    cache = Cache(root, make_recipe(backbone, "cpu", options))
    digests = [sha256(image.path.read_bytes()).hexdigest() for image in catalog.images]
    labels = sorted({str(image.label) for image in catalog.images})
    columns: dict[str, object] = dict.fromkeys(COLUMNS, np.zeros(len(catalog)))
    columns |= _draw_records(len(catalog))
    columns |= {
        "sha256": digests,
        "embedding": [
            np.random.default_rng([int(digest[:8], 16), len(backbone)]).normal(size=WIDTH)
            + separation * labels.index(str(image.label))
            for digest, image in zip(digests, catalog.images, strict=True)
        ],
        "perceptual_hash": [int(digest[:16], 16) for digest in digests],
    }
    cache.publish(make_rows(columns, {"weights_sha256": "", "device": "cpu (drawn)"}))
    return cache


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: on products this small, several only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_embeddings() -> MakeEmbeddings:
    """Return the function that makes embeddings from labels."""
    return _make_embeddings


@pytest.fixture(scope="session")
def draw_images() -> DrawImages:
    """Return the function that writes tiny images into class folders."""
    return _draw_images


@pytest.fixture(scope="session")
def publish_embeddings() -> PublishEmbeddings:
    """Return the function that fills a cache for a catalog."""
    return _publish_embeddings
