"""Evaluation: saved heads on images that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gelkit.errors import GelkitError, UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import extract
from gelkit.heads.comparison import RESULTS_FILE, TEST_MANIFEST
from gelkit.heads.configurations import Configuration
from gelkit.heads.datasets import dataset_fingerprint, warn_of_failures
from gelkit.heads.metrics import score
from gelkit.heads.predictions import Columns, predicted_columns, write_predictions
from gelkit.heads.results import make_results, read_results, write_results
from gelkit.heads.saved import SavedHead, head_path, read_record, write_record
from gelkit.heads.training import load_head, predict
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.progress import Progress, reported, silent

TEST_PREDICTIONS_FILE = "test_predictions.csv"


def find_test_set(out: str | Path) -> Catalog | None:
    """Return the images that the manifest of the compared data marks as ``test``, if there are."""
    path = Path(out) / TEST_MANIFEST
    return read_catalog(path, allow_outside=True) if path.is_file() else None


def evaluate(
    out: str | Path,
    test: Catalog,
    *,
    cache: str | Path = "features",
    progress: Progress = silent,
) -> pd.DataFrame:
    """Score the saved heads of a comparison on a held-out set, and fill its ``test_*`` columns.

    The test set's embeddings are made if they are not cached. Cross-validated columns stay as they
    are: a test set never chooses the best.

    :param out: the folder that :func:`gelkit.compare` wrote.
    :returns: the results, as results.csv now holds them; each prediction is in
        test_predictions.csv.
    :raises UsageError: no results there, or the test set has a class that the heads do not know.
    """
    folder = Path(out)
    heads = _saved_heads(folder)
    labelled = [image for image in test.images if image.label is not None]
    if len(labelled) < len(test):
        raise UsageError(
            f"Expected a label for every test image. Received: {len(test) - len(labelled)} "
            f"without one in {test.name!r}. Sort them into class folders."
        )
    embeddings = _test_embeddings(heads, test, cache, progress)
    updated, predictions = [], []
    for saved in reported(heads, "score heads", len(heads), progress):
        its = embeddings[saved.recipe.sha256]
        probabilities = _probabilities(folder, saved, its)
        updated.append(saved.with_columns(_test_columns(saved, its, probabilities)))
        predictions.append(_predictions(saved, its, probabilities))
    for saved in updated:
        write_record(folder, saved)
    results = make_results([saved.row for saved in updated])
    write_results(results, folder / RESULTS_FILE)
    write_predictions(predictions, folder / TEST_PREDICTIONS_FILE)
    return results


def _saved_heads(out: Path) -> list[SavedHead]:
    """Read the records of the heads that results.csv has rows of, in a table or not."""
    wanted = _configurations(read_results(out / RESULTS_FILE))
    records = [(configuration, read_record(out, configuration)) for configuration in wanted]
    lost = [configuration.name for configuration, record in records if record is None]
    if lost:
        raise GelkitError(
            f"Expected a saved head for each row of {out / RESULTS_FILE}. Received: none for "
            f"{', '.join(lost)}. Train them again with: gelkit heads DATA"
        )
    return [record for _, record in records if record is not None]


def _configurations(results: pd.DataFrame) -> list[Configuration]:
    names = ["hardware_type", "pretrained_model", "classifier_head", "opt_alg"]
    return [
        Configuration(int(model_id), *parts)
        for model_id, parts in zip(results["model_id"], results[names].to_numpy(), strict=True)
    ]


def _test_embeddings(
    heads: Sequence[SavedHead], test: Catalog, cache: str | Path, progress: Progress
) -> dict[str, Embeddings]:
    """Return the test set's embeddings for each recipe that a head was trained on."""
    embeddings = {}
    for saved in {saved.recipe.sha256: saved for saved in heads}.values():
        embedded = extract(
            test,
            backbone=saved.configuration.backbone,
            hardware=saved.configuration.hardware,
            cache=cache,
            options=saved.options,
            progress=progress,
        )
        if embedded.recipe != saved.recipe:
            raise GelkitError(
                f"Expected the recipe that {saved.configuration.name} was trained on. Received "
                f"another ({embedded.recipe.differences(saved.recipe)}). Train the heads again, or "
                "use the version of gelkit that trained them."
            )
        _require_known_classes(saved, embedded)
        embeddings[saved.recipe.sha256] = embedded
    warn_of_failures(next(iter(embeddings.values())))
    return embeddings


def _require_known_classes(saved: SavedHead, test: Embeddings) -> None:
    unknown = sorted(set(test.classes) - set(saved.classes))
    if unknown:
        raise UsageError(
            f"Expected test images of the classes {', '.join(saved.classes)}. Received: the class "
            f"{unknown[0]!r} too. Leave it out, or train the heads with it."
        )


def _probabilities(out: Path, saved: SavedHead, embeddings: Embeddings) -> npt.NDArray[np.float32]:
    return predict(load_head(head_path(out, saved.configuration)), embeddings.values)


def _test_columns(
    saved: SavedHead, embeddings: Embeddings, probabilities: npt.NDArray[np.float32]
) -> dict[str, Any]:
    numbers = {name: number for number, name in enumerate(saved.classes)}
    targets = np.array([numbers[str(label)] for label in embeddings.labels])
    trained_on = set(saved.sha256s)
    return {
        **score(targets, probabilities).columns("test_"),
        "test_n_images": len(embeddings),
        "test_overlap": sum(sha256 in trained_on for sha256 in embeddings.sha256s),
        "test_fingerprint": dataset_fingerprint(embeddings),
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
