"""Evaluation: saved heads on images that none of them has seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import Workforce, load
from gelkit.features.planning import MissingEmbeddingsError
from gelkit.heads.comparison import RESULTS_FILE, TEST_MANIFEST, TRAINING_MANIFEST
from gelkit.heads.datasets import dataset_fingerprint, in_common, warn_of_failures
from gelkit.heads.held_out import (
    HeldOut,
    count_look,
    describe_held_out,
    find_faults,
    keep_findings,
)
from gelkit.heads.intervals import bound_columns, intervals
from gelkit.heads.predictions import Columns, predicted_columns, write_predictions
from gelkit.heads.results import make_results, write_results
from gelkit.heads.results_folder import TEST_PREDICTIONS_FILE
from gelkit.heads.reuse import embed_for, find_best, read_heads
from gelkit.heads.saved import SavedHead, head_path, write_record
from gelkit.heads.shift import score_without_overlap
from gelkit.heads.sign_flips import assess_differences
from gelkit.heads.training import load_head, predict
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.images.formats import Limits
from gelkit.images.spellings import require_one_spelling
from gelkit.progress import Progress, reported, silent
from gelkit.text import quoted

logger = logging.getLogger(__name__)


def find_test_set(out: str | Path) -> Catalog | None:
    """Return the images that the manifest of the compared data marks as ``test``, if there are."""
    path = Path(out) / TEST_MANIFEST
    return read_catalog(path, allow_outside=True) if path.is_file() else None


def evaluate(
    out: str | Path,
    test: Catalog,
    *,
    cache: str | Path = "features",
    limits: Limits | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Score the saved heads of a comparison on a held-out set, and fill its ``test_*`` columns.

    The test set's embeddings are made if they are not cached. Cross-validated columns stay as they
    are: a test set never chooses the best. The configuration that cross-validation chose is the
    reference; the others' differences from it are tested by flipping the signs of groups, and
    adjusted by Holm. What was found of the test set as a whole is kept for
    :func:`gelkit.heads.held_out.read_findings`.

    :param out: the folder that :func:`gelkit.compare` wrote.
    :param limits: what one image may ask for.
    :returns: the results, as results.csv now holds them; each prediction is in
        test_predictions.csv.
    :raises UsageError: no results there, or the test set has a class that the heads do not know, or
        spells one otherwise.
    """
    folder = Path(out)
    heads = read_heads(folder)
    labelled = [image for image in test.images if image.label is not None]
    if len(labelled) < len(test):
        raise UsageError(
            f"Expected a label for every test image. Received: {len(test) - len(labelled)} "
            f"without one in {test.name!r}. Sort them into class folders."
        )
    require_one_spelling(test.images, heads[0].classes)
    embeddings = _test_embeddings(
        heads, test, cache, Workforce(limits=limits or Limits()), progress
    )
    reference = find_best(heads, folder)
    its = embeddings[heads[reference].recipe.sha256]
    training = _training_embeddings(folder, heads[reference], cache)
    held_out = describe_held_out(its, training, heads[reference], progress)
    probabilities = [
        _probabilities(folder, saved, embeddings[saved.recipe.sha256])
        for saved in reported(heads, "score heads", len(heads), progress)
    ]
    looks = count_look(folder, dataset_fingerprint(its))
    found = find_faults(held_out, its, training, heads[reference], probabilities[reference], looks)
    updated = _updated(heads, its, held_out, probabilities, reference, looks)
    for saved in updated:
        write_record(folder, saved)
    results = make_results([saved.row for saved in updated])
    write_results(results, folder / RESULTS_FILE)
    keep_findings(folder, found)
    write_predictions(
        [
            _predictions(saved, embeddings[saved.recipe.sha256], predicted)
            for saved, predicted in zip(heads, probabilities, strict=True)
        ],
        folder / TEST_PREDICTIONS_FILE,
    )
    return results


def _test_embeddings(
    heads: Sequence[SavedHead],
    test: Catalog,
    cache: str | Path,
    workforce: Workforce,
    progress: Progress,
) -> dict[str, Embeddings]:
    """Return the test set's embeddings for each recipe that a head was trained on."""
    embeddings = {}
    for saved in {saved.recipe.sha256: saved for saved in heads}.values():
        embedded = embed_for(saved, test, cache=cache, workforce=workforce, progress=progress)
        _require_known_classes(saved, embedded)
        embeddings[saved.recipe.sha256] = embedded
    warn_of_failures(next(iter(embeddings.values())))
    return in_common(embeddings)


def _require_known_classes(saved: SavedHead, test: Embeddings) -> None:
    unknown = sorted(set(test.classes) - set(saved.classes))
    if unknown:
        raise UsageError(
            f"Expected test images of the classes {', '.join(map(quoted, saved.classes))}. "
            f"Received: the class {unknown[0]!r} too. Leave it out, or train the heads with it."
        )


def _probabilities(out: Path, saved: SavedHead, embeddings: Embeddings) -> npt.NDArray[np.float32]:
    return predict(load_head(head_path(out, saved.configuration)), embeddings.values)


def _training_embeddings(out: Path, head: SavedHead, cache: str | Path) -> Embeddings | None:
    """Return what a head was trained on, or None, logged as a warning, if it is not at hand."""
    try:
        catalog = read_catalog(out / TRAINING_MANIFEST, allow_outside=True)
        its = load(
            catalog,
            backbone=head.configuration.backbone,
            hardware=head.configuration.hardware,
            cache=cache,
            options=head.options,
        )
    except (UsageError, MissingEmbeddingsError, OSError) as error:
        reason = str(error)
    else:
        if its.sha256s == head.sha256s:
            return its
        reason = "some were moved or changed"
    logger.warning(
        "the test set is not compared with the training images, which are not at hand: %s", reason
    )
    return None


def _updated(
    heads: Sequence[SavedHead],
    test: Embeddings,
    held_out: HeldOut,
    probabilities: Sequence[npt.NDArray[np.float32]],
    reference: int,
    looks: int,
) -> list[SavedHead]:
    """Return the heads with the columns of a test set."""
    common = {
        "test_n_images": len(test),
        "test_overlap": int(held_out.overlapping.sum()),
        "test_looks": looks,
        "test_fingerprint": dataset_fingerprint(test),
    }
    losses = np.stack([its.argmax(axis=1) != held_out.targets for its in probabilities])
    differences = assess_differences(
        losses.astype(np.float32), losses[reference].astype(np.float32), held_out.groups
    )
    return [
        saved.with_columns(
            {
                **common,
                **_test_scores(held_out, its),
                "test_difference": 0.0 - difference.difference,
                "test_difference_p": difference.adjusted_p_value,
            }
        )
        for saved, its, difference in zip(heads, probabilities, differences, strict=True)
    ]


def _test_scores(held_out: HeldOut, probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Score the whole test set, with intervals, and what training has not seen of it."""
    targets = held_out.targets
    splits = np.zeros((1, len(targets)), dtype=np.int64)
    positive = held_out.positive
    bounds = intervals(targets, probabilities[np.newaxis], splits, held_out.groups, positive)
    scores = score_without_overlap(targets, probabilities, held_out.overlapping, positive)
    without = {} if scores.without is None else scores.without.columns()
    return {
        **scores.everything.columns("test_"),
        **bound_columns(bounds, "test_"),
        **{f"test_{name}_without_overlap": without.get(name, float("nan")) for name in bounds},
    }


def _predictions(
    saved: SavedHead, embeddings: Embeddings, probabilities: npt.NDArray[np.float32]
) -> Columns:
    return {
        "model_id": [saved.configuration.model_id] * len(embeddings),
        "image": embeddings.names,
        "sha256": embeddings.sha256s,
        "label": embeddings.labels,
        **predicted_columns(saved.classes, probabilities),
    }
