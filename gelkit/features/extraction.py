"""Stage one: pass every image once through a frozen backbone, and keep the embeddings."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import gelkit
from gelkit.errors import GelkitError
from gelkit.features.backbones import freeze, get_backbone
from gelkit.features.cache import Cache, Failure
from gelkit.features.devices import Device, open_device
from gelkit.features.embeddings import Embeddings
from gelkit.features.engines import Rendering, decoder_version, embed_locally
from gelkit.features.planning import MissingEmbeddingsError, Plan, features_command, plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.shards import CacheError, Rows, concatenate
from gelkit.features.weights import load_weights
from gelkit.images.catalog import Catalog
from gelkit.progress import Progress, silent

DEFAULT_BATCH_SIZE = 16

_PUBLISH_SECS = 60.0
_PUBLISH_BYTES = 2**26


def extract(
    catalog: Catalog,
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Progress = silent,
) -> Embeddings:
    """Return a catalog's embeddings, computing and keeping those that the cache lacks.

    With everything cached this imports no torch and needs no weights. An interruption loses no
    batch that was finished.

    :param hardware: ``cpu``, ``tpu`` or ``cuda``.
    :param cache: the folder that holds the caches of all recipes.
    :raises UsageError: an unknown backbone, hardware or option.
    :raises WeightsError: the weights cannot be had, or are not what they are called.
    :raises DeviceError: the hardware is not there.
    :raises CacheError: the cache is damaged, of another recipe, or cannot be written.
    """
    planned = plan(
        catalog,
        backbone=backbone,
        hardware=hardware,
        cache=cache,
        options=options,
        progress=progress,
    )
    return carry_out(planned, options=options, batch_size=batch_size, progress=progress)


def carry_out(
    planned: Plan,
    *,
    options: RecipeOptions | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Progress = silent,
) -> Embeddings:
    """Compute what a plan lacks, with the options it was made with; see :func:`extract`."""
    new_failures: list[Failure] = []
    if planned.tasks:
        device, provenance = _prepare(planned, options or RecipeOptions(), batch_size)
        new_failures = _compute(planned, device, provenance, batch_size, progress)
    return _assemble(planned, new_failures)


def load(
    catalog: Catalog,
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    progress: Progress = silent,
) -> Embeddings:
    """Return a catalog's embeddings from the cache alone.

    :raises MissingEmbeddingsError: some are not there; the message names the command.
    :raises UsageError: an unknown backbone, hardware or option.
    :raises CacheError: the cache is damaged or of another recipe.
    """
    planned = plan(
        catalog,
        backbone=backbone,
        hardware=hardware,
        cache=cache,
        options=options,
        progress=progress,
    )
    if planned.tasks:
        command = features_command([(backbone, hardware)], options or RecipeOptions())
        raise MissingEmbeddingsError(
            planned.cache.folder, len(planned.tasks), len(catalog), command
        )
    return _assemble(planned, [])


def _prepare(
    planned: Plan, options: RecipeOptions, batch_size: int
) -> tuple[Device, Mapping[str, Any]]:
    recipe = planned.recipe
    device = open_device(recipe.hardware)  # before the weights: it is the quicker to refuse
    row = get_backbone(recipe.backbone)
    model, weights = load_weights(row, options.weights, options.weights_seed, options.weights_dir)
    earlier = planned.cache.weights_sha256()
    if earlier not in (None, weights):
        raise CacheError(
            f"Expected the weights file that made {planned.cache.folder} (SHA-256 {earlier}). "
            f"Received: another with the same first digits ({weights}). One of the two is not "
            "torchvision's: find out which, and delete it and what it made."
        )
    device.prepare(freeze(model, row), batch_size)
    provenance = {
        "gelkit": gelkit.__version__,
        "device": device.name,
        "versions": device.versions() | {"decoder": decoder_version()},
        "weights_sha256": weights,
        "batch_size": batch_size,
        "host": platform.node(),
    }
    return device, provenance


def _compute(
    planned: Plan,
    device: Device,
    provenance: Mapping[str, Any],
    batch_size: int,
    progress: Progress,
) -> list[Failure]:
    recipe, tasks = planned.recipe, planned.tasks
    rendering = Rendering(recipe.geometry, recipe.window)
    what = f"{recipe.backbone} on {recipe.hardware}"
    failures: list[Failure] = []
    progress(what, 0, len(tasks))
    done = 0
    with _publishing(planned.cache) as unpublished:
        batches = embed_locally(tasks, device, rendering, batch_size, provenance)
        for rows, failed in batches:
            if rows is not None:
                unpublished.add(rows)
            failures += failed
            done += len(failed) + (0 if rows is None else len(rows))
            progress(what, done, len(tasks))
    planned.cache.record_failures(failures)
    planned.cache.compact()
    return failures


class _Unpublished:
    """Finished rows on their way to the cache: published every minute, or 64 MB."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._rows: list[Rows] = []
        self._since = time.monotonic()

    def add(self, rows: Rows) -> None:
        self._rows.append(rows)
        size = sum(piece.columns["embedding"].nbytes for piece in self._rows)
        if size >= _PUBLISH_BYTES or time.monotonic() - self._since >= _PUBLISH_SECS:
            self.publish()

    def publish(self) -> None:
        rows, self._rows = self._rows, []
        self._since = time.monotonic()
        if rows:
            self._cache.publish(concatenate(rows))


@contextmanager
def _publishing(cache: Cache) -> Iterator[_Unpublished]:
    """Publish what is left however the work ends, Ctrl-C included."""
    unpublished = _Unpublished(cache)
    try:
        yield unpublished
    finally:
        unpublished.publish()


def _assemble(planned: Plan, new_failures: Sequence[Failure]) -> Embeddings:
    failed = {failure.sha256 for failure in (*planned.failures, *new_failures)}
    kept = [
        (image, sha256)
        for image, sha256 in zip(planned.catalog.images, planned.sha256s, strict=True)
        if sha256 is not None and sha256 not in failed
    ]
    if not kept:
        raise GelkitError(
            f"Expected at least one image that can be read. Received: {len(planned.catalog)} "
            f"images that failed, the first with: {(*planned.failures, *new_failures)[0].error}"
        )
    sha256s = tuple(sha256 for _, sha256 in kept)
    rows = planned.cache.read(sha256s)
    origins = {rows.provenance[i]["device"] for i in set(rows.columns["provenance"].tolist())}
    return Embeddings(
        values=rows.columns["embedding"],
        images=tuple(image for image, _ in kept),
        sha256s=sha256s,
        recipe=planned.recipe,
        device="; ".join(sorted(origins)),
        extraction_secs=float(rows.columns["extraction_secs"].sum(dtype=np.float64)),
        failures=(*planned.failures, *new_failures),
    )
