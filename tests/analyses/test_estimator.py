"""The estimators: scikit-learn's own checks, and the same heads and embeddings as elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import gelkit
from gelkit.analyses.estimator import EmbeddingTransformer, HeadClassifier
from gelkit.errors import GelkitError, UsageError
from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.heads.configurations import choose_configurations
from gelkit.heads.saved import head_path
from gelkit.heads.training import Settings, load_head, predict
from gelkit.images.catalog import Catalog

RANDOM = RecipeOptions(weights="random")
WIDTH = 512


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Path]:
    """Return 24 tiny images of the classes ``gel`` and ``other``, and a cache that has them."""
    folder = tmp_path_factory.mktemp("cached")
    for number in range(24):
        path = folder / "data" / ("gel" if number % 2 else "other") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    catalog = gelkit.read_catalog(folder / "data")
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, np.zeros(len(catalog)))
    columns |= {
        "sha256": [sha256(image.path.read_bytes()).hexdigest() for image in catalog.images],
        "embedding": _values([image.label == "gel" for image in catalog.images]),
        **dict.fromkeys(("height", "width", "n_bytes"), np.full(len(catalog), 4)),
        "perceptual_hash": np.random.default_rng(0).integers(0, 2**64, len(catalog), np.uint64),
        "intensity": np.random.default_rng(0).random((len(catalog), 13)),
    }
    rows = make_rows(columns, {"weights_sha256": "", "device": "cpu (drawn)"})
    Cache(folder / "features", make_recipe("resnet18", "cpu", RANDOM)).publish(rows)
    return catalog, folder / "features"


def _values(shifted: list[bool], width: int = WIDTH) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(len(shifted), width))
    noise[:, : width // 2] += 2.0 * np.array(shifted)[:, np.newaxis]
    return noise.astype(np.float32)


def _transformer(cache: Path) -> EmbeddingTransformer:
    return EmbeddingTransformer("resnet18", cache=cache, options=RANDOM)


@parametrize_with_checks([HeadClassifier(epochs=10, learning_rate=0.1)])
def test_scikit_learn_takes_the_head_for_a_classifier(
    estimator: BaseEstimator, check: Callable[[BaseEstimator], None]
) -> None:
    """Some tool of scikit-learn would fail with it, or get wrong answers."""
    check(estimator)


def test_it_is_the_head_that_heads_saves(cached: tuple[Catalog, Path], tmp_path: Path) -> None:
    """A head tried in a notebook would be another than the one that is compared and kept."""
    catalog, cache = cached
    chosen = choose_configurations(("cpu",), ("resnet18",), ("multi",), ("sgd",))
    settings = Settings(folds=2, repeats=1, epochs=3, class_weights=True, seed=5)
    gelkit.compare(
        catalog,
        cache=cache,
        out=tmp_path,
        configurations=chosen,
        options=RANDOM,
        settings=settings,
    )
    embeddings = gelkit.load(catalog, cache=cache, options=RANDOM)
    classifier = HeadClassifier("multi", optimizer="sgd", epochs=3, class_weights=True, seed=5)
    probabilities = classifier.fit(embeddings.values, embeddings.labels).predict_proba(
        embeddings.values
    )
    saved = load_head(head_path(tmp_path, chosen[0]))
    assert np.array_equal(probabilities, predict(saved, embeddings.values))
    assert tuple(classifier.classes_) == embeddings.classes


@pytest.mark.parametrize("labels", [("other", "gel"), (7, -3), (True, False)], ids=str)
def test_predictions_are_the_labels_themselves(labels: tuple[Any, Any]) -> None:
    """A notebook would be given class numbers, or the classes swapped."""
    given = [*labels] * 8
    values = _values([True, False] * 8)
    classifier = HeadClassifier(learning_rate=0.05).fit(values, given)
    assert classifier.predict(values).tolist() == given
    assert classifier.classes_.tolist() == sorted(labels)
    assert classifier.predict_proba(values).shape == (16, 2)


def test_training_is_the_same_every_time_and_touches_no_global_state() -> None:
    """Two runs of a notebook would differ, or fitting would change what comes after it."""
    values, labels = _values([True, False] * 8, 6), ["b", "a"] * 8
    first = HeadClassifier("multi", epochs=2).fit(values, labels).predict_proba(values)
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    again = HeadClassifier("multi", epochs=2).fit(values, labels).predict_proba(values)
    assert np.array_equal(first, again)
    assert np.random.random() == expected
    other = HeadClassifier("multi", epochs=2, seed=1).fit(values, labels).predict_proba(values)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 4},
        {"batch_size": 5},
        {"learning_rate": 0.01},
        {"optimizer": "sgd"},
        {"head": "multi"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_parameter_counts(changed: dict[str, Any]) -> None:
    """A search over a parameter would compare the same head with itself."""
    values, labels = _values([True, False] * 8, 6), ["b", "a"] * 8
    plain = HeadClassifier(epochs=2).fit(values, labels).predict_proba(values)
    other = HeadClassifier(epochs=2).set_params(**changed).fit(values, labels)
    assert not np.allclose(plain, other.predict_proba(values), atol=1e-6)


def test_class_weights_favour_the_rare_class() -> None:
    """With few gels among many photographs the option would do nothing."""
    values, labels = _values([True] * 2 + [False] * 14, 6), ["rare"] * 2 + ["common"] * 14
    plain, weighted = (
        HeadClassifier(epochs=5, learning_rate=0.05, class_weights=weights)
        .fit(values, labels)
        .predict_proba(values)
        for weights in (False, True)
    )
    assert weighted[:, 1].mean() > plain[:, 1].mean() + 0.05


@pytest.mark.parametrize("parameter", ["head", "optimizer"])
def test_unknown_names_are_refused(parameter: str) -> None:
    """A misspelt head would train another one."""
    classifier = HeadClassifier().set_params(**{parameter: "nonsense"})
    with pytest.raises(UsageError, match=r"Expected an? .*Received: 'nonsense'"):
        classifier.fit(_values([True, False], 3), ["a", "b"])


def test_from_paths_to_a_cross_validated_score(cached: tuple[Catalog, Path]) -> None:
    """Embeddings and heads could not be joined in a Pipeline and scored by scikit-learn."""
    catalog, cache = cached
    pipeline = make_pipeline(_transformer(cache), HeadClassifier(learning_rate=0.05))
    paths = [str(image.path) for image in catalog.images]
    labels = [image.label for image in catalog.images]
    scores = cross_val_score(pipeline, paths, labels, cv=2, error_score="raise")
    assert scores.min() > 0.8
    misled = cross_val_score(pipeline, paths, labels[1::2] + labels[::2], cv=2, error_score="raise")
    assert misled.max() < 0.8


def test_a_search_chooses_among_heads(cached: tuple[Catalog, Path]) -> None:
    """GridSearchCV could not vary the heads' parameters, or would choose a bad one."""
    catalog, cache = cached
    pipeline = make_pipeline(_transformer(cache), HeadClassifier(epochs=5))
    grid = {"headclassifier__learning_rate": [1e-9, 0.05]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise")
    search.fit(catalog.images, [image.label for image in catalog.images])
    assert search.best_params_ == {"headclassifier__learning_rate": 0.05}
    assert search.predict(catalog.images[:1]).shape == (1,)


@pytest.mark.parametrize(
    "images",
    [
        lambda catalog: catalog,
        lambda catalog: catalog.images,
        lambda catalog: [image.path for image in catalog.images],
        lambda catalog: np.array([str(image.path) for image in catalog.images]),
        lambda catalog: np.array([[str(image.path)] for image in catalog.images], dtype=object),
    ],
    ids=["catalog", "images", "paths", "array", "column"],
)
def test_images_may_be_given_in_any_form(
    images: Callable[[Catalog], Any], cached: tuple[Catalog, Path]
) -> None:
    """What train_test_split or a table gives would not be taken, or come out in another order."""
    catalog, cache = cached
    expected = gelkit.load(catalog, cache=cache, options=RANDOM).values
    assert np.array_equal(_transformer(cache).transform(images(catalog)), expected)


def test_embeddings_come_in_the_order_of_the_images(cached: tuple[Catalog, Path]) -> None:
    """Labels would belong to other images; a bootstrap, which draws images twice, would fail."""
    catalog, cache = cached
    expected = gelkit.load(catalog, cache=cache, options=RANDOM).values
    order = [5, 2, 2, 20]
    images = [catalog.images[number] for number in order]
    assert np.array_equal(_transformer(cache).fit_transform(images), expected[order])


def test_the_embeddings_can_come_as_a_frame(cached: tuple[Catalog, Path]) -> None:
    """A notebook that asks scikit-learn for pandas would get nameless columns, or an error."""
    catalog, cache = cached
    frame = _transformer(cache).set_output(transform="pandas").transform(catalog.images)
    assert frame.shape == (24, WIDTH)
    assert [frame.columns[0], frame.columns[-1]] == ["embedding_0", "embedding_511"]


def test_an_image_that_fails_stops_the_transformer(
    cached: tuple[Catalog, Path], tmp_path: Path
) -> None:
    """Its row would be missing, and all labels after it belong to other images."""
    catalog, cache = cached
    path = tmp_path / "not there.png"
    with pytest.raises(GelkitError, match=r"1 of 2 that fail, the first .*not there\.png"):
        _transformer(cache).transform([catalog.images[0], path])


def test_one_path_alone_is_refused(cached: tuple[Catalog, Path]) -> None:
    """A string would be taken for a list of its letters."""
    with pytest.raises(UsageError, match="Expected the paths of images"):
        _transformer(cached[1]).transform("gel.png")


def test_a_transformer_is_cloned_with_its_parameters() -> None:
    """A search would embed by another backbone, or into another cache, than was asked for."""
    transformer = EmbeddingTransformer("vgg16", hardware="tpu", cache="here", options=RANDOM)
    assert clone(transformer).get_params() == {
        "backbone": "vgg16",
        "hardware": "tpu",
        "cache": "here",
        "options": RANDOM,
    }
