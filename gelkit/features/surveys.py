"""Surveys: what is in a catalog and how it is read, before anything is computed of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from gelkit.features.cache import Failure
from gelkit.features.engines import run_workers
from gelkit.features.recipe import RecipeOptions
from gelkit.features.workers import Inspection, Rendering, Task
from gelkit.images.catalog import Catalog
from gelkit.images.formats import Limits
from gelkit.images.inspection import Inspected
from gelkit.images.views import require_view_options
from gelkit.processes import usable_cores
from gelkit.progress import Progress, silent

_WHAT = "look at images"


@dataclass(frozen=True)
class Survey:
    """What was found, in the catalog's order."""

    images: tuple[Inspected, ...]
    failures: tuple[Failure, ...]


def survey(
    catalog: Catalog,
    options: RecipeOptions | None = None,
    *,
    limits: Limits | None = None,
    with_pictures: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Survey:
    """Read and decode every image as stage one would, in processes that can be killed.

    :param options: of which those that concern reading and showing images count.
    :param limits: what one image may ask for.
    :param with_pictures: keep a small picture of each image, and its view.
    :param workers: processes; default: one for each core.
    :raises UsageError: options that stage one would refuse.
    """
    options = options or RecipeOptions()
    require_view_options(options.geometry, options.window)
    rendering = Rendering(
        options.geometry, options.window, decoding=options.decoding, limits=limits or Limits()
    )
    tasks = [
        Task(image.path, image.name, sha256="", page=image.page, channel=image.channel)
        for image in catalog.images
    ]
    images: list[Inspected] = []
    failures = [Failure(its.name, "", its.reason, retry=True) for its in catalog.unreadable]
    num_unreadable = len(failures)
    inspection = Inspection(rendering, with_pictures)
    with closing(run_workers(tasks, inspection, workers or usable_cores())) as batches:
        for batch in batches:
            images += batch.inspected
            failures += batch.failures
            progress(_WHAT, len(images) + len(failures) - num_unreadable, len(tasks))
    names = [*(its.name for its in catalog.images), *(its.name for its in catalog.unreadable)]
    places = {name: place for place, name in enumerate(names)}
    return Survey(
        tuple(sorted(images, key=lambda image: places[image.name])),
        tuple(sorted(failures, key=lambda failure: places[failure.name])),
    )
