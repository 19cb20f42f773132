"""Contents: what a report can tell of a comparison, read from what it left on disk.

A part that is lost becomes a gap with its reason; only without results.csv is there no report.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError
from gelkit.features.cache import Cache
from gelkit.heads.assessment import ASSESSMENT_FILE, BASELINES_FILE, Assessment, read_assessment
from gelkit.heads.comparison import RESULTS_FILE, TRAINING_MANIFEST
from gelkit.heads.configurations import Configuration
from gelkit.heads.grouping import Groups
from gelkit.heads.held_out import read_findings
from gelkit.heads.metrics import Probabilities, Targets
from gelkit.heads.probes import read_baselines
from gelkit.heads.rechecks import Recheck, find_rechecks
from gelkit.heads.results import read_results
from gelkit.heads.reuse import configurations_of
from gelkit.heads.saved import SavedHead, read_probabilities, read_record
from gelkit.images.catalog import CatalogImage, part_name
from gelkit.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

_LOST = (OSError, ValueError, KeyError, GelkitError)
"""What is raised of files that are gone, damaged, or of something else."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class ComparedImages:
    """The images that were compared on, in the order of the heads' predictions."""

    images: tuple[CatalogImage, ...]
    """Named by their paths below the folder that they all are in."""
    sha256s: tuple[str, ...]
    """What they are known by."""
    groups: Groups

    def __len__(self) -> int:
        return len(self.images)

    @property
    def names(self) -> tuple[str, ...]:
        """How the report calls them."""
        return tuple(image.name for image in self.images)

    @property
    def labels(self) -> tuple[str, ...]:
        """Their labels, as they are written."""
        return tuple(str(image.label) for image in self.images)


@dataclass(frozen=True)
class Contents:
    """What is known of a comparison; what is not at hand is None, and a gap says why."""

    folder: Path
    results: pd.DataFrame
    assessment: Assessment | None
    baselines: pd.DataFrame | None
    best: SavedHead | None
    """The record of the best by cross-validation; of the highest accuracy without assessment."""
    images: ComparedImages | None
    probabilities: Probabilities | None
    """Of the best, out of fold, (repeats x images x classes)."""
    embeddings: npt.NDArray[np.float32] | None
    """What the best was trained on, (images x width)."""
    rechecks: tuple[Recheck, ...] | None
    findings: tuple[str, ...]
    """What was found of the test set, sentences; empty without an evaluation."""
    gaps: tuple[str, ...]

    @property
    def best_id(self) -> int:
        """The id of :attr:`best`, whose record may be lost."""
        return _best_id(self.results, self.assessment)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the columns of the probabilities stand for."""
        return tuple(self.results.iloc[0]["classes"])

    @property
    def targets(self) -> Targets:
        """The images' classes as numbers, (images,).

        :raises ValueError: the images are not known.
        """
        if self.images is None:
            raise ValueError("expected the images' labels, received none")
        return _targets(self.images.labels, self.classes)


@dataclass
class _Reader:
    """Reads parts, and notes of those that are lost what and why."""

    gaps: list[str] = field(default_factory=list)

    def read(self, what: str, read: Callable[..., Part], *needed: object) -> Part | None:
        """Return a part, or None and a gap; None alone where something needed is a gap already."""
        if any(its is None for its in needed):
            return None
        try:
            return read(*needed)
        except _LOST as error:
            reason = f"{error.args[0]!r} is not in it" if isinstance(error, KeyError) else error
            self.gaps.append(f"{what} not at hand: {reason}")
            return None


def read_contents(out: Path, cache: Path) -> Contents:
    """Read what :func:`gelkit.compare`, and perhaps :func:`gelkit.evaluate`, left.

    :param cache: the folder that holds the caches of all recipes.
    :raises UsageError: there is no results.csv, or one of another version.
    """
    results = read_results(out / RESULTS_FILE)
    reader = _Reader()
    assessment = reader.read("The answer is", _assessment, out)
    baselines = reader.read("The baselines are", read_baselines, out / BASELINES_FILE)
    heads = {its.model_id: its for its in configurations_of(results)}
    best_id = _best_id(results, assessment)
    best = reader.read("The record of the best head is", _record, out, heads[best_id])
    images = reader.read("The images' names and labels are", _images, out, best)
    predicted = reader.read("The predictions of the best are", _predicted, out, best)
    embeddings = reader.read("The embeddings of the best are", _embeddings, cache, best)
    tied = _tied(heads, assessment, best_id)
    rechecks = reader.read("What to recheck is", _rechecks, out, tied, images, results)
    return Contents(
        folder=out,
        results=results,
        assessment=assessment,
        baselines=baselines,
        best=best,
        images=images,
        probabilities=predicted,
        embeddings=embeddings,
        rechecks=rechecks,
        findings=tuple(read_findings(out)),
        gaps=tuple(reader.gaps),
    )


def _assessment(out: Path) -> Assessment:
    assessment = read_assessment(out)
    if assessment is None:
        raise ValueError(f"expected {ASSESSMENT_FILE} of this version; gelkit heads makes it")
    return assessment


def _best_id(results: pd.DataFrame, assessment: Assessment | None) -> int:
    if assessment is not None and assessment.answer.winner in set(results["model_id"]):
        return assessment.answer.winner
    return int(results["model_id"].iloc[int(results["accuracy"].argmax())])


def _record(out: Path, configuration: Configuration) -> SavedHead:
    record = read_record(out, configuration)
    if record is None:
        raise ValueError(f"expected a record of {configuration.name} of this version")
    return record


def _images(out: Path, best: SavedHead) -> ComparedImages:
    columns, cells = read_table(out / TRAINING_MANIFEST)
    rows = [dict(zip(columns, row, strict=True)) for row in cells]
    if len(rows) != len(best.sha256s):
        raise ValueError(
            f"expected {len(best.sha256s)} images in {TRAINING_MANIFEST}, received {len(rows)}"
        )
    above = os.path.commonpath([os.path.dirname(row["path"]) for row in rows])
    _, groups = np.unique([row["group"] for row in rows], return_inverse=True)
    return ComparedImages(
        images=tuple(_image(row, above) for row in rows),
        sha256s=best.sha256s,
        groups=groups.astype(np.int64),
    )


def _image(row: Mapping[str, str], above: str) -> CatalogImage:
    page, channel = (int(row[kind]) if row.get(kind) else None for kind in ("page", "channel"))
    return CatalogImage(
        path=Path(row["path"]),
        name=part_name(os.path.relpath(row["path"], above), page, channel),
        label=row["label"],
        page=page,
        channel=channel,
    )


def _predicted(out: Path, head: SavedHead) -> Probabilities:
    """Return the predictions of the cross-validation, without those of held-out sources."""
    probabilities = read_probabilities(out, head.configuration)[: head.settings.repeats]
    expected = (head.settings.repeats, len(head.sha256s), len(head.classes))
    if probabilities.shape != expected:
        raise ValueError(f"expected predictions of {expected}, received {probabilities.shape}")
    return probabilities


def _embeddings(root: Path, head: SavedHead) -> npt.NDArray[np.float32]:
    cache = Cache(root, head.recipe)
    try:
        values: npt.NDArray[np.float32] = cache.read(head.sha256s).columns["embedding"]
    except KeyError as error:
        raise ValueError(f"{cache.folder} lacks some of them, or all") from error
    return values


def _tied(
    heads: Mapping[int, Configuration], assessment: Assessment | None, best_id: int
) -> list[Configuration]:
    tied = {best_id} if assessment is None else {best_id, *assessment.answer.tied}
    return [its for model_id, its in heads.items() if model_id in tied]


def _rechecks(
    out: Path, tied: Sequence[Configuration], images: ComparedImages, results: pd.DataFrame
) -> tuple[Recheck, ...]:
    repeats = int(results.iloc[0]["repeats"])
    probabilities = np.stack([read_probabilities(out, its)[:repeats] for its in tied])
    return find_rechecks(_targets(images.labels, results.iloc[0]["classes"]), probabilities)


def _targets(labels: Sequence[str], classes: Sequence[str]) -> Targets:
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[label] for label in labels], dtype=np.int64)
