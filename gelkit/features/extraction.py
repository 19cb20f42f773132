"""Stage one: pass every image once through a frozen backbone, and keep the embeddings."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np

import gelkit
from gelkit.errors import GelkitError, UsageError
from gelkit.features.advice import missing_embeddings, other_weights
from gelkit.features.backbones import get_backbone
from gelkit.features.cache import Cache, Failure
from gelkit.features.clusters import connected, run_on_ray
from gelkit.features.embeddings import Embeddings
from gelkit.features.engines import choose_decoders, choose_workers, run_workers
from gelkit.features.hardware import count_chips, require_hardware
from gelkit.features.planning import (
    Identified,
    Plan,
    identify,
    plan,
)
from gelkit.features.recipe import RecipeOptions
from gelkit.features.shards import CacheError, Rows, concatenate, to_strings
from gelkit.features.weights import find_weights
from gelkit.features.weights_files import WeightsError
from gelkit.features.workers import Batch, Rendering, Setup, Task
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.images.formats import Limits
from gelkit.progress import Progress, silent

logger = logging.getLogger(__name__)

_RECORDS = (
    "perceptual_hash",
    "height",
    "width",
    "bit_depth",
    "n_bytes",
    "format",
    "mode",
    "flags",
    "intensity",
)
"""The columns of a cache that embeddings bring along."""

_PUBLISH_SECS = 60.0
_PUBLISH_BYTES = 2**26

_BATCH_SIZES = {"cpu": 8, "tpu": 64, "tpu-emulated": 16, "cuda": 64}
"""What measured best on a core; on accelerators what a chip's memory holds with ease."""


@dataclass(frozen=True)
class Workforce:
    """How much of which machines stage one uses. Embeddings do not depend on it.

    The first two fields are processes (on a cluster: actors), and views that one embeds at once (of
    a TPU each chip); None lets it choose. Then what one image may ask for, and the engine:
    ``local``, or ``ray`` for a Ray cluster with its address; None for a Ray of this machine alone.
    """

    workers: int | None = None
    batch_size: int | None = None
    limits: Limits = field(default_factory=Limits)
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(
                f"Expected the engine {' or '.join(ENGINES)}. Received: {self.engine!r}."
            )
        if self.address is not None and self.engine != "ray":
            raise UsageError(
                f"Expected an address for the engine ray alone. Received: {self.address!r} for "
                f"{self.engine}. Add --engine ray, or leave the address out."
            )


def extract(
    catalog: Catalog | Identified | str | Path,
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    views: int = 1,
    workforce: Workforce | None = None,
    progress: Progress = silent,
) -> Embeddings:
    """Return a catalog's embeddings, computing and keeping those that the cache lacks.

    With everything cached this imports no torch and needs no weights. An interruption loses no
    batch that was finished. Where the cache may only be read, new embeddings are kept in a
    temporary folder for the time, with a warning.

    :param catalog: or the folder or manifest that :func:`gelkit.read_catalog` would read.
    :param hardware: ``cpu``, ``tpu`` or ``cuda``.
    :param cache: the folder that holds the caches of all recipes.
    :param views: how many views of each image to keep; those of view 0 are returned.
    :raises UsageError: an unknown backbone, hardware or option.
    :raises WeightsError: the weights cannot be had, or are not what they are called.
    :raises DeviceError: the hardware is not there.
    :raises CacheError: the cache is damaged, of another recipe, or cannot be written.
    """
    if isinstance(catalog, str | Path):
        catalog = read_catalog(catalog)
    workforce = workforce or Workforce()
    identified = identify(catalog, cache, limits=workforce.limits, progress=progress)
    plans = plan_views(
        identified,
        backbone=backbone,
        hardware=hardware,
        cache=cache,
        options=options,
        views=views,
        limits=workforce.limits,
    )
    with _writable(plans) as writable, standing_by(workforce, writable):
        failures = [
            carry_out(planned, options=options, workforce=workforce, progress=progress)
            for planned in writable
        ]
        return _assemble(writable[0], failures[0], view=0)


def plan_views(
    identified: Identified,
    *,
    backbone: str,
    hardware: str,
    cache: str | Path,
    options: RecipeOptions | None,
    views: int,
    limits: Limits,
) -> list[Plan]:
    """Plan the clean view, and, if more are wanted, the augmented ones.

    :raises UsageError: no view is wanted; or as of :func:`gelkit.features.planning.plan`.
    """
    if views < 1:
        raise UsageError(f"Expected at least 1 view. Received: {views}.")
    return [
        plan(
            identified,
            backbone=backbone,
            hardware=hardware,
            cache=cache,
            options=options,
            views=chosen,
            limits=limits,
        )
        for chosen in ((0,), tuple(range(1, views)))
        if chosen
    ]


@contextmanager
def standing_by(workforce: Workforce, plans: Sequence[Plan]) -> Iterator[None]:
    """Keep the connection of a workforce on a cluster from the first plan to the last.

    Otherwise :func:`carry_out` makes one for each.

    :raises GelkitError: there is something to do, and no cluster to do it on.
    """
    if workforce.engine == "ray" and any(planned.tasks for planned in plans):
        with connected(workforce.address, workforce.workers):
            yield
    else:
        yield


@contextmanager
def _writable(plans: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Let new embeddings be kept for the time where the cache may only be read."""
    if not any(planned.tasks and not planned.cache.may_change() for planned in plans):
        yield list(plans)
        return
    with TemporaryDirectory(prefix="gelkit-") as folder:
        logger.warning(
            "the cache %s may only be read: new embeddings are kept in %s until this is done, and "
            "computed again next time",
            plans[0].cache.folder.parent,
            folder,
        )
        yield [replace(planned, cache=planned.cache.adding_to(Path(folder))) for planned in plans]


def carry_out(
    planned: Plan,
    *,
    options: RecipeOptions | None = None,
    workforce: Workforce | None = None,
    progress: Progress = silent,
) -> tuple[Failure, ...]:
    """Compute what a plan lacks, with the options it was made with; see :func:`extract`.

    :returns: the images that have no embedding, those known before included.
    """
    if not planned.tasks:
        planned.cache.record_failures(planned.failures)
        planned.cache.compact()
        return planned.failures
    if not planned.cache.may_change():
        raise CacheError(
            f"Expected a folder that can be written, for {planned.num_views} new embeddings. "
            f"Received: {planned.cache.folder}, which may only be read. Choose another --cache; to "
            "use what this one holds as well, copy it there."
        )
    new = _compute(planned, options or RecipeOptions(), workforce or Workforce(), progress)
    return (*planned.failures, *new)


def _named(planned: Plan, failures: Sequence[Failure]) -> list[Failure]:
    """Return the failures of images under all their names: the same image has failed in each."""
    failed = {failure.sha256: failure for failure in failures}
    images = zip(planned.catalog.images, planned.identified.sha256s, strict=True)
    return [replace(failed[sha], name=image.name) for image, sha in images if sha in failed]


def load(
    catalog: Catalog | Identified | str | Path,
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    view: int = 0,
    progress: Progress = silent,
) -> Embeddings:
    """Return a catalog's embeddings from the cache alone; what failed has none.

    :param catalog: or the folder or manifest that :func:`gelkit.read_catalog` would read.
    :param view: 0 for the clean one; others if they were extracted.
    :raises MissingEmbeddingsError: some are not there; the message names the command.
    :raises UsageError: an unknown backbone, hardware or option.
    :raises CacheError: the cache is damaged or of another recipe.
    """
    if isinstance(catalog, str | Path):
        catalog = read_catalog(catalog)
    planned = plan(
        catalog,
        backbone=backbone,
        hardware=hardware,
        cache=cache,
        options=options,
        views=(view,),
        progress=progress,
    )
    if planned.missing:
        pairs = [(backbone, hardware)]
        raise missing_embeddings(planned, pairs, options or RecipeOptions(), view)
    return _assemble(planned, (*planned.failures, *planned.tried), view)


def _setup(planned: Plan, options: RecipeOptions, workforce: Workforce) -> Setup:
    recipe = planned.recipe
    if workforce.engine == "local":  # a cluster's nodes may have what is not here
        require_hardware(recipe.hardware, recipe.kernel)  # before the weights: quicker to refuse
    if options.weights != "random":
        _require_weights(planned, options)  # once, not in every worker
    return Setup(
        backbone=recipe.network,
        weights=options.weights,
        weights_seed=options.weights_seed,
        weights_dir=options.weights_dir,
        hardware=recipe.hardware,
        kernel=recipe.kernel,
        precision=recipe.precision,
        rendering=Rendering(
            recipe.geometry,
            recipe.window,
            recipe.view_size,
            recipe.interpolation,
            tuple(filter(None, recipe.augmentations.split(","))),
            recipe.decoding,
            workforce.limits,
        ),
        batch_size=count_chips(recipe.hardware)
        * (workforce.batch_size or _BATCH_SIZES[recipe.hardware]),
        decoders=choose_decoders(recipe.hardware),
        provenance={"gelkit": gelkit.__version__, "host": platform.node()},
    )


def _require_weights(planned: Plan, options: RecipeOptions) -> None:
    try:
        find_weights(get_backbone(planned.recipe.backbone), options.weights, options.weights_dir)
    except WeightsError as error:
        hint = other_weights(planned, options)
        if not hint:
            raise
        raise WeightsError(f"{error} {hint}") from error


def _embed_here(
    tasks: Sequence[Task], setup: Setup, workforce: Workforce
) -> Generator[Batch, None, None]:
    workers = choose_workers(setup.hardware, setup.backbone.parameters, workforce.workers)
    return run_workers(tasks, setup, workers)


def _embed_on_ray(
    tasks: Sequence[Task], setup: Setup, workforce: Workforce
) -> Generator[Batch, None, None]:
    return run_on_ray(tasks, setup, workforce.workers, workforce.address)


Engine: TypeAlias = Callable[[Sequence[Task], Setup, Workforce], Generator[Batch, None, None]]

ENGINES: Mapping[str, Engine] = {"local": _embed_here, "ray": _embed_on_ray}
"""What embeds a plan's images and yields them in batches, by the names that users give."""


def _compute(
    planned: Plan, options: RecipeOptions, workforce: Workforce, progress: Progress
) -> list[Failure]:
    recipe, tasks = planned.recipe, planned.tasks
    setup = _setup(planned, options, workforce)
    what = f"{recipe.backbone} on {recipe.hardware}"
    failures: list[Failure] = []
    views = {task.sha256: len(task.views) for task in tasks}
    embedded: set[str] = set()
    done, total = 0, planned.num_views
    progress(what, done, total)
    batches = ENGINES[workforce.engine](tasks, setup, workforce)
    try:
        with closing(batches), _publishing(planned.cache) as unpublished:
            for batch in batches:
                failures += batch.failures
                done += sum(views[failure.sha256] for failure in batch.failures)
                if batch.rows is not None:
                    unpublished.add(batch.rows)
                    done += len(batch.rows)
                    embedded.update(to_strings(batch.rows.columns["sha256"]))
                progress(what, done, total)
    finally:
        named = _named(planned, failures)
        planned.cache.record_failures([*planned.failures, *named], resolved=embedded)
    planned.cache.compact()
    return named


class _Unpublished:
    """Finished rows on their way to the cache: published every minute, or 64 MB."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._rows: list[Rows] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._weights = cache.weights_sha256()
        self._digits = cache.recipe.weights_sha256

    def add(self, rows: Rows) -> None:
        self._require_weights(str(rows.provenance[0]["weights_sha256"]))
        self._rows.append(rows)
        self._bytes += rows.columns["embedding"].nbytes
        if self._bytes >= _PUBLISH_BYTES or time.monotonic() - self._since >= _PUBLISH_SECS:
            self.publish()

    def publish(self) -> None:
        """Publish what there is. It is kept until it is published: Ctrl-C may come meanwhile."""
        if self._rows:
            self._cache.publish(concatenate(self._rows))
        self._rows, self._bytes = [], 0
        self._since = time.monotonic()

    def _require_weights(self, weights: str) -> None:
        if not weights.startswith(self._digits):
            raise CacheError(
                f"Expected weights whose SHA-256 begins with {self._digits}. Received: {weights}: "
                "the file was exchanged while it was in use. Run again."
            )
        if self._weights not in (None, weights) and not self._digits:
            raise CacheError(
                f"Expected the network that made {self._cache.folder} (SHA-256 of its state: "
                f"{self._weights}). Received: another ({weights}) under the same version. Register "
                "it under another version, or build it with the same weights every time."
            )
        if self._weights not in (None, weights):
            raise CacheError(
                f"Expected the weights file that made {self._cache.folder} (SHA-256 "
                f"{self._weights}). Received: another with the same first digits ({weights}). One "
                "of the two is not torchvision's: find out which, and delete it and what it made."
            )
        self._weights = weights


@contextmanager
def _publishing(cache: Cache) -> Iterator[_Unpublished]:
    """Publish what is left however the work ends, Ctrl-C and SIGTERM included."""
    unpublished = _Unpublished(cache)
    try:
        yield unpublished
    finally:
        unpublished.publish()


def _assemble(planned: Plan, failures: tuple[Failure, ...], view: int) -> Embeddings:
    failed = {failure.sha256 for failure in failures}
    kept = [
        (image, sha256)
        for image, sha256 in zip(planned.catalog.images, planned.identified.sha256s, strict=True)
        if sha256 is not None and sha256 not in failed
    ]
    if not planned.catalog.images:
        raise UsageError("Expected images. Received: a catalog without any.")
    if not kept:
        raise GelkitError(
            f"Expected at least one image that can be read. Received: {len(planned.catalog)} "
            f"images that failed, the first with: {failures[0].error}"
        )
    sha256s = tuple(sha256 for _, sha256 in kept)
    rows = planned.cache.read(sha256s, view)
    origins = {rows.provenance[i]["device"] for i in set(rows.columns["provenance"].tolist())}
    return Embeddings(
        values=rows.columns["embedding"],
        images=tuple(image for image, _ in kept),
        sha256s=sha256s,
        recipe=planned.recipe,
        device="; ".join(sorted(origins)),
        extraction_secs=float(rows.columns["extraction_secs"].sum(dtype=np.float64)),
        failures=failures,
        records={name: rows.columns[name] for name in _RECORDS},
        files=planned.identified.files,
    )
