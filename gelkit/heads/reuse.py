"""Reuse: the saved heads of a comparison, and the embeddings that they expect of other images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from gelkit.errors import GelkitError, UsageError
from gelkit.features.cache import Cache
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import Workforce, extract
from gelkit.features.recipe import make_recipe
from gelkit.features.shards import Rows
from gelkit.heads.assessment import ASSESSMENT_FILE, read_assessment
from gelkit.heads.comparison import RESULTS_FILE, TRAINING_MANIFEST
from gelkit.heads.configurations import Configuration
from gelkit.heads.datasets import dataset_fingerprint
from gelkit.heads.results import read_results
from gelkit.heads.saved import SavedHead, head_path, is_whole, read_record
from gelkit.images.catalog import MANIFEST_COLUMNS, Catalog, CatalogImage, part_name
from gelkit.progress import Progress, silent
from gelkit.tables import read_table

_COLUMNS = (MANIFEST_COLUMNS, MANIFEST_COLUMNS[:-1], MANIFEST_COLUMNS[:-2])
"""What is written, and what was before channels, and before pages, could be named."""


def read_heads(out: Path) -> list[SavedHead]:
    """Read the records of the heads that results.csv has rows of, in a table or not.

    :raises UsageError: there are no results.
    :raises GelkitError: a head is lost.
    """
    wanted = configurations_of(read_results(out / RESULTS_FILE))
    records = [(configuration, read_record(out, configuration)) for configuration in wanted]
    lost = [configuration.name for configuration, record in records if record is None]
    if lost:
        raise GelkitError(
            f"Expected a saved head for each row of {out / RESULTS_FILE}. Received: none for "
            f"{', '.join(lost)}. Train them again with: gelkit heads DATA"
        )
    return [record for _, record in records if record is not None]


def find_best(heads: Sequence[SavedHead], out: Path) -> int:
    """Return the number of the head that cross-validation chose: no other images have a say.

    :raises GelkitError: the assessment is lost, or is one of other heads.
    """
    assessment = read_assessment(out)
    ids = [saved.configuration.model_id for saved in heads]
    if assessment is None or assessment.answer.winner not in ids:
        raise GelkitError(
            f"Expected {out / ASSESSMENT_FILE}, which names the best by cross-validation. "
            "Received: none that fits the results. Make it again with: gelkit heads DATA"
        )
    return ids.index(assessment.answer.winner)


def find_model(heads: Sequence[SavedHead], model: int | Literal["best"], out: Path) -> SavedHead:
    """Return the head with an id of results.csv, or the one that cross-validation chose, to use it.

    :raises UsageError: there is no such head.
    :raises GelkitError: its files are lost or changed, or as of :func:`find_best` and
        :func:`require_recipe`.
    """
    by_id = {head.configuration.model_id: head for head in heads}
    head = heads[find_best(heads, out)] if model == "best" else by_id.get(model)
    if head is None:
        raise UsageError(
            f"Expected a model_id of results.csv ({', '.join(map(str, by_id))}) or 'best'. "
            f"Received: {model!r}. Train it first with: gelkit heads DATA"
        )
    require_recipe(head)
    if not is_whole(out, head):
        raise GelkitError(
            f"Expected {head_path(out, head.configuration)} as it was trained. Received: a file "
            "that is lost or changed. Train it again with: gelkit heads DATA"
        )
    return head


def require_recipe(head: SavedHead) -> None:
    """Check that embeddings are made as when a head was trained.

    :raises GelkitError: this version makes them by another recipe.
    """
    which = head.configuration
    recipe = make_recipe(which.backbone, which.hardware, head.options)
    if recipe != head.recipe:
        raise GelkitError(
            f"Expected the recipe that {which.name} was trained on. Received another "
            f"({recipe.differences(head.recipe)}). Train the heads again, or use the version of "
            "gelkit that trained them."
        )


def embed_for(
    head: SavedHead,
    catalog: Catalog,
    *,
    cache: str | Path,
    workforce: Workforce | None = None,
    progress: Progress = silent,
) -> Embeddings:
    """Return the embeddings of images as a head expects them; those not cached are made.

    :raises GelkitError: as of :func:`require_recipe`; nothing is made then.
    """
    require_recipe(head)
    return extract(
        catalog,
        backbone=head.configuration.backbone,
        hardware=head.configuration.hardware,
        cache=cache,
        options=head.options,
        workforce=workforce,
        progress=progress,
    )


def load_trained_on(out: Path, head: SavedHead, cache: str | Path) -> Embeddings:
    """Return what a head was trained on, from the cache; the image files need not be there.

    Names are the paths that the images had, groups those that were found.

    :raises GelkitError: the manifest of the training images is lost or another, or the cache lacks
        their embeddings.
    """
    images = _trained_on(out / TRAINING_MANIFEST)
    rows = _cached_rows(head, Path(cache))
    embeddings = Embeddings(
        values=rows.columns["embedding"],
        images=images,
        sha256s=head.sha256s,
        recipe=head.recipe,
        device=str(head.row["device"]),
        extraction_secs=float(head.row["extraction_time_secs"]),
    )
    same_number = len(images) == len(head.sha256s)
    if not same_number or dataset_fingerprint(embeddings) != head.row["dataset_fingerprint"]:
        raise GelkitError(
            f"Expected {out / TRAINING_MANIFEST} to list the images that "
            f"{head.configuration.name} was trained on. Received: others. Train the heads again "
            "with: gelkit heads DATA"
        )
    return embeddings


def configurations_of(results: pd.DataFrame) -> list[Configuration]:
    """Return the configurations of result rows, in their order."""
    names = ["hardware_type", "pretrained_model", "classifier_head", "opt_alg"]
    return [
        Configuration(int(model_id), *parts)
        for model_id, parts in zip(results["model_id"], results[names].to_numpy(), strict=True)
    ]


def _trained_on(manifest: Path) -> tuple[CatalogImage, ...]:
    try:
        columns, rows = read_table(manifest)
        if tuple(columns) not in _COLUMNS:
            raise ValueError(f"the columns {', '.join(columns)}")
    except (OSError, ValueError) as error:
        raise GelkitError(
            f"Expected {manifest}, which lists the training images. Received: {error}. Make it "
            "again with: gelkit heads DATA"
        ) from error
    return tuple(_image(*row) for row in rows)


def _image(
    path: str,
    label: str,
    group: str,
    source: str,
    split: str,
    page: str = "",
    channel: str = "",
) -> CatalogImage:
    numbers = [int(number) if number else None for number in (page, channel)]
    name = part_name(path, *numbers)
    return CatalogImage(
        Path(path), name, label or None, group or None, source or None, split, *numbers
    )


def _cached_rows(head: SavedHead, cache: Path) -> Rows:
    opened = Cache(cache, head.recipe)
    try:
        return opened.read(head.sha256s)
    except KeyError as error:
        held = "a cache that lacks some" if any(opened.folder.glob("shard-*.h5")) else "no cache"
        raise GelkitError(
            f"Expected {str(opened.folder.resolve())!r} to hold the embeddings of the "
            f"{len(head.sha256s)} images that {head.configuration.name} was trained on. Received: "
            f"{held} there. Name with --cache the folder of caches that gelkit heads read."
        ) from error
