"""The comparison: all configurations on the same images and splits."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import gelkit
from gelkit.features.recipe import RecipeOptions
from gelkit.files import remove
from gelkit.heads.assessment import assess, find_competing, read_assessment
from gelkit.heads.availability import choose_available
from gelkit.heads.calibration import calibration
from gelkit.heads.configurations import Configuration, is_known, number_configurations
from gelkit.heads.datasets import Dataset, decisive, load_dataset
from gelkit.heads.intervals import bound_columns, intervals
from gelkit.heads.metrics import score_out_of_fold
from gelkit.heads.predictions import Columns, predicted_columns, write_predictions
from gelkit.heads.results import make_results, write_results
from gelkit.heads.results_folder import record_data, remove_outdated, require_same_data
from gelkit.heads.saved import (
    SavedHead,
    is_whole,
    read_probabilities,
    read_record,
    read_records,
    write_head,
    write_record,
)
from gelkit.heads.sources import score_sources, with_sources
from gelkit.heads.training import Job, Settings, Trained, train_all
from gelkit.images.catalog import Catalog, require_classes, write_manifest
from gelkit.images.spellings import require_one_spelling
from gelkit.paths import require_local
from gelkit.progress import Progress, silent

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.csv"
PREDICTIONS_FILE = "predictions.csv"
TEST_MANIFEST = "test.csv"
TRAINING_MANIFEST = "training.csv"


def compare(
    catalog: Catalog,
    *,
    cache: str | Path = "features",
    out: str | Path | None = None,
    configurations: Sequence[Configuration] | None = None,
    options: RecipeOptions | None = None,
    settings: Settings | None = None,
    source_regex: str | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Cross-validate configurations on cached embeddings, and fit their final heads on all images.

    Images marked ``test`` take no part. Configurations without cached embeddings are left out and
    logged as a warning with the command that makes them. The weights ``auto`` are, for each
    backbone, the pretrained ones if it is cached with them, else ``random``. Where some rows have
    pretrained weights, those with random ones have no say in what is best.

    :param out: a folder for the heads, results.csv and predictions.csv; what is there already and
        would come out the same is not trained again. Other heads there that can be compared stay
        in the results, the rest is left out and logged as a warning. None keeps nothing.
    :param configurations: default: the 24, and what was added to the tables; those on tpu only if
        there is a TPU, embeddings of them are cached, or ``options`` say to emulate one.
    :param source_regex: finds each image's source (instrument, laboratory or date) in its name:
        what the first group captures, instead of the catalog's. With several sources each is held
        out once, beside the cross-validation.
    :param workers: processes of one thread each; 1 trains in this process.
    :returns: the results, a row for each configuration; columns as of
        :data:`gelkit.heads.results.COLUMNS`.
    :raises UsageError: ``out`` has results of other data, fewer than two classes, one that is
        spelled in two ways, too few groups for the folds, a group under two labels, or a training
        that diverged; heads that were finished are kept.
    :raises MissingEmbeddingsError: no configuration has cached embeddings.
    """
    if configurations is None:
        configurations, _ = choose_available(cache, options)
    folder = None if out is None else require_local(out, "folder for results")
    if folder is not None:
        require_same_data(folder, catalog)
    chosen = number_configurations(configurations, [] if folder is None else _recorded(folder))
    training = with_sources(catalog.only("train"), source_regex)
    require_one_spelling([*training.images, *catalog.only("test").images])
    require_classes(training)
    dataset = load_dataset(
        training, chosen, Path(cache), options or RecipeOptions(), settings or Settings(), progress
    )
    available = [c for c in chosen if (c.backbone, c.hardware) in dataset.embeddings]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        record_data(folder, catalog)
        _keep_test_set(catalog.only("test"), folder)
        _keep_training_set(training, dataset, folder)
    trained = _train_missing(available, dataset, folder, workers, progress)
    if folder is None:
        heads = [saved for saved, _ in trained.values()]
        predictions = [its.probabilities for _, its in trained.values()]
        return make_results(
            [saved.row for saved in _assessed(dataset, heads, predictions, None, progress)]
        )
    return _collect(dataset, folder, progress)


def _recorded(out: Path) -> list[Configuration]:
    """Return the configurations that a results folder has heads of."""
    return [saved.configuration for saved in read_records(out).values() if saved is not None]


def _keep_test_set(test: Catalog, out: Path) -> None:
    """Remember the rows marked ``test``: they are evaluate's default test set."""
    path = out / TEST_MANIFEST
    if test.images:
        write_manifest(test, path)
    else:
        remove([path])


def _keep_training_set(training: Catalog, dataset: Dataset, out: Path) -> None:
    """Remember the images that are trained on, with the groups that were found among them."""
    images = zip(dataset.any.images, dataset.groups.tolist(), strict=True)
    grouped = tuple(replace(image, group=str(group)) for image, group in images)
    write_manifest(replace(training, images=grouped), out / TRAINING_MANIFEST)


def _train_missing(
    configurations: Sequence[Configuration],
    dataset: Dataset,
    out: Path | None,
    workers: int,
    progress: Progress,
) -> dict[str, tuple[SavedHead, Trained]]:
    """Train what is not in ``out`` yet; each head is kept as soon as it is done."""
    missing = {
        configuration.name: configuration
        for configuration in configurations
        if out is None or not _is_kept(out, configuration, dataset)
    }
    jobs = [_job(configuration, dataset) for configuration in missing.values()]
    trained: dict[str, tuple[SavedHead, Trained]] = {}
    what = f"train {len(jobs)} of {len(configurations)} heads"
    progress(what, 0, len(jobs))
    for job, result in train_all(jobs, workers):
        saved = _record(missing[job.name], dataset, result)
        trained[job.name] = (saved, result)
        if out is not None:
            write_head(out, saved, result.head, result.probabilities)
        progress(what, len(trained), len(jobs))
    return trained


def _is_kept(out: Path, configuration: Configuration, dataset: Dataset) -> bool:
    saved = read_record(out, configuration)
    return (
        saved is not None
        and saved.fingerprint == _fingerprint(configuration, dataset)
        and is_whole(out, saved)
    )


def _job(configuration: Configuration, dataset: Dataset) -> Job:
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    return Job(
        name=configuration.name,
        head=configuration.head,
        optimizer=configuration.optimizer,
        values=embeddings.values,
        targets=embeddings.targets,
        num_classes=len(embeddings.classes),
        splits=dataset.all_splits,
        settings=dataset.settings,
        groups=dataset.groups,
    )


def _fingerprint(configuration: Configuration, dataset: Dataset) -> str:
    """Return the SHA-256 over everything that decides a head and its row."""
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    everything = {
        "configuration": asdict(configuration),
        "settings": asdict(dataset.settings),
        "options": asdict(decisive(dataset.options[configuration.backbone])),
        "embeddings": embeddings.fingerprint,
        "labels": embeddings.labels,
        "splits": dataset.splits_fingerprint,
        "versions": {name: version(name) for name in ("keras", "torch", "scikit-learn")},
        "gelkit": gelkit.__version__,
    }
    return sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _record(configuration: Configuration, dataset: Dataset, trained: Trained) -> SavedHead:
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    return SavedHead(
        configuration=configuration,
        classes=embeddings.classes,
        recipe=embeddings.recipe,
        options=dataset.options[configuration.backbone],
        settings=dataset.settings,
        fingerprint=_fingerprint(configuration, dataset),
        sha256s=embeddings.sha256s,
        row=_row(configuration, dataset, trained),
    )


def _row(configuration: Configuration, dataset: Dataset, trained: Trained) -> dict[str, Any]:
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    return {
        "model_id": configuration.model_id,
        "hardware_type": configuration.hardware,
        "pretrained_model": configuration.backbone,
        "classifier_head": configuration.head,
        "opt_alg": configuration.optimizer,
        "training_time_secs": trained.training_time_secs,
        "inference_time_secs": trained.inference_time_secs,
        **_scores(dataset, trained.probabilities),
        "head_parameters": trained.head_parameters,
        "n_images": len(embeddings),
        "n_groups": int(dataset.groups.max()) + 1,
        "classes": list(embeddings.classes),
        "positive": dataset.settings.positive,
        "extraction_time_secs": embeddings.extraction_secs,
        "device": embeddings.device,
        "weights": embeddings.recipe.weights,
        "numeric_precision": embeddings.recipe.precision,
        "seed": dataset.settings.seed,
        "folds": dataset.settings.folds,
        "repeats": dataset.settings.repeats,
        "dataset_fingerprint": dataset.fingerprint,
        "splits_fingerprint": dataset.splits_fingerprint,
        "cache_fingerprint": embeddings.fingerprint,
        "gelkit_version": gelkit.__version__,
    }


def _scores(dataset: Dataset, probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return the columns that come from the predictions of one configuration."""
    targets, repeats = dataset.any.targets, len(dataset.splits)
    predicted = probabilities[:repeats]
    bounds = intervals(targets, predicted, dataset.splits, dataset.groups, dataset.positive)
    calibrated = calibration(targets, predicted, dataset.groups, seed=dataset.settings.seed)
    return {
        **score_out_of_fold(targets, predicted, dataset.splits, dataset.positive).columns(),
        **bound_columns(bounds),
        "calibration_slope": calibrated.slope,
        "calibration_intercept": calibrated.intercept,
        "ece": calibrated.ece,
        "ece_if_calibrated": calibrated.ece_if_calibrated,
        **_source_scores(dataset, probabilities[repeats:]),
    }


def _source_scores(dataset: Dataset, probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    if dataset.sources is None:
        return {}
    kept = dataset.sources.kept
    scores = score_sources(dataset.any.targets[kept], probabilities[:, kept], dataset.sources)
    return {
        "source_accuracy": scores.macro_accuracy,
        "worst_source_accuracy": scores.accuracies[scores.worst],
        "worst_source": scores.worst,
        "n_sources": len(dataset.sources.sources),
    }


def _collect(dataset: Dataset, out: Path, progress: Progress) -> pd.DataFrame:
    """Assess all heads in ``out`` that can be compared, and write what is known of them."""
    comparable = _comparable_heads(dataset, out)
    heads = _without_the_outdated(comparable, out)
    probabilities = [read_probabilities(out, saved.configuration) for saved in comparable]
    assessed = _assessed(dataset, heads, probabilities, out, progress)
    for before, saved in zip(comparable, assessed, strict=True):
        if saved != before:
            write_record(out, saved)
    results = make_results([saved.row for saved in assessed])
    write_results(results, out / RESULTS_FILE)
    predictions = [
        _predictions(saved, dataset, its)
        for saved, its in zip(assessed, probabilities, strict=True)
    ]
    write_predictions(predictions, out / PREDICTIONS_FILE)
    return results


def _without_the_outdated(heads: list[SavedHead], out: Path) -> list[SavedHead]:
    """Remove what was made of heads that are gone, and what a test said of all in comparison."""
    before = read_assessment(out)
    if before is None or set(before.heads) <= {saved.fingerprint for saved in heads}:
        return heads
    removed = remove_outdated(out)
    if removed:
        logger.warning(
            "removed from %s what was made of heads that are gone: %s. Make it again with: gelkit "
            "evaluate",
            out,
            ", ".join(removed),
        )
    return [saved.untested() for saved in heads]


def _assessed(
    dataset: Dataset,
    heads: Sequence[SavedHead],
    predictions: Sequence[npt.NDArray[np.float32]],
    out: Path | None = None,
    progress: Progress = silent,
) -> list[SavedHead]:
    """Return the heads with the column that only all of them together decide."""
    tied = assess(dataset, heads, predictions, out, progress).answer.tied
    return [
        saved.with_columns(
            {"tied_with_best": "yes" if saved.configuration.model_id in tied else "no"}
            if competes
            else {"tied_with_best": ""}
        )
        for saved, competes in zip(heads, find_competing(heads), strict=True)
    ]


def _comparable_heads(dataset: Dataset, out: Path) -> list[SavedHead]:
    """Read the heads in ``out`` that are comparable; log which are not, and why."""
    records = read_records(out)
    heads = {
        name: saved
        for name, saved in records.items()
        if saved is None or (saved.configuration.name == name and is_known(saved.configuration))
    }
    obstacles = {name: _obstacle(saved, dataset, out) for name, saved in heads.items()}
    left_out = dict.fromkeys(sorted(records.keys() - heads.keys()), "in none of the tables")
    left_out |= {name: obstacle for name, obstacle in obstacles.items() if obstacle is not None}
    if left_out:
        logger.warning(
            "left out of %s: %s. Train them again by naming them, or keep them in another folder",
            out / RESULTS_FILE,
            "; ".join(f"{name} ({obstacle})" for name, obstacle in left_out.items()),
        )
    kept = [its for name, its in heads.items() if its is not None and name not in left_out]
    return sorted(kept, key=lambda saved: saved.configuration.model_id)


def _obstacle(saved: SavedHead | None, dataset: Dataset, out: Path) -> str | None:
    """Say what keeps a head out of one table with the others, if anything does."""
    if saved is None:
        return "record damaged or of another version"
    obstacles = {
        "other images": saved.row.get("dataset_fingerprint") != dataset.fingerprint,
        "other splits": saved.row.get("splits_fingerprint") != dataset.splits_fingerprint,
        "other settings": saved.settings != dataset.settings,
        "other recipe options": not _is_like(saved, dataset),
        "files lost or damaged": not is_whole(out, saved),
    }
    return next((obstacle for obstacle, holds in obstacles.items() if holds), None)


def _is_like(saved: SavedHead, dataset: Dataset) -> bool:
    """Tell whether a head's images were read and shown as the data set's.

    Backbones may differ in their weights, of which each row tells; one backbone may not.
    """
    same = dataset.options.get(saved.configuration.backbone)
    if same is not None:
        return decisive(saved.options) == decisive(same)
    others = next(iter(dataset.options.values()))
    return decisive(saved.options) == decisive(replace(others, weights=saved.options.weights))


def _predictions(
    saved: SavedHead, dataset: Dataset, probabilities: npt.NDArray[np.float32]
) -> Columns:
    """Return out-of-fold predictions, a row for each repeat and image."""
    embeddings, repeats = dataset.any, len(dataset.splits)
    predicted = probabilities[:repeats].reshape(-1, len(saved.classes))
    return {
        "model_id": [saved.configuration.model_id] * len(predicted),
        "repeat": np.repeat(np.arange(repeats), len(embeddings)),
        "fold": dataset.splits.ravel(),
        "image": embeddings.names * repeats,
        "sha256": embeddings.sha256s * repeats,
        "group": np.tile(dataset.groups, repeats),
        "label": embeddings.labels * repeats,
        **predicted_columns(saved.classes, predicted),
    }
