"""The comparison: the same images and splits for all, and nothing is trained twice."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from gelkit.errors import UsageError
from gelkit.features.cache import Cache, Failure
from gelkit.features.embeddings import Embeddings
from gelkit.features.planning import MissingEmbeddingsError
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.workers import decoder_version
from gelkit.heads.architectures import HEADS, OPTIMIZERS
from gelkit.heads.assessment import read_assessment
from gelkit.heads.comparison import compare
from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.heads.datasets import dataset_fingerprint, warn_of_failures
from gelkit.heads.evaluation import find_test_set
from gelkit.heads.metrics import score
from gelkit.heads.results import read_results
from gelkit.heads.training import Settings, load_head
from gelkit.images.catalog import Catalog, read_catalog, write_manifest
from gelkit.report.verdict import describe_results
from gelkit.tables import read_table

DrawImages = Callable[..., Catalog]
MakeEmbeddings = Callable[..., Embeddings]
PublishEmbeddings = Callable[..., Cache]

SETTINGS = Settings(folds=2, repeats=2, epochs=2)
ON_CPU = choose_configurations(hardware=("cpu",))
SINGLE = choose_configurations(("cpu",), ("resnet18",), ("single",))
TIMES = ["training_time_secs", "inference_time_secs"]


@dataclass(frozen=True)
class Compared:
    """A data set, its cache with embeddings of resnet18 alone, and what was compared on it."""

    catalog: Catalog
    cache: Path
    out: Path
    results: pd.DataFrame
    warnings: list[str]

    def again(self, out: Path | None, **changes: Any) -> pd.DataFrame:
        """Compare the two ``single`` heads of resnet18, or as changed."""
        given: dict[str, Any] = {"configurations": SINGLE, "settings": SETTINGS} | changes
        catalog = given.pop("catalog", self.catalog)
        return compare(catalog, cache=self.cache, out=out, **given)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory,
    draw_images: DrawImages,
    publish_embeddings: PublishEmbeddings,
) -> Compared:
    """Return a comparison of all heads on the CPU, only resnet18's embeddings being cached."""
    folder = tmp_path_factory.mktemp("compared")
    catalog = draw_images(folder / "gels", {"001": 9, "NA": 7})
    publish_embeddings(catalog, folder / "features")
    heard = _Warnings()
    logging.getLogger("gelkit").addHandler(heard)
    try:
        results = compare(
            catalog,
            cache=folder / "features",
            out=folder / "out",
            configurations=ON_CPU,
            settings=SETTINGS,
        )
    finally:
        logging.getLogger("gelkit").removeHandler(heard)
    return Compared(catalog, folder / "features", folder / "out", results, heard.texts)


@pytest.fixture
def copied(compared: Compared, tmp_path: Path) -> Compared:
    """Return the comparison with a folder of results of its own."""
    shutil.copytree(compared.out, tmp_path / "out")
    return replace(compared, out=tmp_path / "out")


def _without_few_groups(warnings: list[str]) -> list[str]:
    """Leave out what is said of every class of these small data sets."""
    return [text for text in warnings if "below 30 no interval is narrow" not in text]


def _written(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((out / "heads").iterdir())}


def _changed(out: Path, before: dict[str, int]) -> set[str]:
    """Return the heads whose files were all written anew; none may be half new."""
    after = _written(out)
    names = {Path(name).stem for name in after}
    changed = {name for name in after if after[name] != before.get(name)}
    whole = {name for name in names if {f"{name}.{e}" for e in ("keras", "npy", "json")} <= changed}
    assert {Path(name).stem for name in changed} == whole
    return whole


def test_backbones_without_embeddings_are_left_out_and_named(compared: Compared) -> None:
    """Rows would be missing and nobody would know why, or what to do."""
    assert list(compared.results["model_id"]) == [1, 2, 3, 4]
    (warning,) = _without_few_groups(compared.warnings)
    assert "vgg16, mobilenet-v3 on cpu" in warning
    (given,) = compared.catalog.given
    command = f"gelkit features {given} --backbone vgg16 --backbone mobilenet-v3 --hardware cpu"
    assert command in warning


def test_results_are_written_as_returned(compared: Compared) -> None:
    """The file would say something else than the program."""
    pd.testing.assert_frame_equal(read_results(compared.out / "results.csv"), compared.results)


def test_rows_say_what_they_rest_on(compared: Compared) -> None:
    """A row could not be traced to its data, weights and settings."""
    recipe = make_recipe("resnet18", "cpu")
    expected = {
        "hardware_type": "cpu",
        "pretrained_model": "resnet18",
        "n_images": 16,
        "n_groups": 16,
        "device": "cpu (drawn)",
        "weights": recipe.weights,
        "numeric_precision": "float32",
        "seed": 0,
        "folds": 2,
        "repeats": 2,
    }
    for _, row in compared.results.iterrows():
        assert {name: row[name] for name in expected} == expected
        assert row["classes"] == ["001", "NA"]
        assert len(row["dataset_fingerprint"]) == len(row["cache_fingerprint"]) == 64
    for name in ("dataset_fingerprint", "splits_fingerprint", "cache_fingerprint"):
        assert compared.results[name].nunique() == 1


def test_nothing_is_trained_twice(copied: Compared) -> None:
    """Looking at results again would cost as much as the first time."""
    before = _written(copied.out)
    again = copied.again(copied.out, configurations=ON_CPU)
    assert _written(copied.out) == before
    pd.testing.assert_frame_equal(again, copied.results)


def test_results_of_other_data_are_not_overwritten(
    copied: Compared, draw_images: DrawImages, tmp_path: Path
) -> None:
    """Two data sets of one name would share a folder, and the first one's results be gone."""
    before = _written(copied.out)
    other = draw_images(tmp_path / "2024" / "gels", {"001": 9, "NA": 7}, start=100)
    with pytest.raises(UsageError, match=f"Received: those of '{copied.catalog.given[0]}'"):
        copied.again(copied.out, catalog=other)
    moved = read_catalog(shutil.copytree(copied.catalog.given[0], tmp_path / "moved"))
    (copied.out / "gelkit.json").unlink()  # what the message says
    copied.again(copied.out, catalog=moved, configurations=ON_CPU)
    assert _written(copied.out) == before


def test_other_settings_train_again(copied: Compared) -> None:
    """Results of 2 epochs would be shown as those of 3."""
    before = _written(copied.out)
    results = copied.again(copied.out, settings=replace(SETTINGS, epochs=3))
    assert _changed(copied.out, before) == {configuration.name for configuration in SINGLE}
    assert list(results["model_id"]) == [1, 2]  # the others are of other settings
    old = copied.results.iloc[:2]
    assert not np.array_equal(results["brier"], old["brier"])
    assert list(copied.again(None, settings=replace(SETTINGS, epochs=3))["brier"]) == list(
        results["brier"]
    )


HARM: dict[str, Callable[[Path], object]] = {
    "lost": lambda path: path.unlink(),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("ending", ["keras", "npy", "json"])
def test_a_harmed_head_alone_is_trained_again(ending: str, harm: str, copied: Compared) -> None:
    """A deleted file would be missed only when it is needed, or cost all the others."""
    before = _written(copied.out)
    HARM[harm](copied.out / "heads" / f"{SINGLE[1].name}.{ending}")
    again = copied.again(copied.out, configurations=ON_CPU)
    assert _changed(copied.out, before) == {SINGLE[1].name}
    unclocked = copied.results.drop(columns=TIMES)
    pd.testing.assert_frame_equal(again.drop(columns=TIMES), unclocked)


@pytest.mark.parametrize(
    ("ending", "harm", "obstacle"),
    [
        ("keras", "lost", "files lost or damaged"),
        ("npy", "lost", "files lost or damaged"),
        ("npy", "damaged", "files lost or damaged"),
        ("json", "damaged", "record damaged or of another version"),
    ],
)
def test_a_harmed_head_that_is_not_asked_for_is_left_out_and_named(
    ending: str, harm: str, obstacle: str, copied: Compared, caplog: pytest.LogCaptureFixture
) -> None:
    """Every comparison in the folder would end in a traceback, or a row vanish in silence."""
    HARM[harm](copied.out / "heads" / f"{ON_CPU[2].name}.{ending}")
    results = copied.again(copied.out)
    pd.testing.assert_frame_equal(results, copied.results.drop(2).reset_index(drop=True))
    assert set(_predictions(copied.out)["model_id"]) == {1, 2, 4}
    (warning,) = _without_few_groups(caplog.messages)
    assert f"results.csv: {ON_CPU[2].name} ({obstacle})." in warning


def test_heads_of_other_weights_are_left_out_and_named(
    copied: Compared,
    tmp_path: Path,
    publish_embeddings: PublishEmbeddings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One table would rank heads on ImageNet's weights beside heads on random ones."""
    shutil.copytree(copied.cache, tmp_path / "features")
    random = RecipeOptions(weights="random")
    publish_embeddings(copied.catalog, tmp_path / "features", options=random)
    both = replace(copied, cache=tmp_path / "features")
    results = both.again(copied.out, options=random)
    assert list(results["model_id"]) == [1, 2]
    assert set(results["weights"]) == {"random"}
    (warning,) = _without_few_groups(caplog.messages)
    for configuration in ON_CPU[2:4]:
        assert f"{configuration.name} (other recipe options)" in warning


SAME_RECIPE = {
    "weights elsewhere": (RecipeOptions(weights_dir=Path("elsewhere")), [1, 2, 3, 4]),
    "emulation that cpu has not": (RecipeOptions(emulate_tpu=True), [1, 2, 3, 4]),
    "a seed that weights have not": (RecipeOptions(weights_seed=5), [1, 2]),
}


@pytest.mark.parametrize("case", SAME_RECIPE)
def test_what_is_asked_for_is_never_left_out(case: str, copied: Compared) -> None:
    """Other words for the same recipe would give an empty table, or cost all training."""
    options, ids = SAME_RECIPE[case]
    before = _written(copied.out)
    results = copied.again(copied.out, options=options)
    assert list(results["model_id"]) == ids
    assert (_written(copied.out) == before) == (ids == [1, 2, 3, 4])


def test_other_settings_are_named_when_heads_are_left_out(
    copied: Compared, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows would vanish in silence."""
    copied.again(copied.out, settings=replace(SETTINGS, epochs=1))
    (warning,) = _without_few_groups(caplog.messages)
    for configuration in ON_CPU[2:4]:
        assert f"{configuration.name} (other settings)" in warning


AUTO: dict[str, tuple[dict[str, str], dict[int, str]]] = {
    "all imagenet": (
        {"resnet18": "imagenet", "vgg16": "imagenet"},
        {1: "pretrained", 2: "pretrained", 5: "pretrained", 6: "pretrained"},
    ),
    "some imagenet": ({"vgg16": "imagenet"}, {5: "pretrained", 6: "pretrained"}),
    "each backbone by itself": (
        {"resnet18": "random", "vgg16": "imagenet"},
        {1: "random", 2: "random", 5: "pretrained", 6: "pretrained"},
    ),
    "some random": ({"resnet18": "random"}, {1: "random", 2: "random"}),
}


@pytest.mark.parametrize("case", AUTO)
def test_auto_takes_what_is_cached(
    case: str,
    compared: Compared,
    tmp_path: Path,
    publish_embeddings: PublishEmbeddings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With one backbone of several cached, nothing could be compared."""
    cached, expected = AUTO[case]
    for backbone, name in cached.items():
        options = RecipeOptions(weights=name)
        publish_embeddings(compared.catalog, tmp_path, backbone=backbone, options=options)
    chosen = choose_configurations(("cpu",), ("resnet18", "vgg16"), ("single",))
    results = replace(compared, cache=tmp_path).again(
        None, configurations=chosen, options=RecipeOptions(weights="auto")
    )
    weights = ["random" if name == "random" else "pretrained" for name in results["weights"]]
    assert dict(zip(results["model_id"], weights, strict=True)) == expected
    assert ("RANDOM" in caplog.text) == ("random" in weights)
    assert ("left out" in caplog.text) == (len(expected) < 4)


def test_random_weights_never_win_against_pretrained_ones(
    compared: Compared, tmp_path: Path, publish_embeddings: PublishEmbeddings
) -> None:
    """A newcomer would be told to use a head that has learnt nothing from photographs."""
    for backbone, name in {"resnet18": "random", "vgg16": "imagenet"}.items():
        options = RecipeOptions(weights=name)
        publish_embeddings(compared.catalog, tmp_path, backbone=backbone, options=options)
    chosen = choose_configurations(("cpu",), ("resnet18", "vgg16"), ("single",))
    out = tmp_path / "out"
    results = replace(compared, cache=tmp_path).again(
        out, configurations=chosen, options=RecipeOptions(weights="auto")
    )
    assessment = read_assessment(out)
    assert assessment is not None
    assert assessment.answer.winner in (5, 6)
    assert set(assessment.answer.tied) <= {5, 6}
    assert assessment.answer.cheapest in (5, 6)
    said = results.set_index("model_id")["tied_with_best"]
    assert list(said[[1, 2]]) == ["", ""]
    assert said[assessment.answer.winner] == "yes"
    assert list(read_results(out / "results.csv")["tied_with_best"]) == list(said)
    text = describe_results(results, assessment, out)
    assert "2 rows with RANDOM weights are listed, and have no part in the answer" in " ".join(
        text.split()
    )
    assert "resnet18, single" not in text.partition("Take care")[0]


def test_auto_with_nothing_complete_says_how_much_is_missing(
    compared: Compared, tmp_path: Path, publish_embeddings: PublishEmbeddings
) -> None:
    """Someone whose embeddings are nearly complete would be told that all are missing."""
    fewer = replace(compared.catalog, images=compared.catalog.images[3:])
    publish_embeddings(fewer, tmp_path)
    (given,) = fewer.given
    command = f"gelkit features {given} --backbone resnet18 --hardware cpu --weights auto"
    with pytest.raises(MissingEmbeddingsError, match=f"16 images.* 3 of them.*{command}"):
        replace(compared, cache=tmp_path).again(None, options=RecipeOptions(weights="auto"))


def _wild(_: float) -> keras.Optimizer:
    return keras.optimizers.SGD(1e38)


def test_a_diverged_training_is_named_and_what_was_finished_is_kept(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One configuration would end the run in a traceback, and cost the others' training."""
    monkeypatch.setitem(OPTIMIZERS, "wild", _wild)
    chosen = choose_configurations(("cpu",), ("resnet18",), ("single",), ("adam", "wild"))
    with pytest.raises(UsageError, match=rf"{chosen[1].name}.*--learning-rate.*finished are kept"):
        compared.again(tmp_path, configurations=chosen)
    before = _written(tmp_path)
    assert {Path(name).stem for name in before} == {chosen[0].name}
    assert list(compared.again(tmp_path, configurations=chosen[:1])["model_id"]) == [1]
    after = _written(tmp_path)
    for ending in ("keras", "npy"):  # the record says since then how it compares
        name = f"{chosen[0].name}.{ending}"
        assert after[name] == before[name]


def test_names_that_are_no_utf8_reach_the_predictions(
    compared: Compared, tmp_path: Path, publish_embeddings: PublishEmbeddings
) -> None:
    """After all training, one file with an old name would end the run."""
    folder = shutil.copytree(compared.catalog.images[0].path.parents[1], tmp_path / "gels")
    (folder / "NA" / "12.png").rename(folder / "NA" / os.fsdecode(b"g\xe9l.png"))
    (folder / "001").rename(folder / os.fsdecode(b"\xe9"))
    catalog = read_catalog(folder)
    publish_embeddings(catalog, tmp_path / "features")
    marked = _marked(catalog, tmp_path, {0, len(catalog) - 1}, {})
    renamed = replace(compared, cache=tmp_path / "features")
    results = renamed.again(tmp_path / "out", catalog=marked)
    pd.testing.assert_frame_equal(read_results(tmp_path / "out" / "results.csv"), results)
    predictions = _predictions(tmp_path / "out")
    assert set(predictions["image"]) == {image.name for image in marked.only("train").images}
    assert set(predictions["label"]) == set(results["classes"][0]) == {"NA", os.fsdecode(b"\xe9")}
    test = find_test_set(tmp_path / "out")
    assert test is not None
    assert [image.path for image in test.images] == [
        image.path for image in marked.only("test").images
    ]


RELABELLED: dict[str, tuple[slice, str, list[str]]] = {
    "one image": (slice(0, 1), "NA", ["001", "NA"]),
    "a whole class": (slice(0, 9), "01", ["01", "NA"]),
}


@pytest.mark.parametrize("case", RELABELLED)
def test_corrected_labels_train_again(case: str, copied: Compared) -> None:
    """Heads would keep what mislabelled images taught them, or a class its old name."""
    chosen, label, classes = RELABELLED[case]
    before = _written(copied.out)
    images = list(copied.catalog.images)
    images[chosen] = [replace(image, label=label) for image in images[chosen]]
    corrected = replace(copied.catalog, images=tuple(images))
    results = copied.again(copied.out, catalog=corrected)
    assert _changed(copied.out, before) == {configuration.name for configuration in SINGLE}
    assert list(results["model_id"]) == [1, 2]
    assert list(results["classes"]) == [classes] * 2
    fingerprints = {*results["dataset_fingerprint"], *copied.results["dataset_fingerprint"]}
    assert len(fingerprints) == 2


def test_another_backbone_is_added_to_what_is_there(
    copied: Compared, tmp_path: Path, publish_embeddings: PublishEmbeddings
) -> None:
    """Comparing one backbone after another would end with the last one's results alone."""
    shutil.copytree(copied.cache, tmp_path / "features")
    publish_embeddings(copied.catalog, tmp_path / "features", backbone="vgg16")
    before = _written(copied.out)
    chosen = choose_configurations(("cpu",), ("vgg16",), ("single",))
    results = replace(copied, cache=tmp_path / "features").again(copied.out, configurations=chosen)
    assert list(results["model_id"]) == [1, 2, 3, 4, 5, 6]
    assert _changed(copied.out, before) == {configuration.name for configuration in chosen}
    pd.testing.assert_frame_equal(results.iloc[:4], copied.results)
    assert results["splits_fingerprint"].nunique() == 1
    assert results["cache_fingerprint"].nunique() == 2


def test_without_a_folder_the_results_are_the_same(compared: Compared) -> None:
    """The library and the command line would disagree."""
    results = compared.again(None)
    expected = compared.results.iloc[:2].drop(columns=TIMES)
    pd.testing.assert_frame_equal(results.drop(columns=TIMES), expected)


_KINDS = dict.fromkeys(("model_id", "repeat", "fold", "group"), int)


def _predictions(out: Path) -> pd.DataFrame:
    columns, rows = read_table(out / "predictions.csv")
    text = pd.DataFrame(rows, columns=pd.Index(columns, dtype=object), dtype=object)
    for name in columns:
        kind = float if name.startswith("probability_") else _KINDS.get(name, object)
        text[name] = text[name].astype(kind)
    return text


def test_predictions_agree_with_the_results(compared: Compared) -> None:
    """Figures could not be computed again from the predictions that are kept."""
    predictions = _predictions(compared.out)
    assert len(predictions) == 4 * 2 * 16
    for _, row in compared.results.iterrows():
        its = predictions[predictions["model_id"] == row["model_id"]]
        right = its["predicted"] == its["label"]
        assert right.groupby(its["repeat"]).mean().mean() == pytest.approx(row["accuracy"])
        recalls = right.groupby([its["repeat"], its["label"]]).mean()
        assert recalls.mean() == pytest.approx(row["balanced_accuracy"])
        counts = pd.crosstab(its["label"], its["predicted"]).reindex(
            index=row["classes"], columns=row["classes"], fill_value=0
        )
        assert (counts / 2).to_numpy().tolist() == row["conf_mat"]
        truth = (its["label"] == "NA").astype(float)
        assert ((its["probability_NA"] - truth) ** 2).mean() == pytest.approx(row["brier"])


def test_predictions_name_each_image_once_a_repeat(compared: Compared) -> None:
    """An error of a head could not be traced to its image."""
    predictions = _predictions(compared.out)
    names = [image.name for image in compared.catalog.images]
    for _, its in predictions.groupby(["model_id", "repeat"]):
        assert list(its["image"]) == names
        assert list(its["label"]) == [name.split("/")[0] for name in names]
        assert set(its["fold"]) == {0, 1}
    assert predictions.groupby(["repeat", "image"])["fold"].nunique().max() == 1
    total = predictions["probability_001"] + predictions["probability_NA"]
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    likelier = np.where(predictions["probability_NA"] > predictions["probability_001"], "NA", "001")
    assert list(predictions["predicted"]) == list(likelier)


def test_saved_heads_are_those_of_all_images(compared: Compared) -> None:
    """A saved head would not be the one that the row describes."""
    head = load_head(compared.out / "heads" / f"{SINGLE[0].name}.keras")
    cache = Cache(compared.cache, make_recipe("resnet18", "cpu"))
    sha256s = [sha256 for sha256, _ in cache.identities()]
    values = cache.read(sha256s).columns["embedding"]
    mean = head.get_layer("standardisation").mean.detach().cpu().numpy().ravel()
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-4, atol=1e-6)


def _marked(catalog: Catalog, folder: Path, test: set[int], groups: dict[int, str]) -> Catalog:
    images = tuple(
        replace(image, split="test" if i in test else "train", group=groups.get(i))
        for i, image in enumerate(catalog.images)
    )
    write_manifest(replace(catalog, images=images), folder / "manifest.csv")
    return read_catalog(folder / "manifest.csv", allow_outside=True)


def test_rows_marked_test_take_no_part_and_are_remembered(
    compared: Compared, tmp_path: Path
) -> None:
    """The held-out set would be trained on, or be forgotten before the evaluation."""
    out = tmp_path / "out"
    marked = _marked(compared.catalog, tmp_path, {0, 1, 12}, {})
    results = compared.again(out, catalog=marked)
    assert set(results["n_images"]) == {13}
    predicted = set(_predictions(out)["image"])
    assert predicted == {image.name for image in marked.only("train").images}
    test = find_test_set(out)
    assert test is not None
    assert [image.path for image in test.images] == [
        compared.catalog.images[i].path for i in (0, 1, 12)
    ]
    assert [image.label for image in test.images] == ["001", "001", "NA"]
    pd.testing.assert_frame_equal(
        compared.again(None, catalog=marked.only("train")).drop(columns=TIMES),
        results.drop(columns=TIMES),
    )
    compared.again(out, catalog=_marked(compared.catalog, tmp_path, set(), {}))
    assert find_test_set(out) is None


def test_the_users_groups_are_not_separated(compared: Compared, tmp_path: Path) -> None:
    """Photographs of one gel would be in training and in test."""
    groups = {0: "one gel", 4: "one gel", 8: "one gel", 10: "another", 11: "another"}
    out = tmp_path / "out"
    results = compared.again(out, catalog=_marked(compared.catalog, tmp_path, set(), groups))
    assert set(results["n_groups"]) == {16 - 2 - 1}
    predictions = _predictions(out)
    assert predictions.groupby(["repeat", "group"])["fold"].nunique().max() == 1
    sizes = predictions.drop_duplicates("image")["group"].value_counts()
    assert sorted(sizes[sizes > 1]) == [2, 3]


def _wide(width: int, num_classes: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )


def test_a_head_of_ones_own_is_compared_to_the_end(
    copied: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of heads could not be added to as the documentation promises."""
    monkeypatch.setitem(HEADS, "wide", _wide)
    chosen = choose_configurations(("cpu",), ("resnet18",), ("wide",), ("adam",))
    results = copied.again(copied.out, configurations=chosen)
    row = results.iloc[-1]
    assert list(results["model_id"][:4]) == [1, 2, 3, 4]
    assert row["model_id"] == 37
    assert row["classifier_head"] == "wide"
    predictions = _predictions(copied.out)
    its = predictions[predictions["model_id"] == row["model_id"]]
    assert (its["predicted"] == its["label"]).mean() == pytest.approx(row["accuracy"])
    head = load_head(copied.out / "heads" / f"{chosen[0].name}.keras")
    assert head.count_params() - 13 == (6 * 5 + 5) + (5 * 2 + 2)  # and mean, variance, count


def test_a_head_of_ones_own_that_is_not_there_is_left_out_and_named(
    copied: Compared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that took long to train would vanish in silence."""
    with monkeypatch.context() as patch:
        patch.setitem(HEADS, "wide", _wide)
        chosen = choose_configurations(("cpu",), ("resnet18",), ("wide",), ("adam",))
        copied.again(copied.out, configurations=chosen)
    assert list(copied.again(copied.out)["model_id"]) == [1, 2, 3, 4]
    (warning,) = _without_few_groups(caplog.messages)
    assert "37-cpu-resnet18-wide-adam (in none of the tables)" in warning


def test_nothing_cached_is_an_error_that_names_the_command(
    compared: Compared, tmp_path: Path
) -> None:
    """An empty table would be written."""
    chosen = choose_configurations(("cpu",), ("vgg16",))
    with pytest.raises(MissingEmbeddingsError, match=r"gelkit features .* --backbone vgg16"):
        compared.again(tmp_path / "out", configurations=chosen)
    assert not (tmp_path / "out").exists()


def test_one_class_is_refused(compared: Compared) -> None:
    """A head that cannot be wrong would be trained."""
    alone = replace(compared.catalog, images=compared.catalog.images[:9])
    with pytest.raises(UsageError, match=r"at least two classes .* Received: 1 \('001'\)"):
        compared.again(None, catalog=alone)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_in_two_spellings_is_refused(split: str, compared: Compared) -> None:
    """One class would be compared as two, or a test set be scored as of another class."""
    first, *others = compared.catalog.images
    odd = replace(first, label=f"{first.label} ", split=split)
    with pytest.raises(UsageError, match="'001', '001 '"):
        compared.again(None, catalog=replace(compared.catalog, images=(odd, *others)))


def test_images_that_one_backbone_lacks_take_no_part_and_are_named(
    compared: Compared,
    tmp_path: Path,
    publish_embeddings: PublishEmbeddings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Configurations would be compared on different images."""
    shutil.copytree(compared.cache, tmp_path / "features")
    fewer = replace(compared.catalog, images=compared.catalog.images[1:])
    cache = publish_embeddings(fewer, tmp_path / "features", backbone="vgg16")
    whole = Cache(tmp_path / "features", make_recipe("resnet18", "cpu"))
    ((sha256, _),) = whole.identities() - cache.identities()
    cache.record_failures([Failure("1.png", sha256, "broken", False, decoder_version())])
    chosen: tuple[Configuration, ...] = choose_configurations(("cpu",), ("resnet18", "vgg16"))
    results = replace(compared, cache=tmp_path / "features").again(None, configurations=chosen)
    assert set(results["n_images"]) == {15}
    assert results["splits_fingerprint"].nunique() == results["dataset_fingerprint"].nunique() == 1
    name = compared.catalog.images[0].name
    assert f"failed for another recipe than {whole.recipe.folder_name}:\n  {name}" in caplog.text


def test_progress_is_reported_to_the_end(compared: Compared) -> None:
    """The bar would stand still, or stop short of the end."""
    calls: list[tuple[str, int, int]] = []
    compared.again(None, progress=lambda *call: calls.append(call))
    assert calls[:3] == [("train 2 of 2 heads", done, 2) for done in range(3)]
    assert calls[3:] == [("train the baselines", done, 4) for done in range(5)]


def test_the_data_sets_fingerprint_tells_labels_and_not_order(
    make_embeddings: MakeEmbeddings,
) -> None:
    """Renaming files would look like other data, or another label like the same."""
    embeddings = make_embeddings(["gel", "photo", "gel", "photo"])
    fingerprint = dataset_fingerprint(embeddings)
    assert dataset_fingerprint(embeddings.take(np.array([2, 0, 3, 1]))) == fingerprint
    others = [
        make_embeddings(["gel", "photo", "photo", "photo"]),
        make_embeddings(["gel", "photo", "gel", "photo"], sha256s=["a", "b", "c", "d"]),
        embeddings.take(np.array([0, 1, 2])),
    ]
    assert len({fingerprint, *map(dataset_fingerprint, others)}) == 4


def test_scores_are_those_of_the_kept_predictions(compared: Compared) -> None:
    """Precision, recall and F1 of the table would be of other predictions."""
    predictions = _predictions(compared.out)
    for _, row in compared.results.iterrows():
        its = predictions[predictions["model_id"] == row["model_id"]]
        repeats = [
            score(
                (one["label"] == "NA").to_numpy().astype(int),
                one[["probability_001", "probability_NA"]].to_numpy(),
            )
            for _, one in its.groupby("repeat")
        ]
        for name in ("precision", "recall", "f1"):
            mean = np.mean([getattr(repeat, name) for repeat in repeats])
            assert row[name] == pytest.approx(mean)


def test_images_that_failed_are_listed_and_long_lists_are_cut(
    make_embeddings: MakeEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    """Dozens of reasons would run into one paragraph, or a name's line end forge another."""
    failures = tuple(Failure(f"{n}\n.png", "", "no image.", retry=False) for n in range(13))
    warn_of_failures(replace(make_embeddings(["gel"]), failures=failures))
    lines = caplog.messages[0].splitlines()
    assert lines[0] == "left out: 13 images that could not be read:"
    assert lines[1] == r"  0\n.png: no image."
    assert lines[10:] == [r"  9\n.png: no image.", "  and 3 more"]
