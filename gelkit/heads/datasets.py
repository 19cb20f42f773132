"""Data sets: the embeddings that configurations are compared on, grouped and split."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np

from gelkit.errors import UsageError
from gelkit.features.advice import missing_embeddings, say_how
from gelkit.features.auto_weights import PRETRAINED, RANDOM
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import load
from gelkit.features.planning import (
    Identified,
    MissingEmbeddingsError,
    identify,
    plan,
)
from gelkit.features.recipe import RecipeOptions
from gelkit.heads.configurations import Configuration
from gelkit.heads.grouping import Groups, group_images, require_splittable
from gelkit.heads.sources import SourceSplits, split_by_source
from gelkit.heads.splits import LEFT_OUT, Folds, make_splits, splits_fingerprint
from gelkit.heads.training import Settings
from gelkit.images.catalog import Catalog
from gelkit.progress import Progress, silent
from gelkit.text import counted, listed, quoted, shown

logger = logging.getLogger(__name__)


Key = TypeVar("Key")


@dataclass(frozen=True)
class Dataset:
    """The images that are compared on, and how they are split."""

    embeddings: Mapping[tuple[str, str], Embeddings]
    """By backbone and hardware; all of the same images."""
    groups: Groups
    splits: Folds
    """Of the cross-validation."""
    sources: SourceSplits | None
    """Those that hold out each source, if there are several."""
    options: Mapping[str, RecipeOptions]
    """How the embeddings of each backbone are made."""
    settings: Settings

    @property
    def any(self) -> Embeddings:
        """The embeddings of one pair, for what is the same for all."""
        return next(iter(self.embeddings.values()))

    @property
    def positive(self) -> int | None:
        """The number of the positive class, if one is named."""
        return positive_class(self.any.classes, self.settings.positive)

    @property
    def all_splits(self) -> Folds:
        """The cross-validation's and, as one repeat more, those that hold out each source."""
        if self.sources is None:
            return self.splits
        held_out = np.full((1, len(self.any)), LEFT_OUT)
        held_out[:, self.sources.kept] = self.sources.folds
        return np.concatenate([self.splits, held_out])

    @property
    def fingerprint(self) -> str:
        """As of :func:`dataset_fingerprint`."""
        return dataset_fingerprint(self.any)

    @property
    def splits_fingerprint(self) -> str:
        """As of :func:`gelkit.heads.splits.splits_fingerprint`, of all splits."""
        return splits_fingerprint(self.all_splits, self.any.sha256s)


def positive_class(classes: Sequence[str], name: str) -> int | None:
    """Return the number of the class that is named positive; None if none is.

    :raises UsageError: there are more than two classes, or none of that name.
    """
    if not name:
        return None
    if len(classes) != 2 or name not in classes:
        raise UsageError(
            f"Expected as --positive one of two classes. Received: {name!r} and the classes "
            f"{', '.join(map(quoted, classes))}. Leave it out for means over the classes."
        )
    return list(classes).index(name)


def dataset_fingerprint(embeddings: Embeddings) -> str:
    """Return the SHA-256 over which images have which label, whatever their order and names."""
    pairs = zip(embeddings.sha256s, embeddings.labels, strict=True)
    return sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


def warn_of_failures(embeddings: Embeddings) -> None:
    """Log which images take no part because stage one could not read them, a line for each."""
    if embeddings.failures:
        logger.warning(
            "left out: %s that could not be read:\n%s",
            counted(len(embeddings.failures), "image"),
            listed([f"{shown(its.name)}: {shown(its.error)}" for its in embeddings.failures]),
        )


def load_dataset(
    catalog: Catalog,
    configurations: Sequence[Configuration],
    cache: Path,
    options: RecipeOptions,
    settings: Settings,
    progress: Progress = silent,
) -> Dataset:
    """Load the embeddings that are cached for configurations, group the images, and split them.

    Images that failed for some configurations take no part in any, and are logged as a warning.

    :raises UsageError: images of one group have two labels, or there are too few groups for the
        folds.
    :raises MissingEmbeddingsError: no configuration has cached embeddings.
    """
    pairs = list(dict.fromkeys((c.backbone, c.hardware) for c in configurations))
    identified = identify(catalog, cache, begins_cache=False)
    by_backbone, embeddings = _load_available(identified, pairs, cache, options)
    embeddings = in_common(embeddings)
    first = next(iter(embeddings.values()))
    positive_class(first.classes, settings.positive)  # before anything takes time
    warn_of_failures(first)
    groups = group_images(first, find_near_duplicates=settings.near_duplicates, progress=progress)
    require_splittable(first, groups, settings.folds)
    splits = make_splits(
        first.targets,
        groups,
        first.classes,
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
    )
    sources = _split_by_source(first, groups)
    return Dataset(embeddings, groups, splits, sources, by_backbone, settings)


def _split_by_source(embeddings: Embeddings, groups: Groups) -> SourceSplits | None:
    """Hold out each source, if the catalog names several; what stands against it is logged."""
    sources = [image.source for image in embeddings.images]
    if not any(sources):
        return None
    try:
        return split_by_source(sources, embeddings.targets, groups, embeddings.classes)
    except UsageError as error:
        logger.warning("no source is held out. %s", error)
        return None


def in_common(embeddings: Mapping[Key, Embeddings]) -> dict[Key, Embeddings]:
    """Return the embeddings of the images that all have; the others are logged as a warning."""
    common = set.intersection(*(set(its.sha256s) for its in embeddings.values()))
    taken = {}
    for key, its in embeddings.items():
        kept = np.flatnonzero([digest in common for digest in its.sha256s])
        if len(kept) < len(its):
            left_out = [its.names[i] for i in range(len(its)) if its.sha256s[i] not in common]
            logger.warning(
                "left out: %s that failed for another recipe than %s:\n%s",
                counted(len(left_out), "image"),
                its.recipe.folder_name,
                listed([shown(name) for name in left_out]),
            )
        taken[key] = its.take(kept)
    return taken


def _load_available(
    catalog: Identified, pairs: Sequence[tuple[str, str]], cache: Path, options: RecipeOptions
) -> tuple[Mapping[str, RecipeOptions], Mapping[tuple[str, str], Embeddings]]:
    """Load what is cached completely, of each backbone with the first weights that it is cached by.

    :returns: the options of each backbone, with those weights, and the embeddings by pair.
    """
    weights = (PRETRAINED, RANDOM) if options.weights == "auto" else (options.weights,)
    chosen: dict[str, RecipeOptions] = {}
    available: dict[tuple[str, str], Embeddings] = {}
    for backbone in dict.fromkeys(backbone for backbone, _ in pairs):
        own = [pair for pair in pairs if pair[0] == backbone]
        for named in (replace(options, weights=name) for name in weights):
            cached = _load_cached(catalog, own, cache, named)
            if cached:
                chosen[backbone] = named
                available |= cached
                break
    if not available:
        backbone, hardware = pairs[0]
        first = replace(options, weights=weights[0])
        planned = plan(catalog, backbone=backbone, hardware=hardware, cache=cache, options=first)
        raise missing_embeddings(planned, pairs, options)
    _warn_of_random([name for name, its in chosen.items() if its.weights != weights[0]])
    missing = [pair for pair in pairs if pair not in available]
    _warn_of_missing(missing, options, cache, catalog.catalog.given)
    return chosen, {pair: available[pair] for pair in pairs if pair in available}


def _warn_of_random(backbones: Sequence[str]) -> None:
    if backbones:
        logger.warning(
            "weights auto: of %s only embeddings of RANDOM weights are cached", ", ".join(backbones)
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
    missing: Sequence[tuple[str, str]],
    options: RecipeOptions,
    cache: Path,
    given: Sequence[str],
) -> None:
    for hardware in dict.fromkeys(hardware for _, hardware in missing):
        absent = [pair for pair in missing if pair[1] == hardware]
        logger.warning(
            "left out, since their embeddings are not cached: %s on %s. %s",
            ", ".join(backbone for backbone, _ in absent),
            hardware,
            say_how(absent, options, cache, given),
        )


def decisive(options: RecipeOptions) -> RecipeOptions:
    """Return options without those that may differ from hardware to hardware."""
    return replace(options, emulate_tpu=False, weights_dir=None)
