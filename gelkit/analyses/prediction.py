"""Prediction: what a saved head says of new images, and how far that can be trusted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.analyses.abstention import MAX_ERROR, Abstention, choose_threshold
from gelkit.analyses.copies import find_near_known
from gelkit.analyses.neighbors import directions
from gelkit.analyses.novelty import Novelty, assess_novelty
from gelkit.analyses.temperature import Temperature, assess_temperature
from gelkit.features.cache import Cache, Failure
from gelkit.features.embeddings import Embeddings
from gelkit.features.extraction import Workforce
from gelkit.heads.reuse import (
    embed_for,
    find_best,
    find_model,
    load_trained_on,
    read_heads,
)
from gelkit.heads.saved import SavedHead, head_path, read_probabilities
from gelkit.heads.training import load_head
from gelkit.heads.training import predict as probabilities_of
from gelkit.images.catalog import Catalog
from gelkit.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

UNSURE = "unsure"
"""The outcome of an answer that may be wrong too often."""

SHOWN_NEIGHBORS = 5

_Copy: TypeAlias = tuple[str | None, str | None]
"""The names of training images: of one with the same bytes, and of one nearly so."""

_NEIGHBOR_COLUMNS = ("", "_path", "_label", "_cosine")

MOST_GROUPS = 2000
"""Of more, so many drawn at random show how far predictions can be trusted: enough for that."""

FAR_WARNING = "far from everything the head was trained on"
COPY_WARNING = "the head was trained on this very image"
NEAR_COPY_WARNING = "nearly a copy of a training image: the head has seen it"


@dataclass(frozen=True)
class Neighbor:
    """A training image that is near."""

    image: str
    """Its name: the path below the folder that all training images are in."""
    path: str
    """What it had when the head was trained."""
    label: str
    cosine: float
    """Of the two embeddings, -1 to 1."""


@dataclass(frozen=True)
class Prediction:
    """What a head says of one image."""

    image: str
    """Its name, as the catalog has it."""
    path: str
    sha256: str
    predicted: str
    """The class with the highest probability."""
    sure: bool
    probabilities: tuple[float, ...]
    """Of each class; calibrated if that is shown to help."""
    raw_probabilities: tuple[float, ...]
    """The head's own."""
    distance: float
    """From everything the head was trained on; about 1 is the most that is usual."""
    far: bool
    neighbors: tuple[Neighbor, ...]
    """The nearest training images, the nearest first."""
    copy_of: str | None
    """The name of the training image that has the same bytes."""
    near_copy_of: str | None = None
    """Otherwise that of one that shows the same picture, saved again or changed a little."""

    @property
    def outcome(self) -> str:
        """The class, or ``unsure``."""
        return self.predicted if self.sure else UNSURE

    @property
    def warning(self) -> str:
        """What makes the answer doubtful; empty if nothing is known of."""
        if self.copy_of is not None:
            return COPY_WARNING
        if self.near_copy_of is not None:
            return NEAR_COPY_WARNING
        return FAR_WARNING if self.far else ""


@dataclass(frozen=True)
class Reliability:
    """How far a head's predictions can be trusted, by those of its cross-validation."""

    temperature: Temperature
    abstention: Abstention
    novelty: Novelty


@dataclass(frozen=True)
class Predicted:
    """What a head says of images, and how it came to that."""

    head: SavedHead
    is_best: bool
    """Whether cross-validation chose this head."""
    tied: tuple[int, ...]
    """Ids of the others that are not separable from the best."""
    reliability: Reliability
    predictions: tuple[Prediction, ...]
    """In the catalog's order."""
    failures: tuple[Failure, ...]
    """The images that could not be read."""

    def table(self) -> pd.DataFrame:
        """Return a row for each image, those that failed last.

        :func:`gelkit.tables.write_frame` writes it such that any name is read back as it was.
        """
        import pandas as pd

        columns = _column_names(self.head.classes)
        rows = [_cells(prediction) for prediction in self.predictions]
        rows += [_failed_cells(failure, len(columns)) for failure in self.failures]
        names = pd.Index(columns, dtype=object)  # neither classes nor images need be UTF-8
        table = pd.DataFrame(rows, columns=names, dtype=object)
        for name in filter(_NUMERIC.match, columns):
            table[name] = table[name].astype(float)
        return table


def predict(
    out: str | Path,
    catalog: Catalog,
    *,
    model: int | Literal["best"] = "best",
    cache: str | Path = "features",
    max_error: float = MAX_ERROR,
    workforce: Workforce | None = None,
    progress: Progress = silent,
) -> Predicted:
    """Classify new images with a saved head; labels that the catalog has are not looked at.

    Images that the cache lacks are embedded, as the head expects them. Probabilities, what is sure,
    and what is far are judged by the predictions of the head's cross-validation, see
    :func:`gelkit.analyses.temperature.assess_temperature`,
    :func:`gelkit.analyses.abstention.choose_threshold` and
    :func:`gelkit.analyses.novelty.assess_novelty`. Answers for images that are far are never sure.

    :param out: the folder that :func:`gelkit.compare` wrote.
    :param model: an id of results.csv, or the one that cross-validation chose.
    :param max_error: of the answers that are sure, so many may be wrong.
    :raises UsageError: no results there, no such model, or an impossible ``max_error``.
    :raises GelkitError: the head or what it was trained on is lost or damaged, this version embeds
        by another recipe, or no image can be read.
    """
    folder = Path(out)
    heads = read_heads(folder)
    best = heads[find_best(heads, folder)]
    head = find_model(heads, model, folder)
    known = _Known(_with_hashes(load_trained_on(folder, head, cache), Path(cache)))
    out_of_fold = read_probabilities(folder, head.configuration)[: head.settings.repeats]
    reliability = known.assess(out_of_fold, max_error, head.settings.seed)
    with ThreadPoolExecutor(1) as loader:  # Keras takes seconds to import, and so do the workers
        loading = loader.submit(load_head, head_path(folder, head.configuration))
        embeddings = embed_for(head, catalog, cache=cache, workforce=workforce, progress=progress)
        raw = probabilities_of(loading.result(), embeddings.values)
    return Predicted(
        head=head,
        is_best=head is best,
        tied=_tied(heads, best),
        reliability=reliability,
        predictions=_describe(
            head.classes,
            embeddings,
            raw,
            known,
            reliability,
            known.copies(embeddings, head.settings.near_duplicates, progress),
        ),
        failures=embeddings.failures,
    )


def _tied(heads: Sequence[SavedHead], best: SavedHead) -> tuple[int, ...]:
    tied = [its for its in heads if its.row["tied_with_best"] == "yes" and its is not best]
    return tuple(its.configuration.model_id for its in tied)


def _with_hashes(training: Embeddings, cache: Path) -> Embeddings:
    """Return training images with their perceptual hashes, to find their near-copies by."""
    columns = Cache(cache, training.recipe).read(training.sha256s).columns
    return replace(training, records={"perceptual_hash": columns["perceptual_hash"]})


def _names_below(paths: Sequence[str]) -> tuple[str, ...]:
    """Return paths below the folder that all are in; as they are if there is no such."""
    try:
        above = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # some are in a store
        return tuple(paths)
    return tuple(os.path.relpath(path, above) for path in paths)


class _Known:
    """The training images: all of them as neighbours, a sample of their groups as judges."""

    def __init__(self, training: Embeddings) -> None:
        self._images = training
        self._directions = directions(training.values)
        _, groups = np.unique([str(its.group) for its in training.images], return_inverse=True)
        self._judges = _sample(groups)
        self._groups = groups[self._judges]
        self._names = _names_below(training.names)
        self._numbers = {digest: number for number, digest in enumerate(training.sha256s)}

    def assess(
        self, out_of_fold: npt.NDArray[np.float32], max_error: float, seed: int
    ) -> Reliability:
        """Judge a head by its out-of-fold predictions, (repeats x images x classes)."""
        targets = self._images.targets[self._judges]
        probabilities = out_of_fold[:, self._judges]
        temperature = assess_temperature(targets, probabilities, self._groups, seed=seed)
        novelty, far = assess_novelty(self._values, self._groups, seed=seed)
        calibrated = temperature.apply(probabilities)
        abstention = choose_threshold(targets, calibrated, self._groups, far, max_error=max_error)
        return Reliability(temperature, abstention, novelty)

    def distances(
        self, values: npt.NDArray[np.float32], novelty: Novelty
    ) -> npt.NDArray[np.float64]:
        """Return how far embeddings (images x width) lie from the judges, (images,)."""
        return novelty.distances(values, self._values)

    def neighbors(self, value: npt.NDArray[np.float32]) -> tuple[Neighbor, ...]:
        """Return the training images nearest to an embedding, (width,)."""
        cosines = self._directions @ directions(value[np.newaxis])[0]
        nearest = np.argsort(-cosines, kind="stable")[:SHOWN_NEIGHBORS]
        paths, labels = self._images.names, self._images.labels
        return tuple(
            Neighbor(self._names[i], paths[i], str(labels[i]), float(cosines[i]))
            for i in nearest.tolist()
        )

    def copies(self, new: Embeddings, nearly: bool, progress: Progress) -> list[_Copy]:
        """Return the names of what images are copies of: the same bytes, otherwise nearly so.

        :param nearly: look for those, too.
        """
        same = [self._numbers.get(digest) for digest in new.sha256s]
        others = [i for i, number in enumerate(same) if number is None]
        near: dict[int, int | None] = {}
        if nearly and others:
            found = find_near_known(new.take(np.array(others)), self._images, progress)
            near = dict(zip(others, found, strict=True))
        return [(self._name(its), self._name(near.get(i))) for i, its in enumerate(same)]

    def _name(self, number: int | None) -> str | None:
        return None if number is None else self._names[number]

    @property
    def _values(self) -> npt.NDArray[np.float32]:
        """The judges' embeddings."""
        return self._images.values[self._judges]


def _sample(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the images of at most :data:`MOST_GROUPS` groups, always the same ones."""
    numbers = np.random.default_rng(0).permutation(int(groups.max()) + 1)[:MOST_GROUPS]
    return np.flatnonzero(np.isin(groups, numbers))


def _describe(
    classes: Sequence[str],
    embeddings: Embeddings,
    raw: npt.NDArray[np.float32],
    known: _Known,
    reliability: Reliability,
    copies: Sequence[_Copy],
) -> tuple[Prediction, ...]:
    values = embeddings.values
    distances = known.distances(values, reliability.novelty)
    far = distances > reliability.novelty.threshold
    calibrated = reliability.temperature.apply(raw)
    sure = reliability.abstention.is_sure(calibrated, far)
    return tuple(
        Prediction(
            image=embeddings.names[i],
            path=embeddings.images[i].full_name,
            sha256=embeddings.sha256s[i],
            predicted=classes[int(raw[i].argmax())],
            sure=bool(sure[i]),
            probabilities=tuple(calibrated[i].tolist()),
            raw_probabilities=tuple(raw[i].tolist()),
            distance=float(distances[i]),
            far=bool(far[i]),
            neighbors=known.neighbors(values[i]),
            copy_of=copies[i][0],
            near_copy_of=copies[i][1],
        )
        for i in range(len(embeddings))
    )


_NUMERIC = re.compile(r"(raw_)?probability_|distance$|neighbor_\d+_cosine$")


def _column_names(classes: Sequence[str]) -> list[str]:
    nearest = range(1, SHOWN_NEIGHBORS + 1)
    return [
        *("image", "path", "sha256", "outcome", "predicted", "sure"),
        *(f"probability_{name}" for name in classes),
        *(f"raw_probability_{name}" for name in classes),
        *("distance", "far", "copy_of", "near_copy_of"),
        *(f"neighbor_{place}{what}" for place in nearest for what in _NEIGHBOR_COLUMNS),
        *("warning", "error"),
    ]


def _cells(prediction: Prediction) -> list[object]:
    """Return a prediction's cells, in the order of :func:`_column_names`."""
    neighbors = [
        cell
        for its in prediction.neighbors
        for cell in (its.image, its.path, its.label, its.cosine)
    ]
    missing = len(_NEIGHBOR_COLUMNS) * SHOWN_NEIGHBORS - len(neighbors)
    return [
        *(prediction.image, prediction.path, prediction.sha256),
        *(prediction.outcome, prediction.predicted),
        "yes" if prediction.sure else "no",
        *prediction.probabilities,
        *prediction.raw_probabilities,
        *(prediction.distance, "yes" if prediction.far else "no"),
        *(prediction.copy_of, prediction.near_copy_of),
        *neighbors,
        *[None] * missing,
        *(prediction.warning, None),
    ]


def _failed_cells(failure: Failure, width: int) -> list[object]:
    return [failure.name, None, failure.sha256, *[None] * (width - 4), failure.error]
