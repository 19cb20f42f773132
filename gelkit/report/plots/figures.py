"""Figures: the numbers behind the plots, as the comparison left them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gelkit.features.cache import Cache
from gelkit.features.shards import CacheError
from gelkit.heads.assessment import BASELINES_FILE, Assessment, read_assessment
from gelkit.heads.comparison import PREDICTIONS_FILE, RESULTS_FILE
from gelkit.heads.configurations import Configuration
from gelkit.heads.metrics import Probabilities, Targets
from gelkit.heads.probes import read_baselines
from gelkit.heads.results import read_results
from gelkit.heads.reuse import configurations_of
from gelkit.heads.saved import SavedHead, is_whole, read_probabilities, read_record
from gelkit.heads.splits import Folds
from gelkit.tables import unguarded

Groups = npt.NDArray[np.int64]

_AXES = ("hardware_type", "pretrained_model", "classifier_head", "opt_alg")


@dataclass(frozen=True)
class Predictions:
    """What the cross-validation predicted."""

    targets: Targets
    """Class numbers, (images,)."""
    groups: Groups
    """(images,), numbered from 0."""
    splits: Folds
    """The fold that predicted, (repeats x images)."""
    probabilities: Mapping[int, Probabilities]
    """(repeats x images x classes) by model id, of the heads that are whole."""


@dataclass(frozen=True)
class Figures:
    """All that plots are drawn from. What is not at hand is None, and ``gaps`` says why."""

    results: pd.DataFrame
    """As of :func:`gelkit.read_results`."""
    assessment: Assessment | None = None
    baselines: pd.DataFrame | None = None
    predictions: Predictions | None = None
    embeddings: npt.NDArray[np.float32] | None = None
    """The winner's, (images x width), in the order of the predictions."""
    gaps: tuple[str, ...] = ()
    """Sentences: what is missing, and what to do about it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What class numbers stand for."""
        return tuple(self.results.iloc[0]["classes"])

    @property
    def seed(self) -> int:
        """The seed of the comparison, which is that of all draws."""
        return int(self.results.iloc[0]["seed"])

    @property
    def winner(self) -> int:
        """The id of the best configuration; without an assessment, of the highest accuracy."""
        if self.assessment is not None:
            return self.assessment.answer.winner
        return int(self.results["model_id"].iloc[int(self.results["accuracy"].argmax())])

    @property
    def leaders(self) -> tuple[int, ...]:
        """The winner and, if it is another, the cheapest that cannot be told from it."""
        cheapest = self.winner if self.assessment is None else self.assessment.answer.cheapest
        return tuple(dict.fromkeys((self.winner, cheapest)))

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The configurations that were compared, in the order of the results."""
        return tuple(configurations_of(self.results))

    def row(self, model_id: int) -> pd.Series[Any]:
        """Return a configuration's row of the results."""
        return self.results.loc[self.results["model_id"] == model_id].iloc[0]

    def label(self, model_id: int) -> str:
        """Name a configuration by its id and what sets it apart from some other."""
        differing = [name for name in _AXES if self.results[name].nunique() > 1] or _AXES
        return " ".join([str(model_id), *(self.row(model_id)[name] for name in differing)])


def read_figures(out: Path, cache: Path) -> Figures:
    """Read what :func:`gelkit.compare` left.

    :param out: its folder.
    :param cache: the folder that holds the caches of all recipes.
    :raises UsageError: there is no results.csv, or it cannot be read.
    """
    results = read_results(out / RESULTS_FILE)
    assessment = _assessment(out, results)
    known = Figures(results, assessment)
    records = _records(out, known)
    predictions = _predictions(out, results, records)
    embeddings = _embeddings(cache, records.get(known.winner), predictions)
    baselines = _baselines(out)
    again = "Make it again with: gelkit heads DATA"
    gaps = {
        f"No assessment fits the results. {again}": assessment is None,
        f"No baselines.csv can be read. {again}": baselines is None,
        f"Out-of-fold predictions are lost, or not those of the results. {again}": (
            predictions is None or set(predictions.probabilities) != set(results["model_id"])
        ),
        f"The winner's embeddings are not in {cache}. Name the cache with --cache, or fill it "
        "with: gelkit features DATA": embeddings is None,
    }
    return Figures(
        results,
        assessment,
        baselines,
        predictions,
        embeddings,
        gaps=tuple(sentence for sentence, missing in gaps.items() if missing),
    )


def _assessment(out: Path, results: pd.DataFrame) -> Assessment | None:
    assessment = read_assessment(out)
    if assessment is None or not {
        assessment.answer.winner,
        assessment.answer.cheapest,
        *assessment.answer.tied,
    } <= set(results["model_id"]):
        return None
    return assessment


def _baselines(out: Path) -> pd.DataFrame | None:
    try:
        return read_baselines(out / BASELINES_FILE)
    except (OSError, ValueError):
        return None


def _records(out: Path, figures: Figures) -> dict[int, SavedHead]:
    """Read the records of heads that are whole and of the run that the results are of, by id."""
    wanted = dict(zip(figures.configurations, figures.results["splits_fingerprint"], strict=True))
    return {
        configuration.model_id: saved
        for configuration, splits in wanted.items()
        if (saved := read_record(out, configuration)) is not None
        and saved.row.get("splits_fingerprint") == splits
        and is_whole(out, saved)
    }


def _predictions(
    out: Path, results: pd.DataFrame, records: Mapping[int, SavedHead]
) -> Predictions | None:
    """Return the predictions; None if none are left, or their table is of another run."""
    shape = (int(results.iloc[0]["repeats"]), int(results.iloc[0]["n_images"]))
    try:
        columns = _first_block(out / PREDICTIONS_FILE)
    except (OSError, ValueError, KeyError, StopIteration, csv.Error):
        return None
    if len(columns["fold"]) != shape[0] * shape[1] or not records:
        return None
    images = slice(shape[1])
    if any(saved.sha256s != tuple(columns["sha256"][images]) for saved in records.values()):
        return None
    classes = {name: number for number, name in enumerate(results.iloc[0]["classes"])}
    return Predictions(
        targets=np.array([classes[label] for label in columns["label"][images]]),
        groups=np.array(columns["group"][images], dtype=np.int64),
        splits=np.array(columns["fold"], dtype=np.int64).reshape(shape),
        probabilities={
            model_id: read_probabilities(out, saved.configuration)[: shape[0]]
            for model_id, saved in records.items()
        },
    )


def _first_block(path: Path) -> dict[str, list[str]]:
    """Read the rows of the first configuration: images and folds are the same for all.

    The others' are not read: of a large data set they do not fit into memory as text.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.reader(file, strict=True)
        names = [unguarded(name) for name in next(reader)]
        first = next(reader)
        rows = [first, *takewhile(lambda row: row[0] == first[0], reader)]
    cells = zip(*rows, strict=True)
    return {
        name: [unguarded(cell) for cell in column]
        for name, column in zip(names, cells, strict=True)
    }


def _embeddings(
    cache: Path, winner: SavedHead | None, predictions: Predictions | None
) -> npt.NDArray[np.float32] | None:
    if winner is None or predictions is None:
        return None
    try:
        rows = Cache(cache, winner.recipe).read(winner.sha256s)
    except (CacheError, KeyError, OSError):
        return None
    values: npt.NDArray[np.float32] = rows.columns["embedding"]
    return values
