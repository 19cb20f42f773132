"""The comparison: all configurations on the same images and splits."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import gelkit
from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import load
from gelkit.features.planning import MissingEmbeddingsError, choose_weights, features_command
from gelkit.features.recipe import RecipeOptions
from gelkit.files import write_atomically
from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.heads.metrics import score_out_of_fold
from gelkit.heads.results import make_results, write_results
from gelkit.heads.saved import (
    SavedHead,
    head_path,
    read_probabilities,
    read_record,
    write_head,
)
from gelkit.heads.splits import Folds, group_images, make_splits, splits_fingerprint
from gelkit.heads.training import Job, Settings, Trained, train_all
from gelkit.images.catalog import Catalog, require_classes, write_manifest
from gelkit.progress import Progress, silent

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.csv"
PREDICTIONS_FILE = "predictions.csv"
TEST_MANIFEST = "test.csv"


@dataclass(frozen=True)
class _Dataset:
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
        return dataset_fingerprint(self.any)

    @property
    def splits_fingerprint(self) -> str:
        return splits_fingerprint(self.splits, self.any.sha256s)


def compare(
    catalog: Catalog,
    *,
    cache: str | Path = "features",
    out: str | Path | None = None,
    configurations: Sequence[Configuration] | None = None,
    options: RecipeOptions | None = None,
    settings: Settings | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Cross-validate configurations on cached embeddings, and fit their final heads on all images.

    Images marked ``test`` take no part. Configurations without cached embeddings are left out and
    logged as a warning with the command that makes them.

    :param out: a folder for the heads, results.csv and predictions.csv; what is there already and
        would come out the same is not trained again. None keeps nothing.
    :param configurations: default: the 24, and what was added to the tables.
    :param workers: processes of one thread each; 1 trains in this process.
    :returns: the results, a row for each configuration; columns as of
        :data:`gelkit.heads.results.COLUMNS`.
    :raises UsageError: fewer than two classes, too few images for the folds, equal bytes under two
        labels.
    :raises MissingEmbeddingsError: no configuration has cached embeddings.
    """
    chosen = tuple(choose_configurations() if configurations is None else configurations)
    training = catalog.only("train")
    require_classes(training)
    dataset = _load_dataset(
        training, chosen, Path(cache), options or RecipeOptions(), settings or Settings()
    )
    available = [c for c in chosen if (c.backbone, c.hardware) in dataset.embeddings]
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_test_set(catalog.only("test"), folder)
    trained = _train_missing(available, dataset, folder, workers, progress)
    if folder is None:
        return make_results([saved.row for saved, _ in trained.values()])
    return _collect(dataset, folder)


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


def _load_dataset(
    catalog: Catalog,
    configurations: Sequence[Configuration],
    cache: Path,
    options: RecipeOptions,
    settings: Settings,
) -> _Dataset:
    pairs = list(dict.fromkeys((c.backbone, c.hardware) for c in configurations))
    options = choose_weights(catalog, pairs, cache=cache, options=options, download=False)
    embeddings = _load_available(catalog, pairs, cache, options)
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
    return _Dataset(embeddings, groups, splits, options, settings)


def _load_available(
    catalog: Catalog, pairs: Sequence[tuple[str, str]], cache: Path, options: RecipeOptions
) -> dict[tuple[str, str], Embeddings]:
    available: dict[tuple[str, str], Embeddings] = {}
    missing: dict[tuple[str, str], MissingEmbeddingsError] = {}
    for pair in pairs:
        try:
            available[pair] = load(
                catalog, backbone=pair[0], hardware=pair[1], cache=cache, options=options
            )
        except MissingEmbeddingsError as error:
            missing[pair] = error
    if not available:
        raise next(iter(missing.values()))
    for hardware in dict.fromkeys(hardware for _, hardware in missing):
        absent = [pair for pair in missing if pair[1] == hardware]
        logger.warning(
            "left out, since their embeddings are not cached: %s on %s. Compute them with: %s",
            ", ".join(backbone for backbone, _ in absent),
            hardware,
            features_command(absent, options),
        )
    return available


def _keep_test_set(test: Catalog, out: Path) -> None:
    """Remember the rows marked ``test``: they are evaluate's default test set."""
    path = out / TEST_MANIFEST
    if test.images:
        write_manifest(test, path)
    else:
        path.unlink(missing_ok=True)


def _train_missing(
    configurations: Sequence[Configuration],
    dataset: _Dataset,
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


def _is_kept(out: Path, configuration: Configuration, dataset: _Dataset) -> bool:
    saved = read_record(out, configuration)
    return (
        saved is not None
        and saved.fingerprint == _fingerprint(configuration, dataset)
        and head_path(out, configuration).is_file()
    )


def _job(configuration: Configuration, dataset: _Dataset) -> Job:
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    return Job(
        name=configuration.name,
        head=configuration.head,
        optimizer=configuration.optimizer,
        values=embeddings.values,
        targets=embeddings.targets,
        num_classes=len(embeddings.classes),
        splits=dataset.splits,
        settings=dataset.settings,
    )


def _fingerprint(configuration: Configuration, dataset: _Dataset) -> str:
    """Return the SHA-256 over everything that decides a head and its row."""
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    decisive = {
        "configuration": asdict(configuration),
        "settings": asdict(dataset.settings),
        "embeddings": embeddings.fingerprint,
        "labels": embeddings.labels,
        "splits": dataset.splits_fingerprint,
        "versions": {name: version(name) for name in ("keras", "torch", "scikit-learn")},
        "gelkit": gelkit.__version__,
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _record(configuration: Configuration, dataset: _Dataset, trained: Trained) -> SavedHead:
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    return SavedHead(
        configuration=configuration,
        classes=embeddings.classes,
        recipe=embeddings.recipe,
        options=dataset.options,
        settings=dataset.settings,
        fingerprint=_fingerprint(configuration, dataset),
        sha256s=embeddings.sha256s,
        row=_row(configuration, dataset, trained),
    )


def _row(configuration: Configuration, dataset: _Dataset, trained: Trained) -> dict[str, Any]:
    embeddings = dataset.embeddings[configuration.backbone, configuration.hardware]
    scores = score_out_of_fold(embeddings.targets, trained.probabilities, dataset.splits)
    return {
        "model_id": configuration.model_id,
        "hardware_type": configuration.hardware,
        "pretrained_model": configuration.backbone,
        "classifier_head": configuration.head,
        "opt_alg": configuration.optimizer,
        "training_time_secs": trained.training_time_secs,
        "inference_time_secs": trained.inference_time_secs,
        **scores.columns(),
        "n_images": len(embeddings),
        "n_groups": int(dataset.groups.max()) + 1,
        "classes": list(embeddings.classes),
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


def _collect(dataset: _Dataset, out: Path) -> pd.DataFrame:
    """Write results.csv and predictions.csv of all heads in ``out`` made on the same splits."""
    saved = [
        record
        for configuration in choose_configurations(hardware=())
        for record in [read_record(out, configuration)]
        if record is not None
        and record.settings == dataset.settings
        and record.row["splits_fingerprint"] == dataset.splits_fingerprint
        and record.row["dataset_fingerprint"] == dataset.fingerprint
    ]
    results = make_results([record.row for record in saved])
    write_results(results, out / RESULTS_FILE)
    predictions = pd.concat(
        [
            _predictions(record, dataset, read_probabilities(out, record.configuration))
            for record in saved
        ]
    )
    write_atomically(out / PREDICTIONS_FILE, predictions.to_csv(index=False).encode())
    return results


def _predictions(
    saved: SavedHead, dataset: _Dataset, probabilities: npt.NDArray[np.float32]
) -> pd.DataFrame:
    """Return out-of-fold predictions, a row for each repeat and image."""
    embeddings, repeats = dataset.any, len(dataset.splits)
    predicted = probabilities.reshape(-1, len(saved.classes))
    columns = {
        "model_id": saved.configuration.model_id,
        "repeat": np.repeat(np.arange(repeats), len(embeddings)),
        "fold": dataset.splits.ravel(),
        "image": embeddings.names * repeats,
        "sha256": embeddings.sha256s * repeats,
        "group": np.tile(dataset.groups, repeats),
        "label": embeddings.labels * repeats,
        "predicted": np.array(saved.classes)[predicted.argmax(axis=1)],
    }
    for number, name in enumerate(saved.classes):
        columns[f"probability_{name}"] = predicted[:, number]
    return pd.DataFrame(columns)
