"""Baselines: the probes' rows, cross-validated on the very splits of the heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gelkit.features.embeddings import Embeddings
from gelkit.heads.datasets import Dataset
from gelkit.heads.intervals import bound_columns, intervals
from gelkit.heads.metrics import Probabilities, score_out_of_fold
from gelkit.heads.probes import (
    PROBES,
    Probe,
    cross_validate,
    describe_telling,
    make_baselines,
    most_telling,
)
from gelkit.progress import Progress, silent

ANCHOR = "logistic"
"""The probe that sees the embeddings: what a head must beat to be worth its name."""

FULLY_REPEATED_IMAGES = 2000
"""Of more images the probes are cross-validated once: a regression then takes minutes."""

_SAME_VALUE = 1e-4
"""Of the largest; what two devices' embeddings of one backbone may differ by rounding."""

Pair = tuple[str, str]
"""Backbone and hardware."""


@dataclass(frozen=True)
class Baselines:
    """What simple models reach."""

    table: pd.DataFrame
    """Columns as of :data:`gelkit.heads.probes.BASELINE_COLUMNS`."""
    anchors: Mapping[Pair, Probabilities]
    """What logistic regressions on the embeddings predict out of fold, (repeats x images x
    classes)."""


def score_baselines(dataset: Dataset, progress: Progress = silent) -> Baselines:
    """Cross-validate every probe, the one that sees embeddings for each backbone and hardware."""
    repeats = len(dataset.splits) if len(dataset.any) <= FULLY_REPEATED_IMAGES else 1
    rows: list[dict[str, Any]] = []
    anchors: dict[Pair, Probabilities] = {}
    total = len(PROBES) - 1 + len(dataset.embeddings)
    for probe, pair, embeddings in _contestants(dataset):
        progress("train the baselines", len(rows), total)
        splits = dataset.splits[:repeats]
        inputs = probe.inputs({**embeddings.records, "embedding": embeddings.values})
        twin = _twin(pair, dataset, anchors) if probe.name == ANCHOR else None
        probabilities = cross_validate(inputs, embeddings.targets, splits) if twin is None else twin
        if probe.name == ANCHOR:
            anchors[pair] = probabilities
        telling = most_telling(probe, embeddings.records, embeddings.targets, splits)
        row = _row(probe, pair, dataset, probabilities)
        rows.append(row | {"most_telling": describe_telling(telling)})
    progress("train the baselines", total, total)
    return Baselines(make_baselines(rows), anchors)


def _contestants(dataset: Dataset) -> Iterator[tuple[Probe, Pair, Embeddings]]:
    for probe in PROBES.values():
        if probe.name == ANCHOR:
            yield from ((probe, pair, its) for pair, its in dataset.embeddings.items())
        else:
            yield probe, ("", ""), dataset.any


def _twin(
    pair: Pair, dataset: Dataset, anchors: Mapping[Pair, Probabilities]
) -> Probabilities | None:
    """Return what was predicted from the same embeddings, made by another device."""
    values = dataset.embeddings[pair].values
    for other, probabilities in anchors.items():
        others = dataset.embeddings[other].values
        if others.shape == values.shape and np.allclose(
            others, values, rtol=0, atol=_SAME_VALUE * float(np.abs(values).max())
        ):
            return probabilities
    return None


def _row(
    probe: Probe, pair: Pair, dataset: Dataset, probabilities: Probabilities
) -> dict[str, Any]:
    targets, splits = dataset.any.targets, dataset.splits[: len(probabilities)]
    bounds = intervals(targets, probabilities, splits, dataset.groups, dataset.positive)
    return {
        "name": probe.name,
        "pretrained_model": pair[0],
        "hardware_type": pair[1],
        "sees": probe.sees,
        **score_out_of_fold(targets, probabilities, splits, dataset.positive).columns(),
        **bound_columns(bounds),
        "n_images": len(dataset.any),
        "n_groups": int(dataset.groups.max()) + 1,
        "dataset_fingerprint": dataset.fingerprint,
        "splits_fingerprint": dataset.splits_fingerprint,
    }
