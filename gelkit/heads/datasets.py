"""Data sets: the embeddings that configurations are compared on, grouped and split."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import load
from gelkit.features.planning import (
    Identified,
    MissingEmbeddingsError,
    features_command,
    identify,
    plan,
)
from gelkit.features.recipe import RecipeOptions
from gelkit.heads.configurations import Configuration
from gelkit.heads.splits import Folds, group_images, make_splits, splits_fingerprint
from gelkit.heads.training import Settings
from gelkit.images.catalog import Catalog

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """The images that are compared on, and how they are split."""

    embeddings: Mapping[tuple[str, str], Embeddings]
    """By backbone and hardware; all of the same images."""
    groups: npt.NDArray[np.int64]
    splits: Folds
    options: RecipeOptions
    settings: Settings

    @property
    def any(self) -> Embeddings:
        """The embeddings of one pair, for what is the same for all."""
        return next(iter(self.embeddings.values()))

    @property
    def fingerprint(self) -> str:
        """As of :func:`dataset_fingerprint`."""
        return dataset_fingerprint(self.any)

    @property
    def splits_fingerprint(self) -> str:
        """As of :func:`gelkit.heads.splits.splits_fingerprint`."""
        return splits_fingerprint(self.splits, self.any.sha256s)


def dataset_fingerprint(embeddings: Embeddings) -> str:
    """Return the SHA-256 over which images have which label, whatever their order and names."""
    pairs = zip(embeddings.sha256s, embeddings.labels, strict=True)
    return sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


def warn_of_failures(embeddings: Embeddings) -> None:
    """Log which images take no part because stage one could not read them."""
    if embeddings.failures:
        logger.warning(
            "%d images could not be read and take no part: %s",
            len(embeddings.failures),
            "; ".join(f"{failure.name}: {failure.error}" for failure in embeddings.failures),
        )


def load_dataset(
    catalog: Catalog,
    configurations: Sequence[Configuration],
    cache: Path,
    options: RecipeOptions,
    settings: Settings,
) -> Dataset:
    """Load the embeddings that are cached for configurations, group the images, and split them.

    :raises UsageError: images that failed for some configurations only, equal bytes under two
        labels, too few images for the folds.
    :raises MissingEmbeddingsError: no configuration has cached embeddings.
    """
    pairs = list(dict.fromkeys((c.backbone, c.hardware) for c in configurations))
    identified = identify(catalog, cache)
    options, embeddings = _load_available(identified, pairs, cache, options)
    first = next(iter(embeddings.values()))
    warn_of_failures(first)
    for pair, other in embeddings.items():
        if other.sha256s != first.sha256s:
            raise UsageError(
                f"Expected the same images for all configurations. Received: {len(first)} for "
                f"{first.recipe.folder_name} and {len(other)} for {other.recipe.folder_name}: some "
                f"failed in one of them. Try those again: gelkit features DATA "
                f"--backbone {pair[0]} --hardware {pair[1]}"
            )
    groups = group_images(first)
    splits = make_splits(
        first.targets,
        groups,
        first.classes,
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
    )
    return Dataset(embeddings, groups, splits, options, settings)


def _load_available(
    catalog: Identified, pairs: Sequence[tuple[str, str]], cache: Path, options: RecipeOptions
) -> tuple[RecipeOptions, Mapping[tuple[str, str], Embeddings]]:
    """Load what is cached completely, with the first of the weights that any pair is cached with.

    :returns: the options with those weights, and the embeddings by pair.
    """
    weights = ("imagenet", "random") if options.weights == "auto" else (options.weights,)
    for chosen in (replace(options, weights=name) for name in weights):
        available = _load_cached(catalog, pairs, cache, chosen)
        if available:
            if chosen.weights != weights[0]:
                logger.warning("weights auto: only embeddings of RANDOM weights are cached")
            _warn_of_missing([pair for pair in pairs if pair not in available], chosen, cache)
            return chosen, available
    backbone, hardware = pairs[0]
    first = replace(options, weights=weights[0])
    planned = plan(catalog, backbone=backbone, hardware=hardware, cache=cache, options=first)
    raise MissingEmbeddingsError(
        planned.cache.folder,
        len(planned.tasks),
        len(planned.catalog),
        features_command(pairs, options, cache),
    )


def _load_cached(
    catalog: Identified, pairs: Sequence[tuple[str, str]], cache: Path, options: RecipeOptions
) -> dict[tuple[str, str], Embeddings]:
    cached: dict[tuple[str, str], Embeddings] = {}
    for backbone, hardware in pairs:
        with suppress(MissingEmbeddingsError):
            cached[backbone, hardware] = load(
                catalog, backbone=backbone, hardware=hardware, cache=cache, options=options
            )
    return cached


def _warn_of_missing(
    missing: Sequence[tuple[str, str]], options: RecipeOptions, cache: Path
) -> None:
    for hardware in dict.fromkeys(hardware for _, hardware in missing):
        absent = [pair for pair in missing if pair[1] == hardware]
        logger.warning(
            "left out, since their embeddings are not cached: %s on %s. Compute them with: %s",
            ", ".join(backbone for backbone, _ in absent),
            hardware,
            features_command(absent, options, cache),
        )


def decisive(options: RecipeOptions) -> RecipeOptions:
    """Return options without those that may differ within one table of results."""
    return replace(options, emulate_tpu=False, weights_dir=None)
