"""Probes: they see what they say, on the heads' splits, and a leak is told in words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from gelkit.heads import probes
from gelkit.heads.metrics import Targets, score_out_of_fold
from gelkit.heads.probes import (
    BASELINE_COLUMNS,
    PROBES,
    cross_validate,
    dark_on_light,
    describe_telling,
    make_baselines,
    most_telling,
    probe_sentences,
    read_baselines,
    write_baselines,
)
from gelkit.heads.splits import Folds, make_splits
from gelkit.images.likeness import INTENSITY_STATISTICS, intensity_statistics

Records = dict[str, npt.NDArray[Any]]

COUNT = 60


def _records(seed: int = 0) -> Records:
    """Draw records that know nothing of any class."""
    generator = np.random.default_rng(seed)
    return {
        "height": generator.integers(200, 900, COUNT).astype(np.uint32),
        "width": generator.integers(200, 900, COUNT).astype(np.uint32),
        "bit_depth": generator.choice([8, 16], COUNT).astype(np.uint8),
        "n_bytes": generator.integers(5_000, 90_000, COUNT).astype(np.uint64),
        "format": generator.choice([b"PNG", b"JPEG", b"TIFF"], COUNT).astype("S16"),
        "mode": generator.choice([b"L", b"RGB"], COUNT).astype("S16"),
        "intensity": generator.random((COUNT, len(INTENSITY_STATISTICS))).astype(np.float32),
        "embedding": generator.normal(size=(COUNT, 300)).astype(np.float32),
    }


def _targets(num_classes: int = 2) -> Targets:
    return np.arange(COUNT, dtype=np.int64) % num_classes


def _splits(targets: Targets, repeats: int = 2) -> Folds:
    classes = [f"class {number}" for number in range(int(targets.max()) + 1)]
    return make_splits(targets, np.arange(COUNT), classes, repeats=repeats)


def _accuracy(name: str, records: Records, targets: Targets) -> float:
    splits = _splits(targets)
    predicted = cross_validate(PROBES[name].inputs(records), targets, splits)
    return score_out_of_fold(targets, predicted, splits).accuracy


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("majority", set()),
        ("intensity", {"intensity"}),
        (
            "file",
            {"height", "width", "bit_depth", "n_bytes", "format", "mode", "intensity"},
        ),
        ("logistic", {"embedding"}),
    ],
)
def test_a_probe_sees_what_it_says_and_nothing_else(name: str, seen: set[str]) -> None:
    """A score would be blamed on the file's format when another property gave the class away."""
    records, others = _records(0), _records(1)
    inputs = PROBES[name].inputs(records)
    assert len(inputs) == COUNT
    for key in records:
        changed = PROBES[name].inputs(records | {key: others[key]})
        assert (not np.array_equal(changed, inputs)) == (key in seen), key


def test_file_properties_are_those_of_the_file() -> None:
    """Size, aspect or compression would be called what they are not."""
    records = {
        "height": np.array([100, 200], np.uint32),
        "width": np.array([100, 50], np.uint32),
        "n_bytes": np.array([10_000, 5_000], np.uint64),
    }
    parts = PROBES["file"].parts
    assert np.exp(parts["size"](records)).ravel() == pytest.approx([10_000, 10_000], rel=1e-5)
    assert np.exp(parts["aspect"](records)).ravel() == pytest.approx([1, 0.25], rel=1e-5)
    assert np.exp(parts["bytes per pixel"](records)).ravel() == pytest.approx([1, 0.5], rel=1e-5)


def test_the_largest_images_have_finite_properties() -> None:
    """The product of height and width would overflow, and the probe fail on a big scan."""
    records = {name: np.array([2**32 - 1] * 2, np.uint32) for name in ("height", "width")}
    assert PROBES["file"].parts["size"](records).ravel() == pytest.approx(64 * np.log(2), rel=1e-6)


@settings(deadline=None)
@given(arrays(np.uint8, (4, 5)))
def test_inverting_a_picture_inverts_its_polarity(pixels: npt.NDArray[np.uint8]) -> None:
    """Polarity would mean something else, brightness for instance."""
    both = np.stack([intensity_statistics(pixels), intensity_statistics(255 - pixels)])
    median, mean = both[0, INTENSITY_STATISTICS.index("percentile_50")], both[0, 0]
    if abs(median - mean) > 1e-6:
        assert dark_on_light(both).sum() == 1


def test_dark_bands_on_a_light_gel_are_dark_on_light() -> None:
    """The two polarities would be called each other's name."""
    gel = np.full((20, 20), 220, np.uint8)
    gel[5:7, 3:15] = 30
    both = np.stack([intensity_statistics(gel), intensity_statistics(255 - gel)])
    assert dark_on_light(both).tolist() == [True, False]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_each_image_is_predicted_by_a_regression_that_has_not_seen_it(num_classes: int) -> None:
    """The anchor's figures could not be had again with scikit-learn, or be memory."""
    targets = _targets(num_classes)
    inputs, splits = _records()["intensity"], _splits(targets)
    predicted = cross_validate(inputs, targets, splits)
    assert predicted.dtype == np.float32
    for repeat, folds in enumerate(splits):
        for fold in range(5):
            rest, own = folds != fold, folds == fold
            scaler = StandardScaler().fit(inputs[rest])
            model = LogisticRegression().fit(scaler.transform(inputs[rest]), targets[rest])
            expected = model.predict_proba(scaler.transform(inputs[own]))
            np.testing.assert_allclose(predicted[repeat, own], expected, atol=1e-5)


def test_noise_scores_at_chance_and_the_same_twice() -> None:
    """With more columns than images a model that has seen an image knows its class by heart."""
    targets = _targets()
    assert 0.3 < _accuracy("logistic", _records(), targets) < 0.7
    inputs, splits = _records()["embedding"], _splits(targets)
    first = cross_validate(inputs, targets, splits)
    assert np.array_equal(first, cross_validate(inputs, targets, splits))


def test_majority_says_how_frequent_the_classes_are_among_training_images() -> None:
    """The zero of all scores would be wrong."""
    targets = (np.arange(COUNT) % 3 == 0).astype(np.int64)
    splits = _splits(targets)
    predicted = cross_validate(PROBES["majority"].inputs(_records()), targets, splits)
    for repeat, folds in enumerate(splits):
        for fold in range(5):
            prior = targets[folds != fold].mean()
            assert predicted[repeat, folds == fold, 1] == pytest.approx(prior)
    scores = score_out_of_fold(targets, predicted, splits)
    assert (scores.accuracy, scores.roc_auc) == (pytest.approx(2 / 3), 0.5)


def test_images_of_no_fold_train_and_are_not_predicted() -> None:
    """A source that cannot be held out would be scored, or lost to training."""
    inputs, targets = _records()["intensity"], _targets()
    folds = np.where(np.arange(COUNT) < 30, -1, np.arange(COUNT) % 3)[np.newaxis]
    predicted = cross_validate(inputs, targets, folds)[0]
    assert np.isnan(predicted[:30]).all()
    assert np.isfinite(predicted[30:]).all()
    without = np.arange(30, COUNT)
    alone = cross_validate(inputs[without], targets[without], folds[:, without])[0]
    assert not np.allclose(alone, predicted[30:])


def test_a_regression_that_stops_early_is_told_and_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A baseline that is too low would pass for what simple models can do."""
    targets = _targets()
    with caplog.at_level(logging.WARNING):
        cross_validate(_records()["embedding"], targets, _splits(targets))
    assert caplog.text == ""
    monkeypatch.setattr(probes, "MAX_ITERATIONS", 1)
    predicted = cross_validate(_records()["embedding"], targets, _splits(targets))
    assert np.isfinite(predicted).all()
    assert "10 fits of logistic regressions did not converge within 1 steps" in caplog.text


def _leaking(records: Records, targets: Targets, leak: str) -> Records:
    """Let one property give the classes away."""
    if leak == "mode":
        return records | {"mode": np.where(targets == 0, b"L", b"RGB").astype("S16")}
    if leak == "bytes per pixel":
        pixels = records["height"].astype(float) * records["width"]
        return records | {"n_bytes": (pixels * (targets + 1)).astype(np.uint64)}
    intensity = records["intensity"].copy()
    intensity[:, INTENSITY_STATISTICS.index(leak)] += 3 * targets
    return records | {"intensity": intensity}


@pytest.mark.parametrize(
    ("name", "leak"),
    [("file", "mode"), ("file", "bytes per pixel"), ("intensity", "std")],
)
def test_a_leak_is_found_and_named(name: str, leak: str) -> None:
    """A head that knows the classes by how files were stored would be believed."""
    targets = _targets()
    records = _leaking(_records(), targets, leak)
    assert _accuracy(name, records, targets) > 0.95
    telling = most_telling(PROBES[name], records, targets, _splits(targets))
    assert next(iter(telling)) == leak
    assert telling[leak] > 0.95
    rows = [
        _row("majority", 0.5),
        _row(name, 0.99) | {"most_telling": describe_telling(telling)},
    ]
    (sentence,) = probe_sentences(_best(0.97, 0.9), make_baselines(rows))
    assert "accuracy of 0.99 beside the best's 0.97 (95% interval 0.90 to 1.00)" in sentence
    told = sentence.partition("Most telling alone: ")[2]
    assert f" ({leak}, 1.00)" in told  # after what it is in words
    assert not told.startswith(leak)
    assert PROBES[name].meaning in sentence


def test_parts_that_tell_nothing_are_not_named() -> None:
    """The reader would be sent after properties that do not matter."""
    targets = _targets()
    records = {name: np.repeat(values[:1], COUNT, axis=0) for name, values in _records().items()}
    assert most_telling(PROBES["file"], records, targets, _splits(targets)) == {}
    assert most_telling(PROBES["logistic"], records, targets, _splits(targets)) == {}


def _row(name: str, accuracy: float) -> dict[str, Any]:
    return {"name": name, "sees": PROBES[name].sees, "accuracy": accuracy}


def _best(accuracy: float, low: float) -> dict[str, float]:
    return {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": 1.0}


@pytest.mark.parametrize(
    ("best", "accuracies", "named"),
    [
        (_best(0.97, 0.9), {"intensity": 0.85, "file": 0.7, "logistic": 0.89}, []),
        (_best(0.97, 0.9), {"intensity": 0.91, "file": 0.7, "logistic": 0.89}, ["intensity"]),
        (_best(0.97, 0.96), {"intensity": 0.89, "file": 0.7, "logistic": 0.95}, ["intensity"]),
        (_best(0.97, 0.9), {"intensity": 0.7, "file": 1.0, "logistic": 0.95}, ["file", "logistic"]),
        (_best(0.55, 0.45), {"intensity": 0.5, "file": 0.6, "logistic": 0.5}, ["majority"]),
        (_best(0.4, 0.35), {"intensity": 0.3, "file": 0.3, "logistic": 0.3}, ["majority"]),
    ],
    ids=[
        "all far",
        "inside the interval",
        "most of the lead on many images",
        "better than the best",
        "nothing learnt",
        "worse than the majority",
    ],
)
def test_probes_that_come_close_are_named(
    best: dict[str, float], accuracies: dict[str, float], named: list[str]
) -> None:
    """The reader would take a score for knowledge of gels, or be warned of nothing."""
    rows = [_row(name, accuracy) for name, accuracy in {"majority": 0.5, **accuracies}.items()]
    sentences = probe_sentences(best, make_baselines(rows))
    assert len(sentences) == len(named)
    for sentence, name in zip(sentences, named, strict=True):
        assert sentence.startswith(f"A model that sees only {PROBES[name].sees} has an accuracy")


def test_of_several_backbones_the_best_regression_counts() -> None:
    """The simplest model that is good enough would go unmentioned."""
    rows = [_row("majority", 0.5), *(_row("logistic", value) for value in (0.6, 0.95, 0.7))]
    (sentence,) = probe_sentences(_best(0.97, 0.9), make_baselines(rows))
    assert "0.95 beside" in sentence


TEXTS = st.sampled_from(["", "NA", "001", ' a,b"c', "é", "nan"])
CELLS = {
    "str": TEXTS,
    "float64": st.floats(allow_infinity=False),
    "int64": st.integers(0, 2**62),
    "object": st.none() | st.lists(st.lists(st.floats(0, 9), max_size=3), max_size=3),
}
SOME = ("name", "most_telling", "accuracy", "brier_low", "conf_mat", "n_images")
ROWS = st.fixed_dictionaries({}, optional={n: CELLS[BASELINE_COLUMNS[n]] for n in SOME})


@settings(deadline=None, max_examples=30)
@given(st.lists(ROWS, max_size=3))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Figures would lose digits, or a probe called NA its name."""
    path = tmp_path_factory.mktemp("baselines") / "baselines.csv"
    baselines = make_baselines(rows)
    write_baselines(baselines, path)
    pd.testing.assert_frame_equal(read_baselines(path), baselines, check_exact=True)


def test_the_scores_of_a_probe_are_columns(tmp_path: Path) -> None:
    """A metric would be missing from baselines.csv."""
    targets = _targets()
    splits = _splits(targets)
    predicted = cross_validate(PROBES["file"].inputs(_records()), targets, splits)
    scores = score_out_of_fold(targets, predicted, splits)
    write_baselines(make_baselines([scores.columns()]), tmp_path / "baselines.csv")
    (row,) = read_baselines(tmp_path / "baselines.csv").to_dict("records")
    assert {name: row[name] for name in scores.columns()} == scores.columns()
    assert [path.name for path in tmp_path.iterdir()] == ["baselines.csv"]


def test_a_column_of_another_name_is_refused() -> None:
    """A figure would be lost without a word."""
    with pytest.raises(ValueError, match="received acuracy"):
        make_baselines([{"acuracy": 1.0}])
