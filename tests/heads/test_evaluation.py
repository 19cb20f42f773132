"""Evaluation: a held-out set fills its own columns, and changes nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from gelkit.errors import GelkitError, UsageError
from gelkit.features.cache import Cache
from gelkit.heads.architectures import HEADS
from gelkit.heads.assessment import read_assessment
from gelkit.heads.comparison import compare
from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.heads.evaluation import evaluate, find_test_set
from gelkit.heads.metrics import score
from gelkit.heads.results import read_results
from gelkit.heads.training import Settings
from gelkit.images.catalog import Catalog, CatalogImage, read_catalog, write_manifest
from gelkit.report.page import write_report
from gelkit.tables import read_table

DrawImages = Callable[..., Catalog]
PublishEmbeddings = Callable[..., Cache]

SETTINGS = Settings(folds=2, repeats=1, epochs=2)
CHOSEN = choose_configurations(("cpu",), ("resnet18",), ("single",))


@dataclass(frozen=True)
class Project:
    """What a comparison left, and a held-out set whose embeddings are cached."""

    train: Catalog
    test: Catalog
    cache: Path
    out: Path

    def evaluate(self, test: Catalog | None = None) -> pd.DataFrame:
        """Score the saved heads."""
        return evaluate(self.out, self.test if test is None else test, cache=self.cache)

    def compare(
        self, configurations: tuple[Configuration, ...] = CHOSEN, settings: Settings = SETTINGS
    ) -> pd.DataFrame:
        """Compare as at first, or other configurations, or by other settings."""
        return compare(
            self.train,
            cache=self.cache,
            out=self.out,
            configurations=configurations,
            settings=settings,
        )


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    draw_images: DrawImages,
    publish_embeddings: PublishEmbeddings,
) -> Project:
    """Return a project before the evaluation."""
    folder = tmp_path_factory.mktemp("project")
    train = draw_images(folder / "gels", {"gel": 8, "photo": 8})
    test = draw_images(folder / "more_gels", {"gel": 5, "photo": 4}, start=100)
    for catalog in (train, test):
        publish_embeddings(catalog, folder / "features")
    project = Project(train, test, folder / "features", folder / "out")
    project.compare()
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """Return the project with a folder of results of its own."""
    shutil.copytree(made.out, tmp_path / "out")
    return replace(made, out=tmp_path / "out")


def _join(*catalogs: Catalog) -> Catalog:
    images = [image for catalog in catalogs for image in catalog.images]
    return replace(catalogs[0], images=tuple(images))


def _some(catalog: Catalog, count: int) -> Catalog:
    return replace(catalog, images=catalog.images[:count])


def test_cross_validated_columns_stay(project: Project) -> None:
    """A test set would choose the best configuration."""
    before = read_results(project.out / "results.csv")
    results = project.evaluate()
    pd.testing.assert_frame_equal(read_results(project.out / "results.csv"), results)
    own = [name for name in results.columns if not name.startswith("test_")]
    pd.testing.assert_frame_equal(results[own], before[own])
    assert before["test_accuracy"].isna().all()
    assert results["test_accuracy"].notna().all()


def test_test_columns_agree_with_the_predictions(project: Project) -> None:
    """Figures could not be computed again from the predictions that are kept."""
    results = project.evaluate()
    predictions = pd.read_csv(project.out / "test_predictions.csv")
    assert len(predictions) == 2 * 9
    for _, row in results.iterrows():
        its = predictions[predictions["model_id"] == row["model_id"]]
        assert list(its["image"]) == [image.name for image in project.test.images]
        assert list(its["label"]) == [image.label for image in project.test.images]
        targets = (its["label"] == "photo").to_numpy().astype(int)
        probabilities = its[["probability_gel", "probability_photo"]].to_numpy()
        predicted = np.array(["gel", "photo"])[probabilities.argmax(axis=1)]
        assert list(its["predicted"]) == list(predicted)
        assert row["test_accuracy"] == pytest.approx((predicted == its["label"]).mean())
        for name, value in score(targets, probabilities).columns("test_").items():
            assert row[name] == (value if name == "test_conf_mat" else pytest.approx(value))
        assert row["test_n_images"] == 9
        assert row["test_overlap"] == 0


def test_images_that_were_trained_on_are_counted(project: Project) -> None:
    """Figures that flatter would be taken for those of new images."""
    results = project.evaluate(_join(project.test, _some(project.train, 3)))
    assert list(results["test_overlap"]) == [3, 3]
    assert list(results["test_n_images"]) == [12, 12]
    assert list(project.evaluate()["test_overlap"]) == [0, 0]


def test_a_renamed_copy_of_a_training_image_is_counted(project: Project, tmp_path: Path) -> None:
    """Copying images into a test folder would hide that they were trained on."""
    (tmp_path / "copies" / "gel").mkdir(parents=True)
    shutil.copy(project.train.images[0].path, tmp_path / "copies" / "gel" / "new name.png")
    results = project.evaluate(_join(project.test, read_catalog(tmp_path / "copies")))
    assert list(results["test_overlap"]) == [1, 1]


def test_another_test_set_replaces_the_first(project: Project) -> None:
    """Figures of two test sets would be mixed in one row."""
    first = project.evaluate()
    second = project.evaluate(_some(project.test, 7))
    assert set(first["test_fingerprint"]).isdisjoint(second["test_fingerprint"])
    assert list(second["test_n_images"]) == [7, 7]
    again = project.evaluate()
    pd.testing.assert_frame_equal(again.assign(test_looks=1), first.assign(test_looks=1))
    assert [set(its["test_looks"]) for its in (first, second, again)] == [{1}, {1}, {2}]


def test_a_comparison_that_trains_nothing_keeps_the_test_columns(project: Project) -> None:
    """Running `heads` again would lose the evaluation."""
    evaluated = project.evaluate()
    pd.testing.assert_frame_equal(project.compare(), evaluated)


def _files(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.suffix != ".json"}


OUTDATED = {"report.html", "recheck.csv", "test_predictions.csv"}


def test_what_was_made_of_heads_goes_with_them(project: Project) -> None:
    """A report and test figures of heads that are gone would pass for those of the new ones."""
    project.evaluate()
    write_report(project.out, project.cache)
    before = _files(project.out)
    assert before >= {*OUTDATED, "plots/roc.png", "plots/roc.svg"}
    project.compare()  # the same again
    assert _files(project.out) == before
    results = project.compare(settings=replace(SETTINGS, epochs=3))
    assert before - _files(project.out) == OUTDATED | {
        name for name in before if name.startswith("plots")
    }
    assert not (project.out / "test_findings.json").exists()
    assert (project.out / "test_looks.json").exists()
    assert results["test_accuracy"].isna().all()


def test_when_one_head_goes_no_other_is_compared_with_it(project: Project) -> None:
    """A lead on the test set would be the one over a head that is no more."""
    project.evaluate()
    (project.out / f"heads/{CHOSEN[0].name}.keras").unlink()
    results = project.compare(CHOSEN[1:])
    assert list(results["model_id"]) == [CHOSEN[1].model_id]
    assert results["test_difference"].isna().all()
    assert not (project.out / "test_predictions.csv").exists()


def test_a_head_that_is_added_takes_nothing_away(project: Project) -> None:
    """Test figures would have to be had again, and count as another look, for nothing."""
    project.evaluate()
    results = project.compare(choose_configurations(("cpu",), ("resnet18",)))
    assert results["test_accuracy"].notna().tolist() == [True, True, False, False]
    assert (project.out / "test_predictions.csv").exists()


def test_an_unknown_class_is_refused(project: Project) -> None:
    """Images of a class that no head knows would count as errors, or as another class."""
    before = (project.out / "results.csv").read_bytes()
    first = replace(project.test.images[0], label="plasmid")
    other = replace(project.test, images=(first, *project.test.images[1:]))
    with pytest.raises(UsageError, match=r"classes gel, photo\. Received: the class 'plasmid'"):
        project.evaluate(other)
    assert (project.out / "results.csv").read_bytes() == before
    assert not (project.out / "test_predictions.csv").exists()


def test_a_class_that_the_test_set_spells_otherwise_is_named(project: Project) -> None:
    """A held-out class would be called unknown beside one that looks the same."""
    odd = tuple(replace(image, label=f"{image.label} ") for image in project.test.images)
    with pytest.raises(UsageError, match="Received: 'gel', 'gel '"):
        project.evaluate(replace(project.test, images=odd))


def test_a_test_set_of_one_class_is_scored(project: Project) -> None:
    """A set of photographs alone would be refused, or be counted as gels."""
    photos = tuple(image for image in project.test.images if image.label == "photo")
    results = project.evaluate(replace(project.test, images=photos))
    assert results["test_roc_auc"].isna().all()
    predictions = pd.read_csv(project.out / "test_predictions.csv")
    shares = (predictions["predicted"] == "photo").groupby(predictions["model_id"]).mean()
    assert list(results["test_accuracy"]) == pytest.approx(list(shares))
    for _, row in results.iterrows():
        assert [sum(counts) for counts in row["test_conf_mat"]] == [0, 4]


def test_images_without_labels_are_refused(project: Project) -> None:
    """A folder without class folders would end in a traceback."""
    unlabelled = CatalogImage(project.test.images[0].path, "0.png")
    catalog = replace(project.test, images=(unlabelled, *project.test.images[1:]))
    with pytest.raises(UsageError, match=r"Received: 1 without one in 'more_gels'"):
        project.evaluate(catalog)


@pytest.mark.parametrize("ending", ["keras", "json"])
def test_a_lost_file_of_a_head_is_named(ending: str, project: Project) -> None:
    """Rows of one table would have figures of different test sets."""
    before = (project.out / "results.csv").read_bytes()
    (project.out / "heads" / f"{CHOSEN[1].name}.{ending}").unlink()
    with pytest.raises(GelkitError, match=rf"{CHOSEN[1].name}.*gelkit heads DATA"):
        project.evaluate()
    assert (project.out / "results.csv").read_bytes() == before


def _wide(width: int, num_classes: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )


class _Own(keras.layers.Layer):
    def call(self, values: object) -> object:
        """Return the values as they are."""
        return values


def _with_a_layer_of_its_own(width: int, num_classes: int) -> keras.Model:
    dense = keras.layers.Dense(num_classes, activation="softmax")
    return keras.Sequential([keras.Input((width,)), _Own(), dense])


def _compare_with(head: Callable[[int, int], keras.Model], project: Project) -> str:
    """Compare a head of one's own, as another process whose table has it would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HEADS, "own", head)
        chosen = choose_configurations(("cpu",), ("resnet18",), ("own",), ("adam",))
        project.compare(chosen)
    return chosen[0].name


def test_a_head_of_ones_own_is_scored_where_its_table_lacks_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation would be refused, in the name of a head that never existed."""
    _compare_with(_wide, project)
    monkeypatch.setitem(HEADS, "deep", _wide)  # which has the same id here
    results = project.evaluate()
    assert list(results["model_id"]) == [1, 2, 37]
    assert results["classifier_head"].iloc[2] == "own"
    assert results["test_accuracy"].notna().all()


def test_a_head_that_cannot_be_had_is_named(project: Project) -> None:
    """A user would be told to train a head that never existed, or not which one."""
    name = _compare_with(_with_a_layer_of_its_own, project)
    with pytest.raises(GelkitError, match=rf"(?s){name}.*_Own.*import their module"):
        project.evaluate()
    (project.out / "heads" / f"{name}.json").unlink()
    with pytest.raises(GelkitError, match=rf"none for {name}\."):
        project.evaluate()


def test_names_that_are_no_utf8_reach_the_predictions(project: Project, tmp_path: Path) -> None:
    """After the evaluation, one file with an old name would end the run."""
    (tmp_path / "old" / "gel").mkdir(parents=True)
    name = os.fsdecode(b"g\xe9l.png")
    shutil.copy(project.test.images[0].path, tmp_path / "old" / "gel" / name)
    project.evaluate(read_catalog(tmp_path / "old"))
    columns, rows = read_table(project.out / "test_predictions.csv")
    assert [row[columns.index("image")] for row in rows] == [f"gel/{name}"] * 2


def test_a_folder_without_results_is_an_error_that_names_the_command(
    project: Project, tmp_path: Path
) -> None:
    """A user would see a FileNotFoundError."""
    with pytest.raises(UsageError, match=r"gelkit heads DATA"):
        evaluate(tmp_path, project.test, cache=project.cache)


def test_rows_marked_test_are_the_default_test_set(
    made: Project, draw_images: DrawImages, tmp_path: Path
) -> None:
    """What a manifest holds out could not be evaluated without repeating it."""
    assert find_test_set(made.out) is None
    marked = tuple(replace(image, split="test") for image in made.test.images)
    manifest = tmp_path / "manifest.csv"
    write_manifest(replace(made.train, images=made.train.images + marked), manifest)
    project = replace(made, train=read_catalog(manifest, allow_outside=True), out=tmp_path / "out")
    project.compare()
    test = find_test_set(project.out)
    assert test is not None
    results = project.evaluate(test)
    assert list(results["test_n_images"]) == [9, 9]
    assert list(results["test_overlap"]) == [0, 0]
    columns = ["test_accuracy", "test_roc_auc", "test_brier", "test_fingerprint"]
    by_folder = replace(project, test=made.test).evaluate()
    pd.testing.assert_frame_equal(results[columns], by_folder[columns])


def test_progress_is_reported_to_the_end(project: Project) -> None:
    """The bar would stand still, or stop short of the end."""
    calls: list[tuple[str, int, int]] = []
    evaluate(
        project.out,
        project.test,
        cache=project.cache,
        progress=lambda *call: calls.append(call),
    )
    assert [call for call in calls if call[0] == "score heads"] == [
        ("score heads", done, 2) for done in range(3)
    ]


def test_the_reference_is_what_cross_validation_chose(project: Project) -> None:
    """The test set would choose whom the others are compared with."""
    project.compare(choose_configurations(("cpu",), ("resnet18",)))
    results = project.evaluate()
    assert results["test_accuracy"].nunique() > 1
    assessment = read_assessment(project.out)
    assert assessment is not None
    winner = results[results["model_id"] == assessment.answer.winner].iloc[0]
    assert winner["test_difference"] == 0
    leads = results["test_accuracy"] - winner["test_accuracy"]
    np.testing.assert_allclose(results["test_difference"], leads, atol=1e-6)
    (project.out / "assessment.json").unlink()
    with pytest.raises(GelkitError, match=r"names the best by cross-validation.*gelkit heads DATA"):
        project.evaluate()


def test_training_images_that_changed_are_not_compared_with_silently(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Copies of training images would go unnoticed, and nobody be told."""
    project.evaluate()
    assert "not at hand" not in caplog.text
    manifest = project.out / "training.csv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[:-1]) + "\n")
    project.evaluate()
    assert "not at hand: some were moved or changed" in caplog.text
    manifest.unlink()
    caplog.clear()
    project.evaluate()
    assert "not at hand: " in caplog.text
