"""Plans: what stage one has yet to do, found out before a backbone is touched."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gelkit.errors import GelkitError
from gelkit.features.backbones import get_backbone
from gelkit.features.cache import Cache, Failure
from gelkit.features.engines import Task, decoder_version
from gelkit.features.recipe import Recipe, RecipeOptions, make_recipe
from gelkit.features.weights import WeightsError, find_weights
from gelkit.images.catalog import Catalog
from gelkit.images.fingerprints import Fingerprints
from gelkit.progress import Progress, reported, silent

logger = logging.getLogger(__name__)

_FINGERPRINTS_FILE = "fingerprints.json"


class MissingEmbeddingsError(GelkitError):
    """Embeddings were asked for that stage one has not made yet."""

    def __init__(self, folder: Path, missing: int, total: int, command: str) -> None:
        super().__init__(
            f"Expected {folder} to hold the embeddings of {total} images. Received: {missing} of "
            f"them are missing. Compute them first: {command}"
        )


@dataclass(frozen=True)
class Plan:
    """What stage one has to do, known before a backbone is touched."""

    catalog: Catalog
    cache: Cache
    sha256s: tuple[str | None, ...]
    """For each image of the catalog; None for a file that cannot be read."""
    tasks: tuple[Task, ...]
    """The distinct images that are not in the cache."""
    failures: tuple[Failure, ...]
    """Images that cannot be read, or are known to fail."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that the embeddings are made by."""
        return self.cache.recipe

    @property
    def bytes_to_write(self) -> int:
        """About what the new embeddings take on the disk."""
        return len(self.tasks) * (4 * get_backbone(self.recipe.backbone).width + 300)

    @property
    def seconds_to_compute(self) -> float:
        """A rough guess: 60 GFLOP/s a core, 30 ms an image to decode; XLA compiles for 10 s."""
        operations = 2 * get_backbone(self.recipe.backbone).giga_operations
        start = 10 if self.tasks and self.recipe.hardware.startswith("tpu") else 0
        return start + len(self.tasks) * (operations / 60 + 0.03) / (os.cpu_count() or 1)


def plan(
    catalog: Catalog,
    *,
    backbone: str = "resnet18",
    hardware: str = "cpu",
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    progress: Progress = silent,
) -> Plan:
    """Find out which images of a catalog stage one has yet to embed.

    Reads the bytes of images it does not know yet, to identify them. Imports no torch.

    :raises UsageError: an unknown backbone, hardware or option.
    :raises CacheError: the cache is damaged or of another recipe.
    """
    opened = Cache(Path(cache), make_recipe(backbone, hardware, options))
    sha256s, unreadable = _identify(catalog, Path(cache), progress)
    done = {sha256 for sha256, view in opened.identities() if view == 0}
    known = {
        sha256: failure
        for sha256, failure in opened.failures().items()
        if not failure.retry and failure.decoder == decoder_version()
    }
    tasks: dict[str, Task] = {}
    failed = []
    for image, digest in zip(catalog.images, sha256s, strict=True):
        if digest is None or digest in done:
            continue
        if digest in known:
            failed.append(replace(known[digest], name=image.name))
        else:
            tasks.setdefault(digest, Task(image.path, image.name, digest))
    return Plan(catalog, opened, sha256s, tuple(tasks.values()), (*unreadable, *failed))


def choose_weights(
    catalog: Catalog,
    pairs: Sequence[tuple[str, str]],
    *,
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    download: bool = True,
) -> RecipeOptions:
    """Resolve the weights ``auto``, once for all (backbone, hardware) pairs of a run.

    What is cached completely wins, ``imagenet`` before ``random``; otherwise ``imagenet`` if it
    can be had for all of the backbones. Falling back to ``random`` is logged as a warning.

    :param download: try to have the weights; if not, an incomplete cache is an error.
    :raises MissingEmbeddingsError: neither is cached completely, and ``download`` is false.
    """
    options = options or RecipeOptions(weights="auto")
    if options.weights != "auto":
        return options
    if _is_cached(catalog, pairs, cache, replace(options, weights="imagenet")):
        return replace(options, weights="imagenet")
    if _is_cached(catalog, pairs, cache, replace(options, weights="random")):
        logger.warning("weights auto: what is cached are embeddings of RANDOM weights; using them")
        return replace(options, weights="random")
    if not download:
        raise MissingEmbeddingsError(
            Path(cache), len(catalog), len(catalog), features_command(pairs, options)
        )
    return replace(options, weights=_weights_to_be_had(pairs, options))


def features_command(pairs: Sequence[tuple[str, str]], options: RecipeOptions) -> str:
    """Return the command that makes the embeddings of (backbone, hardware) pairs."""
    given = {
        "--backbone": dict.fromkeys(backbone for backbone, _ in pairs),
        "--hardware": dict.fromkeys(hardware for _, hardware in pairs),
    }
    words = ["gelkit features DATA"]
    words += [f"{option} {value}" for option, values in given.items() for value in values]
    default = RecipeOptions()
    words += [
        f"--{field.name.replace('_', '-')} {getattr(options, field.name)}"
        for field in fields(options)
        if field.name != "emulate_tpu"
        and getattr(options, field.name) != getattr(default, field.name)
    ]
    words += ["--emulate-tpu"] if options.emulate_tpu and "tpu" in given["--hardware"] else []
    return " ".join(words)


def _is_cached(
    catalog: Catalog, pairs: Sequence[tuple[str, str]], cache: str | Path, options: RecipeOptions
) -> bool:
    return not any(
        plan(catalog, backbone=backbone, hardware=hardware, cache=cache, options=options).tasks
        for backbone, hardware in pairs
    )


def _weights_to_be_had(pairs: Sequence[tuple[str, str]], options: RecipeOptions) -> str:
    try:
        for backbone in dict.fromkeys(backbone for backbone, _ in pairs):
            find_weights(get_backbone(backbone), "imagenet", options.weights_dir)
    except WeightsError as error:
        logger.warning(
            "weights auto: using RANDOM weights for all backbones, which says nothing of transfer "
            "learning, because the ImageNet weights cannot be had. %s",
            error,
        )
        return "random"
    return "imagenet"


def _identify(
    catalog: Catalog, root: Path, progress: Progress
) -> tuple[tuple[str | None, ...], list[Failure]]:
    fingerprints = Fingerprints(root / _FINGERPRINTS_FILE)
    sha256s: list[str | None] = []
    unreadable = []
    for image in reported(catalog.images, "identify images", len(catalog), progress):
        try:
            sha256s.append(fingerprints.sha256(image.path))
        except OSError as error:
            sha256s.append(None)
            reason = f"cannot be read: {error.strerror}"
            unreadable.append(Failure(image.name, "", reason, retry=True))
    fingerprints.save()
    return tuple(sha256s), unreadable
