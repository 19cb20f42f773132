"""Plans: what stage one has yet to do, found out before a backbone is touched."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gelkit.errors import GelkitError, UsageError
from gelkit.features.backbones import get_backbone
from gelkit.features.cache import Cache, Failure
from gelkit.features.recipe import Recipe, RecipeOptions, make_recipe
from gelkit.features.workers import Task, decoder_within
from gelkit.images.catalog import Catalog
from gelkit.images.fingerprints import Fingerprints
from gelkit.images.formats import Limits
from gelkit.images.reading import read_ahead, why_unread
from gelkit.images.shares import Share
from gelkit.paths import as_path
from gelkit.processes import usable_cores
from gelkit.progress import Progress, reported, silent


class MissingEmbeddingsError(GelkitError):
    """Embeddings were asked for that stage one has not made yet."""


@dataclass(frozen=True)
class Identified:
    """A catalog whose images are known by their bytes."""

    catalog: Catalog
    sha256s: tuple[str | None, ...]
    """For each image of the catalog, as of :func:`gelkit.images.catalog.image_identity`; None for
    one whose file cannot be read."""
    failures: tuple[Failure, ...]
    """The images whose file cannot be read."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of the file of each page or channel that the catalog names, by its own."""
    share: Share | None = None
    """Of a larger catalog: what is remembered of it goes into files of the share's own."""


@dataclass(frozen=True)
class Plan:
    """What stage one has to do, known before a backbone is touched."""

    identified: Identified
    cache: Cache
    tasks: tuple[Task, ...]
    """The distinct images of which the cache lacks views, and which."""
    failures: tuple[Failure, ...]
    """Images that cannot be read, or are known to fail."""
    tried: tuple[Failure, ...] = ()
    """Images among the tasks that an earlier run tried in vain, and that may do another time."""

    @property
    def missing(self) -> tuple[Task, ...]:
        """The tasks that no run has tried: those that failed must not be waited for for ever."""
        tried = {failure.sha256 for failure in self.tried}
        return tuple(task for task in self.tasks if task.sha256 not in tried)

    @property
    def catalog(self) -> Catalog:
        """The images that embeddings are wanted of."""
        return self.identified.catalog

    @property
    def recipe(self) -> Recipe:
        """The recipe that the embeddings are made by."""
        return self.cache.recipe

    @property
    def num_views(self) -> int:
        """How many views there are to embed."""
        return sum(len(task.views) for task in self.tasks)

    @property
    def bytes_to_write(self) -> int:
        """About what the new embeddings take on the disk."""
        return self.num_views * (4 * get_backbone(self.recipe.backbone).width + 300)

    @property
    def seconds_to_compute(self) -> float:
        """A rough guess: 5 s to start, 10 with XLA, 100 GFLOP/s a core, 8 ms an image to decode."""
        row = get_backbone(self.recipe.backbone)
        pixels = (self.recipe.view_size / row.preprocessing.input_size) ** 2
        operations = 2 * row.giga_operations * pixels
        start = 10 if self.recipe.hardware.startswith("tpu") else 5
        seconds = self.num_views * operations / 100 + len(self.tasks) * 0.008
        return start + seconds / usable_cores()


def identify(
    catalog: Catalog | Identified,
    cache: str | Path = "features",
    *,
    limits: Limits | None = None,
    verify: bool = False,
    share: Share | None = None,
    begins_cache: bool = True,
    progress: Progress = silent,
) -> Identified:
    """Tell a catalog's images by their files' bytes; of known files without reading them.

    :param limits: of which that of bytes counts, for files that are not known yet.
    :param verify: read every file, even those whose size, time and inode are as remembered.
    :param share: of the catalog, and all that is identified; None: the whole.
    :param begins_cache: whether to remember them for another run where no cache is yet.
    """
    if isinstance(catalog, Identified):
        return catalog
    catalog = catalog if share is None else share.of(catalog)
    root = as_path(cache)
    remembers = begins_cache or root.is_dir()
    fingerprints = _fingerprints(root, share, trust=not verify) if remembers else Fingerprints()
    most = (limits or Limits()).bytes
    sha256s: list[str | None] = []
    files: dict[str, str] = {}
    unreadable = [Failure(its.name, "", its.reason, retry=True) for its in catalog.unreadable]
    try:
        told = read_ahead(
            partial(_sha256_or_error, fingerprints, most), [image.path for image in catalog.images]
        )
        images = reported(catalog.images, "identify images", len(catalog), progress)
        for image, file in zip(images, told, strict=True):
            if isinstance(file, OSError):
                sha256s.append(None)
                unreadable.append(Failure(image.name, "", why_unread(file), retry=True))
                continue
            sha256s.append(image.identity(file))
            if image.is_part:
                files[image.identity(file)] = file
    finally:
        fingerprints.save()
    return Identified(catalog, tuple(sha256s), tuple(unreadable), files, share)


def _sha256_or_error(fingerprints: Fingerprints, most: int, path: Path) -> str | OSError:
    try:
        return fingerprints.sha256(path, most)
    except OSError as error:
        return error


def _fingerprints(root: Path, share: Share | None, trust: bool) -> Fingerprints:
    """Return what is remembered of files: by a share in a file of its own."""
    whole = root / "fingerprints.json"
    if share is not None:
        return Fingerprints(root / f"fingerprints{share.suffix}.json", [whole], trust=trust)
    return Fingerprints(whole, sorted(root.glob("fingerprints-*.json")), trust=trust)


def plan(
    catalog: Catalog | Identified,
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    views: Collection[int] = (0,),
    limits: Limits | None = None,
    progress: Progress = silent,
) -> Plan:
    """Find out which views of a catalog's images stage one has yet to embed.

    Reads the bytes of images it does not know yet, to identify them. Imports no torch.

    :param views: (0,), or numbers of augmented views, from 1.
    :param limits: what one image may ask for; with more memory, what failed is worth a try.
    :raises UsageError: an unknown backbone, hardware or option.
    :raises CacheError: the cache is damaged or of another recipe.
    """
    if not views or (0 in views and len(views) > 1):
        raise UsageError(
            f"Expected view 0 alone, or augmented views, whose cache is another. Received: "
            f"{', '.join(map(str, views)) or 'none'}. Make a plan for each."
        )
    recipe = make_recipe(backbone, hardware, options, augmented=0 not in views)
    limits = limits or Limits()
    identified = identify(catalog, cache, limits=limits, begins_cache=False, progress=progress)
    opened = Cache(Path(cache), recipe, identified.share)
    recorded = {failure.sha256 or failure.name: failure for failure in opened.list_failures()}
    decoder = decoder_within(limits)
    wanted: list[Task] = []
    failed: list[Failure] = []
    tried: list[Failure] = []
    for task in _lacking(identified, opened, views):
        failure = recorded.get(task.sha256) or recorded.get(task.name)
        is_final = failure is not None and not failure.retry and failure.decoder == decoder
        if failure is not None:
            its = replace(failure, name=task.name, sha256=task.sha256)
            (failed if is_final else tried).append(its)
        if not is_final:
            wanted.append(task)
    failures = (*identified.failures, *failed)
    return Plan(identified, opened, _distinct(wanted), failures, tuple(tried))


def _lacking(identified: Identified, cache: Cache, views: Collection[int]) -> Iterator[Task]:
    """Yield, for each image of which a cache lacks views, what there is to do."""
    done = cache.identities()
    for image, digest in zip(identified.catalog.images, identified.sha256s, strict=True):
        missing = tuple(view for view in views if (digest, view) not in done)
        if digest is not None and missing:
            yield Task(image.path, image.name, digest, missing, image.page, image.channel)


def _distinct(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Return one task for each image, to be read where its path is shortest.

    A limit of path length that one of several equal files is beyond is then none for the others.
    """
    chosen: dict[str, Task] = {}
    for task in tasks:
        known = chosen.setdefault(task.sha256, task)
        if len(os.fsencode(task.path)) < len(os.fsencode(known.path)):
            chosen[task.sha256] = task
    return tuple(chosen.values())
