"""The assessment: what is said of a comparison is computed from its predictions, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gelkit.errors import UsageError
from gelkit.features.cache import Cache
from gelkit.heads import baselines
from gelkit.heads.assessment import Assessment, read_assessment
from gelkit.heads.comparison import compare
from gelkit.heads.configurations import choose_configurations
from gelkit.heads.intervals import accuracy_interval, estimand
from gelkit.heads.metrics import score
from gelkit.heads.probes import read_baselines
from gelkit.heads.results import read_results
from gelkit.heads.training import Settings
from gelkit.images.catalog import Catalog, read_catalog

DrawImages = Callable[..., Catalog]
PublishEmbeddings = Callable[..., Cache]

SETTINGS = Settings(folds=2, repeats=2, epochs=8)
HEADS = choose_configurations(("cpu",), ("resnet18",))


@dataclass(frozen=True)
class Compared:
    """What was compared, and where."""

    catalog: Catalog
    cache: Path
    out: Path
    results: pd.DataFrame

    @property
    def assessment(self) -> Assessment:
        """What was said of it."""
        assessment = read_assessment(self.out)
        assert assessment is not None
        return assessment

    def again(self, catalog: Catalog | None = None, **changes: Any) -> pd.DataFrame:
        """Compare into the same folder."""
        given: dict[str, Any] = {"configurations": HEADS, "settings": SETTINGS} | changes
        return compare(catalog or self.catalog, cache=self.cache, out=self.out, **given)


@pytest.fixture
def compared(
    tmp_path: Path, draw_images: DrawImages, publish_embeddings: PublishEmbeddings
) -> Compared:
    """Compare the four heads of resnet18 on images that are told apart rather well."""
    catalog = draw_images(tmp_path / "gels", {"gel": 12, "other": 12})
    publish_embeddings(catalog, tmp_path / "features", separation=1.0)
    made = Compared(catalog, tmp_path / "features", tmp_path / "out", pd.DataFrame())
    return replace(made, results=made.again())


def test_the_answer_is_that_of_the_predictions(compared: Compared) -> None:
    """The summary would name another winner than the table, or another score."""
    answer, results = compared.assessment.answer, compared.results
    best = results.loc[results["accuracy"].idxmax()]
    assert answer.winner == best["model_id"]
    assert answer.raw_score == pytest.approx(best["accuracy"])
    assert answer.corrected_score <= answer.raw_score
    assert answer.interval.low <= best["accuracy_low"]
    assert answer.interval.high >= best["accuracy_high"]
    assert answer.num_groups == 24
    assert compared.assessment.estimand == estimand(2)
    tied = results.loc[results["tied_with_best"] == "yes", "model_id"]
    assert tuple(tied) == answer.tied
    assert answer.winner in answer.tied
    assert answer.cheapest in answer.tied


def test_the_columns_of_a_row_are_those_of_its_predictions(compared: Compared) -> None:
    """Intervals would stand around another figure."""
    predictions = pd.read_csv(compared.out / "predictions.csv", dtype={"label": str})
    for _, row in compared.results.iterrows():
        its = predictions[predictions["model_id"] == row["model_id"]]
        right = (its["predicted"] == its["label"]).to_numpy().reshape(2, 24)
        groups = its["group"].to_numpy()[:24]
        bounds = accuracy_interval(right, groups)
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(
            (bounds.low, bounds.high)
        )
        for metric in ("precision", "recall", "f1", "balanced_accuracy", "roc_auc", "brier"):
            assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
        assert 0 <= row["ece"] <= 1
        assert row["ece_if_calibrated"] > 0


def test_contrasts_are_the_axes_and_the_anchor(compared: Compared) -> None:
    """Differences that nobody fixed beforehand would be tested until one is found."""
    names = [contrast.name for contrast in compared.assessment.contrasts]
    assert names == [
        "head: multi - single",
        "optimizer: sgd - adam",
        "head: single - logistic regression",
        "head: multi - logistic regression",
    ]


def test_baselines_are_scored_on_the_heads_splits(compared: Compared) -> None:
    """A probe would be compared with heads on easier splits."""
    table = read_baselines(compared.out / "baselines.csv")
    assert list(table["name"]) == ["majority", "intensity", "file", "logistic"]
    assert set(table["splits_fingerprint"]) == set(compared.results["splits_fingerprint"])
    assert set(table["dataset_fingerprint"]) == set(compared.results["dataset_fingerprint"])
    logistic = table[table["name"] == "logistic"].iloc[0]
    assert (logistic["pretrained_model"], logistic["hardware_type"]) == ("resnet18", "cpu")
    assert logistic["accuracy"] > table.loc[0, "accuracy"] == pytest.approx(0.5)
    assert logistic["accuracy_low"] < logistic["accuracy"] < logistic["accuracy_high"]


def test_what_was_assessed_is_not_assessed_again(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run would take as long as the first, or old words stand beside new heads."""
    before = (compared.out / "assessment.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(baselines, "cross_validate", None)  # whoever needs it fails
        compared.again()
    assert (compared.out / "assessment.json").read_bytes() == before
    compared.again(settings=replace(SETTINGS, seed=1))
    assert (compared.out / "assessment.json").read_bytes() != before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"answer": {"winner": 1}}'])
def test_a_damaged_assessment_is_made_again(content: str, compared: Compared) -> None:
    """A broken file would end every later run in a traceback."""
    path = compared.out / "assessment.json"
    before = path.read_bytes()
    path.write_text(content)
    assert read_assessment(compared.out) is None
    compared.again()
    assert path.read_bytes() == before


def test_a_positive_class_decides_precision_and_recall(compared: Compared) -> None:
    """The sensitivity to one class would be a mean over both."""
    results = compared.again(settings=replace(SETTINGS, positive="other"))
    assert set(results["positive"]) == {"other"}
    assert list(results["accuracy"]) == list(compared.results["accuracy"])
    for _, row in results.iterrows():
        (_, false), (missed, found) = row["conf_mat"]
        assert row["recall"] == pytest.approx(found / (missed + found))
        assert 0 <= false <= 12
    with pytest.raises(UsageError, match="Received: 'gels' and the classes gel, other"):
        compared.again(settings=replace(SETTINGS, positive="gels"))


def test_copies_are_cautioned_of(
    compared: Compared, tmp_path: Path, publish_embeddings: PublishEmbeddings
) -> None:
    """Twice the images would seem to say twice as much."""
    assert not any("groups" in caution for caution in compared.assessment.cautions)
    for image in compared.catalog.images[:2]:
        image.path.with_name(f"again-{image.path.name}").write_bytes(image.path.read_bytes())
    more = read_catalog(tmp_path / "gels")
    results = compared.again(more)
    assert set(results["n_images"]) == {26}
    assert set(results["n_groups"]) == {24}
    (caution,) = (c for c in compared.assessment.cautions if "groups" in c)
    assert caution.startswith("26 images are only 24 groups")


ODD_OR_EVEN = r"((?<=[13579])\.png|(?<=[02468])\.)"
"""Finds two sources in the numbers of the images."""


def test_sources_are_held_out_beside_the_cross_validation(compared: Compared) -> None:
    """A head that knows its imager would seem to know gels."""
    assert "on other imagers is unknown" in compared.assessment.cautions[-1]
    assert compared.results["source_accuracy"].isna().all()
    results = compared.again(source_regex=ODD_OR_EVEN)
    assert set(results["n_sources"]) == {2}
    assert (results["worst_source_accuracy"] <= results["source_accuracy"]).all()
    assert set(results["worst_source"]) <= {".png", "."}
    caution = compared.assessment.cautions[-1]
    assert "as a mean over 2 sources" in caution
    assert "Images that test each source (and train without it): '.' 12 (12), '.png' 12" in caution
    plain = compared.results["splits_fingerprint"].iloc[0]
    assert set(results["splits_fingerprint"]) != {plain}


def test_held_out_sources_change_no_cross_validated_figure(compared: Compared) -> None:
    """Naming sources would change the accuracy."""
    results = compared.again(source_regex=ODD_OR_EVEN)
    for name in ("accuracy", "roc_auc", "brier", "conf_mat", "ece"):
        assert list(results[name]) == list(compared.results[name])


def test_heads_of_one_class_per_source_are_compared_without_sources(
    compared: Compared, caplog: pytest.LogCaptureFixture
) -> None:
    """A laboratory that sent only gels would stop everything, or pass for a test of transfer."""
    results = compared.again(source_regex="^(gel|other)/")
    assert results["source_accuracy"].isna().all()
    assert "no source is held out" in caplog.text
    assert "sources were given, but none of them" in compared.assessment.cautions[-1]


@pytest.mark.exhaustive("exhaustive grids")
def test_the_same_inputs_give_the_same_files_whatever_the_workers(
    compared: Compared, tmp_path: Path
) -> None:
    """A colleague with more cores would get another table."""
    others = {
        workers: compare(
            compared.catalog,
            cache=compared.cache,
            out=tmp_path / f"out-{workers}",
            configurations=HEADS,
            settings=SETTINGS,
            workers=workers,
        )
        for workers in (1, 2)
    }
    times = ["training_time_secs", "inference_time_secs"]
    pd.testing.assert_frame_equal(others[1].drop(columns=times), others[2].drop(columns=times))
    for name in ("predictions.csv", "baselines.csv", "assessment.json"):
        assert (tmp_path / "out-1" / name).read_bytes() == (tmp_path / "out-2" / name).read_bytes()


def test_results_kept_nowhere_are_assessed_too(compared: Compared) -> None:
    """`tied_with_best` would be empty for whoever keeps no files."""
    results = compare(
        compared.catalog, cache=compared.cache, configurations=HEADS, settings=SETTINGS
    )
    assert list(results["tied_with_best"]) == list(compared.results["tied_with_best"])
    assert json.loads((compared.out / "assessment.json").read_text())["answer"]["tied"] == [
        row
        for row, tied in zip(results["model_id"], results["tied_with_best"], strict=True)
        if tied == "yes"
    ]
    assert list(read_results(compared.out / "results.csv")["tied_with_best"]) == list(
        results["tied_with_best"]
    )


@pytest.mark.exhaustive("exhaustive grids")
def test_chance_stays_chance(
    tmp_path: Path, draw_images: DrawImages, publish_embeddings: PublishEmbeddings
) -> None:
    """A leak between folds would show as skill on labels that mean nothing."""
    catalog = draw_images(tmp_path / "gels", {"gel": 40, "other": 40})
    publish_embeddings(catalog, tmp_path / "features", separation=0.0)
    results = compare(
        catalog, cache=tmp_path / "features", configurations=HEADS, settings=Settings(epochs=5)
    )
    assert (results["accuracy_low"] < 0.5).all()
    assert np.mean(results["accuracy"]) == pytest.approx(0.5, abs=0.12)
    targets = np.repeat([0, 1], 40)
    assert score(targets, np.tile([[0.6, 0.4]], (80, 1))).accuracy == 0.5
