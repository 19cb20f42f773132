"""Probes: simple models on the heads' own splits; how good they are says what a score is worth."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gelkit.heads.metrics import Probabilities, Targets
from gelkit.heads.splits import Folds
from gelkit.images.likeness import INTENSITY_STATISTICS
from gelkit.tables import read_table, write_frame

logger = logging.getLogger(__name__)

Records = Mapping[str, npt.NDArray[Any]]
"""What stage one recorded of the images, each array named as in a cache's shards.

``embedding`` is (images x width), ``intensity`` (images x 13), the rest (images,).
"""

Matrix = npt.NDArray[np.floating]
"""(images x columns)"""

MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Probe:
    """A simple model, and what it means when it scores nearly as well as the best head."""

    name: str
    sees: str
    """Completes "a model that sees only ..."."""
    parts: Mapping[str, Callable[[Records], Matrix]]
    """What it sees, by name; nothing means that it knows the classes' frequencies alone."""
    meaning: str
    """Why a score close to the best's matters, and what to do; sentences."""
    worrying_share: float
    """The share of the best's lead over ``majority`` that makes it close in any case."""

    def inputs(self, records: Records) -> Matrix:
        """Return all that the probe sees, (images x columns); without columns for ``majority``."""
        count = len(next(iter(records.values())))
        columns = [np.empty((count, 0), np.float32), *(see(records) for see in self.parts.values())]
        inputs: Matrix = np.hstack(columns)
        return inputs


def dark_on_light(intensity: Matrix) -> npt.NDArray[np.bool_]:
    """Say of each image whether it is dark on light: its median is above its mean.

    Background fills more than half of a gel, so the median is background and the mean is drawn
    towards the bands. Inverting the picture inverts the answer; a tie is no.

    :param intensity: statistics of luminance, (images x 13).
    """
    return np.greater(_statistic(intensity, "percentile_50"), _statistic(intensity, "mean"))


def _statistic(intensity: Matrix, name: str) -> Matrix:
    values: Matrix = intensity[:, INTENSITY_STATISTICS.index(name)]
    return values


def _column(values: npt.NDArray[Any]) -> Matrix:
    return values.reshape(-1, 1).astype(np.float32)


def _indicators(values: npt.NDArray[Any]) -> Matrix:
    """Return a column of 0 and 1 for each distinct value."""
    indicators: Matrix = np.equal(values[:, np.newaxis], np.unique(values)).astype(np.float32)
    return indicators


def _pixels(records: Records) -> npt.NDArray[np.float64]:
    return records["height"].astype(np.float64) * records["width"]


def _intensity(records: Records, name: str) -> Matrix:
    return _column(_statistic(records["intensity"], name))


_PROBES = (
    Probe(
        name="majority",
        sees="how frequent the classes are",
        parts={},
        meaning=(
            "The best head cannot be told from always answering the most frequent class: nothing "
            "is shown to have been learnt. Add images, or look at balanced accuracy and AUC."
        ),
        worrying_share=1.0,
    ),
    Probe(
        name="intensity",
        sees="the distribution of brightness",
        parts={name: partial(_intensity, name=name) for name in INTENSITY_STATISTICS},
        meaning=(
            "The classes differ in exposure, contrast or background, and a head may know them by "
            "that. Add images of each class that are exposed like the other's, or test on images "
            "from elsewhere with gelkit evaluate."
        ),
        worrying_share=0.8,
    ),
    Probe(
        name="file",
        sees=(
            "properties of the file (size, aspect, bytes per pixel, format, mode, bit depth, "
            "polarity)"
        ),
        parts={
            "size": lambda records: _column(np.log(_pixels(records))),
            "aspect": lambda records: _column(np.log(records["width"] / records["height"])),
            "bytes per pixel": lambda records: _column(
                np.log(records["n_bytes"] / _pixels(records))
            ),
            "format": lambda records: _indicators(records["format"]),
            "mode": lambda records: _indicators(records["mode"]),
            "bit depth": lambda records: _indicators(records["bit_depth"]),
            "polarity": lambda records: _column(dark_on_light(records["intensity"])),
        },
        meaning=(
            "The classes were collected or stored in different ways. Heads see neither format nor "
            "mode, but they see what goes with them (sharpness, traces of compression, polarity), "
            "so the score need not hold for images from elsewhere. Collect the classes in one and "
            "the same way, or test with gelkit evaluate on images where they are."
        ),
        worrying_share=0.8,
    ),
    Probe(
        name="logistic",
        sees="the embedding (a logistic regression)",
        parts={"embedding": lambda records: records["embedding"]},
        meaning=(
            "What there is to know is in the backbone's embedding, and no more elaborate head is "
            "shown to be needed."
        ),
        worrying_share=1.0,
    ),
)

PROBES: Mapping[str, Probe] = {probe.name: probe for probe in _PROBES}
"""The probes by name; ``logistic`` is fitted once for each backbone and hardware type."""


def cross_validate(inputs: Matrix, targets: Targets, splits: Folds) -> Probabilities:
    """Return what a logistic regression says of each image when it has not trained on it.

    scikit-learn's, with C = 1 on inputs that are standardised on the training images; without
    inputs, the classes' frequencies among the training images. In one thread, so that the number
    of cores does not matter. A fit that did not converge is logged and used as it is.

    :param inputs: (images x columns), as of :meth:`Probe.inputs`.
    :param targets: class numbers, (images,); each class is in every training part, as
        :func:`gelkit.heads.splits.make_splits` sees to.
    :param splits: (repeats x images); images of a negative fold train always, and get NaN.
    :returns: (repeats x images x classes), float32.
    """
    from threadpoolctl import threadpool_limits

    shape = (*splits.shape, int(targets.max()) + 1)
    probabilities = np.full(shape, np.nan, dtype=np.float32)
    unconverged = 0
    with threadpool_limits(1):
        for predicted, folds in zip(probabilities, splits, strict=True):
            for fold in np.unique(folds[folds >= 0]):
                held_out = folds == fold
                model, converged = _fit(inputs[~held_out], targets[~held_out])
                predicted[held_out] = model.predict_proba(inputs[held_out])
                unconverged += not converged
    if unconverged:
        logger.warning(
            "%d fits of logistic regressions did not converge within %d steps: better scores may "
            "be possible",
            unconverged,
            MAX_ITERATIONS,
        )
    return probabilities


def _fit(inputs: Matrix, targets: Targets) -> tuple[Any, bool]:
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if inputs.shape[1] == 0:
        return DummyClassifier(strategy="prior").fit(inputs, targets), True
    regression = LogisticRegression(max_iter=MAX_ITERATIONS)
    model = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        # told from the number of steps instead; the other cause, a line search that ends at the
        # precision of float32, is no lack of convergence
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs, targets)
    return model, int(regression.n_iter_.max()) < MAX_ITERATIONS


def most_telling(
    probe: Probe, records: Records, targets: Targets, splits: Folds, most: int = 3
) -> dict[str, float]:
    """Return the parts of what a probe sees that tell most when seen alone, best first.

    Each with its cross-validated accuracy on the first repeat, which is enough to name them; those
    that do no better than the classes' frequencies are left out. A probe of one part has none.
    """
    if len(probe.parts) < 2:
        return {}
    chance = _accuracy(PROBES["majority"].inputs(records), targets, splits)
    alone = {name: _accuracy(see(records), targets, splits) for name, see in probe.parts.items()}
    telling = sorted((name for name in alone if alone[name] > chance), key=lambda n: -alone[n])
    return {name: alone[name] for name in telling[:most]}


def _accuracy(inputs: Matrix, targets: Targets, splits: Folds) -> float:
    probabilities = cross_validate(inputs, targets, splits[:1])
    return float(np.mean(probabilities[0].argmax(axis=1) == targets))


_SCORES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "brier")

BASELINE_COLUMNS: Mapping[str, str] = {
    "name": "str",
    "hardware_type": "str",
    "pretrained_model": "str",
    "sees": "str",
    "most_telling": "str",
    **dict.fromkeys(_SCORES, "float64"),
    **{f"{metric}_{end}": "float64" for metric in _SCORES for end in ("low", "high")},
    "conf_mat": "object",
    "n_images": "int64",
    "n_groups": "int64",
    "dataset_fingerprint": "str",
    "splits_fingerprint": "str",
}
"""The columns of baselines.csv in their order, and their types.

Hardware and backbone are empty where no embedding is seen; ``conf_mat`` holds lists; the
fingerprints are those of results.csv.
"""

_EMPTY = {"str": "", "float64": float("nan"), "object": None, "int64": 0}
_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "float64": lambda text: float(text or "nan"),
    "object": json.loads,
    "int64": int,
}


_SPOKEN: Mapping[str, str] = {
    "std": "contrast, the spread of brightness",
    "minimum": "the darkest pixel",
    "maximum": "the brightest pixel",
    "fraction_at_0": "the share of wholly black pixels",
    "fraction_at_1": "the share of wholly white pixels",
    **{
        name: f"the brightness that {name.removeprefix('percentile_')}% of the pixels stay below"
        for name in INTENSITY_STATISTICS
        if name.startswith("percentile_")
    },
    "mean": "the mean brightness",
    "size": "the number of pixels",
    "aspect": "height divided by width",
    "bytes per pixel": "how far the file is compressed",
    "format": "the file's format",
    "mode": "how the file stores grey or colour",
    "bit depth": "how many levels of grey the file can store",
    "polarity": "dark on light or light on dark",
}
"""The parts that probes see, in words."""

_TELLING = re.compile(r"(\w[\w ]*) \((\d\.\d\d)\)")
"""A part in the cell ``most_telling``."""


def describe_telling(telling: Mapping[str, float]) -> str:
    """Return the cell ``most_telling``, such as ``mode (1.00), format (0.77)``."""
    return ", ".join(f"{name} ({accuracy:.2f})" for name, accuracy in telling.items())


def make_baselines(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Make the table of the probes' rows, in their order; what a row lacks is empty.

    :raises ValueError: a row has a column of another name.
    """
    unknown = sorted({name for row in rows for name in row} - set(BASELINE_COLUMNS))
    if unknown:
        raise ValueError(f"expected columns of the baselines, received {', '.join(unknown)}")
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name, _EMPTY[dtype]) for row in rows], dtype=dtype)
            for name, dtype in BASELINE_COLUMNS.items()
        }
    )


def write_baselines(baselines: pd.DataFrame, path: Path) -> None:
    """Write a table made by :func:`make_baselines`; a reader never sees half of it."""
    written = baselines.assign(conf_mat=[json.dumps(value) for value in baselines["conf_mat"]])
    write_frame(written, path)


def read_baselines(path: Path) -> pd.DataFrame:
    """Read a table that :func:`write_baselines` wrote.

    :raises OSError: it cannot be read.
    :raises ValueError: it is another table.
    """
    columns, rows = read_table(path)
    if columns != list(BASELINE_COLUMNS):
        raise ValueError(f"expected the columns of baselines, received {', '.join(columns)}")
    return make_baselines(
        [
            {
                name: _PARSERS[dtype](cell)
                for (name, dtype), cell in zip(BASELINE_COLUMNS.items(), row, strict=True)
            }
            for row in rows
        ]
    )


def probe_sentences(best: Mapping[str, float], baselines: pd.DataFrame) -> list[str]:
    """Say which probes come close to the best configuration, what that means, and what to do.

    A probe is close if its accuracy reaches the best's interval, or its own share of the best's
    lead over ``majority``. Where ``majority`` is close itself, the others have nothing to say.

    :param best: ``accuracy``, ``accuracy_low`` and ``accuracy_high`` of the best configuration.
    :param baselines: as of :func:`make_baselines`, with ``majority``; several rows of one probe
        count as their best.
    """
    ranked = baselines.sort_values("accuracy", ascending=False, kind="stable")
    rows = {row["name"]: row for row in ranked.drop_duplicates("name").to_dict("records")}
    close = [name for name in PROBES if name in rows and _is_close(name, best, rows)]
    if "majority" in close:
        close = ["majority"]
    return [_sentence(PROBES[name], rows[name], best) for name in close]


def _is_close(name: str, best: Mapping[str, float], rows: Mapping[Any, Mapping[Any, Any]]) -> bool:
    accuracy, chance = rows[name]["accuracy"], rows["majority"]["accuracy"]
    share = PROBES[name].worrying_share
    return bool(
        accuracy >= best["accuracy_low"] or accuracy - chance >= share * (best["accuracy"] - chance)
    )


def _sentence(probe: Probe, row: Mapping[Any, Any], best: Mapping[str, float]) -> str:
    named = "; ".join(
        f"{_SPOKEN[name]} ({name}, {accuracy})"
        for name, accuracy in _TELLING.findall(row["most_telling"])
    )
    telling = f" Most telling alone: {named}." if named else ""
    return (
        f"A model that sees only {probe.sees} has an accuracy of {row['accuracy']:.2f} beside the "
        f"best's {best['accuracy']:.2f} (95% interval {best['accuracy_low']:.2f} to "
        f"{best['accuracy_high']:.2f}).{telling} {probe.meaning}"
    )
