"""Prediction: what is said of new images is the head's own, and what makes it doubtful is said."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gelkit.analyses import prediction
from gelkit.analyses.prediction import SHOWN_NEIGHBORS, Predicted, predict
from gelkit.errors import GelkitError, UsageError
from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.heads.comparison import compare
from gelkit.heads.configurations import choose_configurations
from gelkit.heads.reuse import read_heads
from gelkit.heads.saved import head_path
from gelkit.heads.training import Settings, load_head
from gelkit.heads.training import predict as probabilities_of
from gelkit.images.catalog import Catalog, CatalogImage, read_catalog
from gelkit.report.predicted import describe_predictions
from gelkit.tables import read_table, write_frame

WIDTH = 8
CLASSES = ("gel", "other", "photo")
OPTIONS = RecipeOptions(weights="random")
CHOSEN = choose_configurations(("cpu",), ("resnet18",), ("single",))


@dataclass(frozen=True)
class Project:
    """What a comparison left, and new images whose embeddings are cached."""

    train: Catalog
    new: Catalog
    cache: Path
    out: Path

    def predict(self, catalog: Catalog | None = None, **options: object) -> Predicted:
        """Predict the new images, or others."""
        options = {"max_error": 0.1} | options
        return predict(self.out, catalog or self.new, cache=self.cache, **options)


def _draw(folder: Path, numbers: range, classes: tuple[str, ...]) -> Catalog:
    """Write tiny images, all different, in turn into a folder for each class."""
    for number in numbers:
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return read_catalog(folder)


def _embedding(digest: str, label: str) -> np.ndarray:
    values = np.random.default_rng(int(digest[:8], 16)).normal(size=WIDTH)
    values[CLASSES.index(label) if label in CLASSES else -1] += 6 if label in CLASSES else 60
    return values


def _publish(catalog: Catalog, root: Path, hashes: Sequence[int] | None = None) -> None:
    """Put embeddings into a cache, as if stage one had made them."""
    digests = [sha256(image.path.read_bytes()).hexdigest() for image in catalog.images]
    columns: dict[str, object] = dict.fromkeys(COLUMNS, np.zeros(len(catalog)))
    columns |= dict.fromkeys(("height", "width", "bit_depth", "n_bytes"), np.ones(len(catalog)))
    columns |= {
        "sha256": digests,
        "embedding": [
            _embedding(digest, str(image.label))
            for digest, image in zip(digests, catalog.images, strict=True)
        ],
        "perceptual_hash": hashes or [int(digest[:16], 16) for digest in digests],
        "intensity": np.random.default_rng(0).random((len(catalog), 13), np.float32),
    }
    rows = make_rows(columns, {"weights_sha256": "", "device": "cpu (drawn)"})
    Cache(root, make_recipe("resnet18", "cpu", OPTIONS)).publish(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that nobody changes."""
    folder = tmp_path_factory.mktemp("project")
    train = _draw(folder / "my_gels", range(60), CLASSES)
    new = _draw(folder / "new", range(100, 112), (*CLASSES, "strange"))
    for catalog in (train, new):
        _publish(catalog, folder / "features")
    project = Project(train, new, folder / "features", folder / "out")
    compare(
        train,
        cache=project.cache,
        out=project.out,
        configurations=CHOSEN,
        options=OPTIONS,
        settings=Settings(folds=2, repeats=2, epochs=20, learning_rate=0.03),
    )
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """Return the project with a folder of results of its own."""
    shutil.copytree(made.out, tmp_path / "out")
    return replace(made, out=tmp_path / "out")


@pytest.fixture(scope="module")
def predicted(made: Project) -> Predicted:
    """Return what the best head says of the new images."""
    return made.predict()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _only(catalog: Catalog, *places: int) -> Catalog:
    return replace(catalog, images=tuple(catalog.images[place] for place in places))


def test_images_get_the_class_of_those_like_them(predicted: Predicted, made: Project) -> None:
    """The answers, or the classes' names, would be exchanged."""
    sure = 0
    for its, image in zip(predicted.predictions, made.new.images, strict=True):
        assert its.image == image.name
        if image.label in CLASSES:
            assert its.predicted == image.label
            assert {neighbor.label for neighbor in its.neighbors} == {image.label}
            assert its.outcome in (image.label, "unsure")
            assert its.outcome == image.label or its.far
            sure += its.sure
    assert sure >= 7  # of nine


def test_images_of_another_kind_are_far_and_unsure(predicted: Predicted) -> None:
    """What is neither would be called a gel for sure, since it must be something."""
    strange = [its for its in predicted.predictions if its.image.startswith("strange/")]
    assert len(strange) == 3
    for its in strange:
        assert its.far
        assert its.distance > predicted.reliability.novelty.threshold
        assert (its.sure, its.outcome) == (False, "unsure")
        assert "far from everything" in its.warning


def test_probabilities_are_the_heads_own_and_calibrated_by_what_is_said(
    predicted: Predicted, made: Project
) -> None:
    """Nobody could find out how a probability came about."""
    head = load_head(head_path(made.out, predicted.head.configuration))
    digests = [its.sha256 for its in predicted.predictions]
    rows = Cache(made.cache, predicted.head.recipe).read(digests)
    own = probabilities_of(head, rows.columns["embedding"])
    raw = np.array([its.raw_probabilities for its in predicted.predictions])
    np.testing.assert_allclose(raw, own, atol=1e-6)
    calibrated = np.array([its.probabilities for its in predicted.predictions])
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(calibrated, predicted.reliability.temperature.apply(own), atol=1e-6)


def test_an_image_alone_gets_the_row_that_it_gets_among_many(
    predicted: Predicted, made: Project
) -> None:
    """The answer for an image would depend on what else is in the folder."""
    among = predicted.table()
    for place in (0, 7):
        alone = made.predict(_only(made.new, place)).table().iloc[0]
        for column, cell in alone.items():
            other = among.iloc[place][column]
            assert other == cell or other == pytest.approx(cell, abs=1e-5, nan_ok=True), column


def test_neighbors_are_the_nearest_training_images(predicted: Predicted, made: Project) -> None:
    """The evidence shown for an answer would be no evidence."""
    cache = Cache(made.cache, predicted.head.recipe)
    known = cache.read(predicted.head.sha256s).columns["embedding"].astype(np.float64)
    labels = [image.label for image in made.train.images]
    for its in predicted.predictions:
        value = cache.read([its.sha256]).columns["embedding"][0]
        cosines = known @ value / np.linalg.norm(known, axis=1) / np.linalg.norm(value)
        nearest = np.argsort(-cosines)[:SHOWN_NEIGHBORS]
        assert [n.cosine for n in its.neighbors] == pytest.approx(cosines[nearest], abs=1e-5)
        assert [n.label for n in its.neighbors] == [labels[i] for i in nearest]
        paths = [str(made.train.images[i].path.resolve()) for i in nearest]
        assert [n.path for n in its.neighbors] == paths
        assert [n.image for n in its.neighbors] == [made.train.images[i].name for i in nearest]


def test_copies_of_training_images_are_named(made: Project, tmp_path: Path) -> None:
    """A user would take what the head learned by heart for a proof that it works."""
    copied = made.train.images[4]
    shutil.copy(copied.path, tmp_path / "new_name.png")
    result = made.predict(read_catalog(tmp_path / "new_name.png"))
    (its,) = result.predictions
    assert (its.copy_of, its.near_copy_of) == (copied.name, None)
    assert (its.image, its.path) == ("new_name.png", str(tmp_path / "new_name.png"))
    assert its.neighbors[0].image == its.copy_of
    assert its.neighbors[0].cosine == pytest.approx(1)
    assert not its.far
    assert "trained on this very image" in its.warning
    assert f"  copy of {copied.label}/{copied.path.name}:" in describe_predictions(result)


@pytest.fixture
def near(made: Project, tmp_path: Path) -> Project:
    """Return the project with two new images whose hashes are near to that of a training image.

    ``darker.png`` is a copy of that, ``other.png`` is not.
    """
    known = made.train.images[4].path
    shutil.copytree(made.cache, tmp_path / "features")
    shutil.copytree(made.out, tmp_path / "out")
    (tmp_path / "new").mkdir()
    pixels = np.asarray(Image.open(known))
    for name, picture in (("darker.png", pixels // 2 + 9), ("other.png", pixels.T[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / "new" / name)
    new = read_catalog(tmp_path / "new")
    known_hash = int(sha256(known.read_bytes()).hexdigest()[:16], 16)
    _publish(new, tmp_path / "features", hashes=[known_hash ^ 0b111, known_hash ^ 0b1])
    return replace(made, new=new, cache=tmp_path / "features", out=tmp_path / "out")


def test_near_copies_of_training_images_are_named(near: Project) -> None:
    """A gel that was saved anew would be taken for a new one, and its answer for a proof."""
    result = near.predict()
    known = near.train.images[4].name
    found = {its.image: its.near_copy_of for its in result.predictions}
    assert found == {"darker.png": known, "other.png": None}
    assert f"nearly a copy of {known}: the head has seen it" in describe_predictions(result)
    table = result.table().set_index("image")
    assert table.loc["darker.png", "near_copy_of"] == known
    assert "nearly a copy" in table.loc["darker.png", "warning"]
    assert not table.loc["other.png", "warning"] or table.loc["other.png", "far"] == "yes"


def test_whether_it_is_a_copy_is_unknown_without_the_training_image(
    near: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """A prediction would fail because an old image was moved, or a guess be told as a finding."""
    manifest = near.out / "training.csv"
    manifest.write_text(manifest.read_text().replace(str(near.train.images[4].path), "/no/4.png"))
    assert {its.near_copy_of for its in near.predict().predictions} == {None}
    assert "2 of 2 images look like training images whose files have gone" in caplog.text


def test_copies_are_not_looked_for_where_training_did_not(near: Project) -> None:
    """Who said that images only look alike would be told that they are copies."""
    _change(near.out, lambda record: record["settings"].update(near_duplicates=False))
    assert {its.near_copy_of for its in near.predict().predictions} == {None}


def test_what_is_far_is_shown_with_its_distance(predicted: Predicted) -> None:
    """A user could not tell what is barely far from what is nothing like a gel."""
    text = describe_predictions(predicted)
    for its in predicted.predictions:
        assert (f"trained on (distance {its.distance:.2f})" in text) == its.far
    assert f"by a distance above {predicted.reliability.novelty.threshold:.2f}" in " ".join(
        text.split()
    )


def test_the_best_is_what_cross_validation_chose(predicted: Predicted, project: Project) -> None:
    """Another head would answer than the one that the summary praises."""
    answer = json.loads((project.out / "assessment.json").read_text())["answer"]
    assert predicted.head.configuration.model_id == answer["winner"]
    assert predicted.is_best
    assert set(predicted.tied) == set(answer["tied"]) - {answer["winner"]}
    other = next(c.model_id for c in CHOSEN if c.model_id != answer["winner"])
    by_id = project.predict(model=other)
    assert by_id.head.configuration.model_id == other
    assert not by_id.is_best
    assert "which was asked for" in describe_predictions(by_id)
    with pytest.raises(UsageError, match=r"model_id of results\.csv \(1, 2\).*Received: 9"):
        project.predict(model=9)


def test_the_error_that_is_asked_for_decides_what_is_sure(project: Project) -> None:
    """All answers would be sure, or none, whatever one can live with."""
    assert not any(its.sure for its in project.predict(max_error=0.001).predictions)
    lenient = project.predict(max_error=0.3)
    assert any(its.sure for its in lenient.predictions)
    assert lenient.reliability.abstention.max_error == 0.3


def test_the_error_that_is_offered_can_be_had(project: Project) -> None:
    """A user would ask for just what the text offers, and be refused once more."""
    refused = project.predict(max_error=0.001)
    text = " ".join(describe_predictions(refused).split())
    offered = re.search(r"ask for it by --max-error (\d\.\d+)\.", text)
    assert offered is not None
    granted = project.predict(max_error=float(offered[1]))
    assert granted.reliability.abstention.threshold is not None


def test_a_table_reads_back_as_it_was(made: Project, tmp_path: Path) -> None:
    """A file's name would run as a formula in a spreadsheet, or come back as another."""
    (tmp_path / "new").mkdir()
    names = ["=1+1.png", 'a "b",\n.png', os.fsdecode(b"g\xe9l.png")]
    for place, name in enumerate(names):
        shutil.copy(made.new.images[place].path, tmp_path / "new" / name)
    result = made.predict(read_catalog(tmp_path / "new"))
    frame = result.table()
    write_frame(frame, tmp_path / "predicted.csv")
    columns, rows = read_table(tmp_path / "predicted.csv")
    assert columns == list(frame.columns)
    assert [row[0] for row in rows] == names
    kinds = [f"{kind}_{name}" for kind in ("probability", "raw_probability") for name in CLASSES]
    assert set(kinds) < set(columns)
    for row, its in zip(rows, result.predictions, strict=True):
        cells = dict(zip(columns, row, strict=True))
        assert cells["outcome"] == its.outcome
        numbers = [float(cells[name]) for name in kinds]
        assert numbers == pytest.approx([*its.probabilities, *its.raw_probabilities])
        assert cells["neighbor_5_label"] == its.neighbors[4].label
    text = describe_predictions(result)
    assert r'a "b",\n.png' in text


def test_classes_need_not_be_utf8(made: Project, tmp_path: Path) -> None:
    """After all work, a folder with an old name would end the run where pyarrow is installed."""
    result = made.predict(made.new)
    named = tuple(f"{name}\udce9" for name in result.head.classes)
    frame = replace(result, head=replace(result.head, classes=named)).table()
    write_frame(frame, tmp_path / "predicted.csv")
    columns, rows = read_table(tmp_path / "predicted.csv")
    assert {f"probability_{name}" for name in named} < set(columns)
    assert len(rows) == len(result.predictions)


def test_images_that_cannot_be_read_are_listed(made: Project, tmp_path: Path) -> None:
    """An image would be missing from the table, and nobody notice."""
    (tmp_path / "new" / "gels.png").mkdir(parents=True)
    shutil.copy(made.new.images[0].path, tmp_path / "new" / "0.png")
    catalog = read_catalog(tmp_path / "new")
    gone = CatalogImage(tmp_path / "gone.png", "gone.png")
    result = made.predict(replace(catalog, images=(*catalog.images, gone)))
    assert [its.image for its in result.predictions] == ["0.png"]
    assert "gone.png" in {failure.name for failure in result.failures}
    table = result.table().set_index("image")
    assert set(table.index) == {"0.png", *(failure.name for failure in result.failures)}
    assert table.loc["gone.png", "error"]
    assert table.loc["gone.png", ["outcome", "predicted", "sure"]].isna().all()


def _change(out: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the records of all heads."""
    for path in (out / "heads").glob("*.json"):
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))


def test_embeddings_of_another_recipe_are_refused(project: Project) -> None:
    """A head would be fed what it was not trained on, and answer all the same."""
    _change(project.out, lambda record: record["recipe"].update(view_version=0))
    before = sorted(project.cache.rglob("*"))
    with pytest.raises(GelkitError, match=r"(?s)recipe that .* was trained on.*view_version"):
        project.predict()
    assert sorted(project.cache.rglob("*")) == before


def test_what_does_not_belong_together_is_refused(project: Project) -> None:
    """A head would be judged by the cross-validation of another, or by other labels."""
    head = read_heads(project.out)[0]
    path = head_path(project.out, head.configuration)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(GelkitError, match=r"(?s)lost or changed.*gelkit heads DATA"):
        project.predict(model=head.configuration.model_id)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",gel,", ",photo,", 1),
        lambda text: "\n".join(text.splitlines()[:-1]),
        lambda text: "path,label\n",
        lambda text: "",
    ],
    ids=["another label", "an image less", "no rows", "empty"],
)
def test_another_list_of_training_images_is_refused(
    project: Project, change: Callable[[str], str]
) -> None:
    """Neighbours would be shown with labels that the head never saw."""
    manifest = project.out / "training.csv"
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(GelkitError, match=r"(?s)training\.csv.*gelkit heads DATA"):
        project.predict()


def test_training_images_need_not_be_there_but_their_embeddings(
    project: Project, tmp_path: Path
) -> None:
    """Results and caches could not be used on another computer, or what lacks were a KeyError."""
    manifest = project.out / "training.csv"
    manifest.write_text(manifest.read_text().replace(str(project.train.images[0].path), "/no.png"))
    assert project.predict().predictions[0].predicted in CLASSES
    elsewhere = replace(project, cache=tmp_path / "features")
    with pytest.raises(GelkitError, match=r"(?s)hold the embeddings of the 60 images.*--cache"):
        elsewhere.predict()


def test_of_many_groups_a_sample_judges(
    made: Project, predicted: Predicted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a large data set a prediction would take hours, or fewer images be neighbours."""
    monkeypatch.setattr(prediction, "MOST_GROUPS", 40)
    sampled = made.predict()
    assert sampled.reliability.novelty.num_groups == 40
    assert sampled.reliability.abstention.num_groups == 40
    neighbors = [its.neighbors for its in sampled.predictions]
    assert neighbors == [its.neighbors for its in predicted.predictions]


def test_the_text_states_what_the_answers_rest_on(predicted: Predicted) -> None:
    """Figures would be shown without how sure one can be of them."""
    text = describe_predictions(predicted)
    reliability = predicted.reliability
    for stated in (
        predicted.head.configuration.name,
        f"{reliability.novelty.expected_false_alarms:.1%}",
        "temperature scaling",
        "RANDOM weights",
        f"{sum(its.far for its in predicted.predictions)} of 12",
    ):
        assert stated in " ".join(text.split()), stated
    assert max(map(len, text.splitlines()[14:])) <= 100
