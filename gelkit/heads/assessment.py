"""Assessment: which configuration is best, how sure one can be, and what to doubt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gelkit.features.backbones import get_backbone
from gelkit.files import write_atomically
from gelkit.heads.baselines import Baselines, score_baselines
from gelkit.heads.contrasts import (
    AssessedContrast,
    anchor_contrasts,
    assess_contrasts,
    axis_contrasts,
    fold_scores,
    predicted_to_trained,
)
from gelkit.heads.datasets import Dataset
from gelkit.heads.intervals import Interval, estimand
from gelkit.heads.metrics import Probabilities
from gelkit.heads.probes import probe_sentences, write_baselines
from gelkit.heads.results import is_competing
from gelkit.heads.saved import SavedHead
from gelkit.heads.selection import Answer, Cost, choose_best
from gelkit.heads.sources import NONE_HELD_OUT, UNKNOWN_ELSEWHERE, score_sources, source_sentences
from gelkit.progress import Progress, silent

ASSESSMENT_FILE = "assessment.json"
BASELINES_FILE = "baselines.csv"


@dataclass(frozen=True)
class Assessment:
    """What may be said of a comparison."""

    answer: Answer
    estimand: str
    """What the cross-validated figures are figures of."""
    contrasts: tuple[AssessedContrast, ...]
    """Differences that were fixed beforehand: the axes, and the heads against the anchor."""
    cautions: tuple[str, ...]
    """Sentences: what makes the figures doubtful, and what to do about it."""
    heads: tuple[str, ...] = ()
    """The fingerprints of the heads that were assessed."""


def assess(
    dataset: Dataset,
    heads: Sequence[SavedHead],
    predictions: Sequence[Probabilities],
    out: Path | None,
    progress: Progress = silent,
) -> Assessment:
    """Assess heads that were compared on one data set, and keep that beside baselines.csv.

    What is in ``out`` already for the same heads is not computed again.

    :param predictions: of each head, (repeats x images x classes), one repeat more if sources were
        held out.
    :param out: None keeps nothing.
    """
    assessed = tuple(saved.fingerprint for saved in heads)
    if out is not None and (out / BASELINES_FILE).is_file():
        known = read_assessment(out)
        if known is not None and known.heads == assessed and _knows_of_sources(known, dataset):
            return known
    baselines = score_baselines(dataset, progress)
    rivals = list(compress(zip(heads, predictions, strict=True), find_competing(heads)))
    rival_heads, rival_predictions = [its for its, _ in rivals], [its for _, its in rivals]
    answer = _answer(dataset, rival_heads, rival_predictions)
    best = next(i for i, its in enumerate(rival_heads) if its.row["model_id"] == answer.winner)
    assessment = Assessment(
        answer=answer,
        estimand=estimand(dataset.settings.folds),
        contrasts=_contrasts(dataset, rival_heads, rival_predictions, baselines),
        cautions=tuple(_cautions(dataset, *rivals[best], baselines.table)),
        heads=assessed,
    )
    if out is not None:
        write_baselines(baselines.table, out / BASELINES_FILE)
        write_atomically(out / ASSESSMENT_FILE, json.dumps(asdict(assessment), indent=1).encode())
    return assessment


def find_competing(heads: Sequence[SavedHead]) -> list[bool]:
    """Tell which heads can be the best: those with random weights only where all have them."""
    return is_competing([saved.row["weights"] for saved in heads])


def read_assessment(out: Path) -> Assessment | None:
    """Read what :func:`assess` kept; None if it is not there or of another version."""
    try:
        values: dict[str, Any] = json.loads((out / ASSESSMENT_FILE).read_bytes())
        answer = dict(values["answer"])
        answer["interval"] = Interval(**answer["interval"])
        answer["tied"] = tuple(answer["tied"])
        return Assessment(
            answer=Answer(**answer),
            estimand=values["estimand"],
            contrasts=tuple(AssessedContrast(**contrast) for contrast in values["contrasts"]),
            cautions=tuple(values["cautions"]),
            heads=tuple(values.get("heads", ())),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _losses(
    targets: npt.NDArray[np.int64], predictions: Sequence[Probabilities], repeats: int
) -> npt.NDArray[np.float32]:
    """Return 1 for each wrong prediction, else 0, (configurations x repeats x images)."""
    wrong = [its[:repeats].argmax(axis=2) != targets for its in predictions]
    return np.stack(wrong).astype(np.float32)


def _answer(
    dataset: Dataset, heads: Sequence[SavedHead], predictions: Sequence[Probabilities]
) -> Answer:
    targets = dataset.any.targets
    return choose_best(
        _losses(targets, predictions, len(dataset.splits)),
        targets,
        dataset.groups,
        costs=[_cost(saved) for saved in heads],
        seed=dataset.settings.seed,
    )


def _cost(saved: SavedHead) -> Cost:
    return Cost(
        giga_operations=get_backbone(saved.configuration.backbone).giga_operations,
        head_parameters=saved.row["head_parameters"],
        model_id=saved.configuration.model_id,
    )


def _contrasts(
    dataset: Dataset,
    heads: Sequence[SavedHead],
    predictions: Sequence[Probabilities],
    baselines: Baselines,
) -> tuple[AssessedContrast, ...]:
    configurations = [saved.configuration for saved in heads]
    contrasts = axis_contrasts(configurations)
    anchors = baselines.anchors
    everything = [*predictions]
    if all(len(its) == len(dataset.splits) for its in anchors.values()):
        places = [(hardware, backbone) for backbone, hardware in anchors]
        contrasts += anchor_contrasts(configurations, places, "logistic regression")
        everything += anchors.values()
    losses = _losses(dataset.any.targets, everything, len(dataset.splits))
    scores = fold_scores(1 - losses, dataset.splits)
    return assess_contrasts(contrasts, scores, predicted_to_trained(dataset.splits))


def _cautions(
    dataset: Dataset, best: SavedHead, predicted: Probabilities, baselines: pd.DataFrame
) -> list[str]:
    return [
        *_of_groups(dataset),
        *probe_sentences(best.row, baselines),
        *_of_sources(dataset, best, predicted),
    ]


def _of_groups(dataset: Dataset) -> list[str]:
    images, groups = len(dataset.any), int(dataset.groups.max()) + 1
    if groups == images:
        return []
    found = "near-identical or of one group" if dataset.settings.near_duplicates else "of one group"
    return [
        f"{images} images are only {groups} groups: the others are copies, {found}, so the data "
        "say less than their number promises. Splits keep groups together. Add different images."
    ]


def _knows_of_sources(known: Assessment, dataset: Dataset) -> bool:
    """Tell whether an assessment says the same of sources that could not be held out, or none."""
    return dataset.sources is not None or _why_unknown(dataset) in known.cautions


def _why_unknown(dataset: Dataset) -> str:
    given = any(image.source for image in dataset.any.images)
    return NONE_HELD_OUT if given else UNKNOWN_ELSEWHERE


def _of_sources(dataset: Dataset, best: SavedHead, predicted: Probabilities) -> list[str]:
    if dataset.sources is None:
        return [_why_unknown(dataset)]
    kept = dataset.sources.kept
    scores = score_sources(
        dataset.any.targets[kept], predicted[len(dataset.splits) :, kept], dataset.sources
    )
    return source_sentences(dataset.sources, scores, best.row["accuracy"])
