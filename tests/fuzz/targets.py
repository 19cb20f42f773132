"""Targets: what reads files of others, with the files that its mutants are made of.

A target returns what it read, or raises a :class:`gelkit.errors.GelkitError`; whatever else it
raises is a finding, and so is what it returns if it cannot be.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gelkit.images.catalog import Catalog, read_catalog
from gelkit.images.formats import DecodedImage, DecodeOptions, Limits, decode
from gelkit.images.likeness import intensity_statistics
from gelkit.images.views import VIEW_SIZE, render
from tests.fuzz import agreement, corpus, mutations
from tests.fuzz.mutations import Mutation

Reader: TypeAlias = Callable[[bytes], Any]


@dataclass(frozen=True)
class Target:
    """One reader and what it is fed with."""

    corpus: Callable[[], Sequence[bytes]]
    mutations: tuple[Mutation, ...]
    open: Callable[[Path], Reader]
    """Given a folder to write to, return what reads the bytes of a file."""
    opinion: Callable[[bytes, Any], str] | None = None
    """What a second, independent reader says of the same bytes and of what was read."""
    excuse: str = ""
    """Why its crashes and hangs are counted and are no findings."""


LIMITS = Limits(pixels=2_000_000, bytes=2**24, pages=20)
"""As far below the default as the worker's memory: beyond, a mutant is slow and not hostile."""

OPTIONS = (
    *[DecodeOptions()] * 3,
    DecodeOptions(page=1),
    DecodeOptions(page=2),
    DecodeOptions(channel=1),
    DecodeOptions(channel=2),
    DecodeOptions(polarity="dark-background", guess_polarity=True),
)


def options_for(data: bytes) -> DecodeOptions:
    """Choose options by the bytes, so that a file that was kept shows the same again."""
    return OPTIONS[zlib.crc32(data) % len(OPTIONS)]


def _decoder(_: Path) -> Reader:
    return _decode


def _decode(data: bytes) -> DecodedImage:
    decoded = decode(data, options_for(data), LIMITS)
    pixels, record = decoded.pixels, decoded.record
    assert pixels.dtype in (np.uint8, np.float32), pixels.dtype
    assert pixels.shape == (record.height, record.width), pixels.shape
    assert 0 <= pixels.min() <= pixels.max() <= (255 if pixels.dtype == np.uint8 else 1)
    assert np.isfinite(intensity_statistics(pixels)).all()
    assert render(decoded).shape == (VIEW_SIZE, VIEW_SIZE)
    return decoded


def _manifest_reader(folder: Path) -> Reader:
    inside = folder / "data"
    (inside / "folder").mkdir(parents=True)
    for name in ("a.png", "b.png", "=1.png", "../outside.png"):
        (inside / name).write_bytes(b"")
    (inside / "link.png").symlink_to("../outside.png")
    return partial(_read_manifest, inside / "manifest.csv")


def _read_manifest(path: Path, data: bytes) -> Catalog:
    path.write_bytes(data)
    catalog = read_catalog(path)
    for image in catalog.images:
        real = Path(os.path.realpath(image.path))
        assert real.is_file(), image.path
        assert real.is_relative_to(os.path.realpath(path.parent)), image.path
    return catalog


def _results_reader(folder: Path) -> Reader:
    from gelkit.heads.results import read_results

    return partial(_read_file, folder / "results.csv", read_results)


def _read_file(path: Path, read: Callable[[Path], Any], data: bytes) -> Any:
    path.write_bytes(data)
    return read(path)


def _failures_reader(folder: Path) -> Reader:
    from gelkit.features.cache import Cache
    from tests.features.made_up import RECIPE

    cache = Cache(folder, RECIPE)
    cache.folder.mkdir()
    return partial(_read_file, cache.failures_file, lambda _: cache.list_failures())


def _cache_reader(folder: Path) -> Reader:
    """Return what reads a shard that was damaged after it had got its name."""
    from gelkit.features.cache import Cache
    from gelkit.features.shards import file_name
    from tests.features.made_up import RECIPE, numbers_in

    cache = Cache(folder, RECIPE)
    cache.folder.mkdir()
    shard = cache.folder / file_name("1", corpus.shards()[-1])
    return partial(_read_file, shard, lambda _: numbers_in(cache))


def _shard_reader(folder: Path) -> Reader:
    """Return what reads a shard whose name was made from its bytes: by hand, to do harm."""
    from gelkit.features.shards import read
    from tests.features.made_up import RECIPE

    def read_named(data: bytes) -> Any:
        path = folder / f"shard-1-{hashlib.sha256(data).hexdigest()[:12]}.h5"
        path.write_bytes(data)
        try:
            return read(path, RECIPE)
        finally:
            path.unlink()

    return read_named


def _image(files: Callable[[], Sequence[bytes]], changes: tuple[Mutation, ...]) -> Target:
    return Target(files, changes, _decoder, agreement.opinion)


_HDF5 = (
    "HDF5 hangs or crashes on some damage; a shard is opened only if its bytes are those that its "
    "name was made from, so that only a hand that names a shard anew can bring it to that"
)

TARGETS = {
    "TIFF": _image(corpus.plain_tiffs, mutations.TIFF),
    "TIFF, compressed": _image(corpus.compressed_tiffs, mutations.TIFF),
    "TIFF of pages": _image(corpus.paged_tiffs, mutations.TIFF),
    "gel": _image(corpus.gels, mutations.TIFF),
    "1sc": _image(corpus.scans_1sc, mutations.GENERIC),
    "scn": _image(corpus.scans_scn, mutations.TEXT),
    "PNG": _image(corpus.pngs, mutations.PNG),
    "JPEG": _image(corpus.jpegs, mutations.JPEG),
    "GIF": _image(corpus.gifs, mutations.GENERIC),
    "BMP": _image(corpus.bmps, mutations.GENERIC),
    "WebP": _image(corpus.webps, mutations.GENERIC),
    "JPEG 2000, AVIF, HEIC": Target(corpus.shared_pictures, mutations.GENERIC, _decoder),
    "other formats": _image(corpus.others, mutations.GENERIC),
    "manifest": Target(lambda: corpus.MANIFESTS, mutations.TEXT, _manifest_reader),
    "results": Target(corpus.results, mutations.TEXT, _results_reader),
    "failures": Target(corpus.failures, mutations.TEXT, _failures_reader),
    "cache": Target(corpus.shards, mutations.GENERIC, _cache_reader),
    "shard": Target(corpus.shards, mutations.GENERIC, _shard_reader, excuse=_HDF5),
}
"""By name. ``cache`` is damaged before the check of shards' names, ``shard`` behind it."""
