"""Architectures: heads are plain compiled Keras models that are complete in themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest

from gelkit.errors import GelkitError, UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.heads.architectures import HEADS, build_compiled, build_head, load_keras, multi, single

MakeEmbeddings = Callable[..., Embeddings]

LABELS = ["gel", "photo", "gel", "photo", "gel", "photo", "gel", "photo"]

PARAMETERS = {
    "single of resnet18": (single, 512, 2, 512 * 2 + 2),
    "single of vgg16, 3 classes": (single, 4096, 3, 4096 * 3 + 3),
    "multi of resnet18": (
        multi,
        512,
        2,
        (512 * 512 + 512) + (512 * 256 + 256) + (256 * 2 + 2),
    ),
    "multi of mobilenet-v3, 5 classes": (
        multi,
        1280,
        5,
        (1280 * 512 + 512) + (512 * 256 + 256) + (256 * 5 + 5),
    ),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_heads_have_the_size_of_the_studys(case: str) -> None:
    """Results would not be comparable with the study's."""
    build, width, num_classes, parameters = PARAMETERS[case]
    model = build(width, num_classes)
    assert model.input_shape == (None, width)
    assert model.output_shape == (None, num_classes)
    assert model.count_params() == parameters


def test_multi_is_two_hidden_layers_with_dropout() -> None:
    """The head would be another than the study's."""
    layers = multi(10, 3).layers
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [512, 256, 3]
    names = [layer.activation.__name__ for layer in dense]
    assert names == ["relu", "relu", "softmax"]
    rates = [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.25, 0.5]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]


@pytest.mark.parametrize("head", HEADS)
def test_outputs_are_probabilities(head: str, make_embeddings: MakeEmbeddings) -> None:
    """Predictions could not be read as probabilities."""
    embeddings = make_embeddings([*LABELS, "other"])
    predicted = build_head(head, embeddings).predict(embeddings.values, verbose=0)
    assert predicted.shape == (9, 3)
    assert predicted.min() >= 0
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-5)


def test_optimizers_are_the_studys(make_embeddings: MakeEmbeddings) -> None:
    """Heads would be trained in another way than the results say."""
    embeddings = make_embeddings(LABELS)
    adam = build_head("single", embeddings).optimizer
    assert isinstance(adam, keras.optimizers.Adam)
    assert (adam.beta_1, adam.beta_2) == (0.9, 0.999)
    sgd = build_head("single", embeddings, optimizer="sgd").optimizer
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.nesterov) == (0.9, False)
    for optimizer in (adam, sgd):
        assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    faster = build_head("single", embeddings, optimizer="sgd", learning_rate=0.5).optimizer
    assert float(faster.learning_rate) == 0.5


def test_the_loss_is_the_cross_entropy(make_embeddings: MakeEmbeddings) -> None:
    """Losses that a user sees would not be what the documentation says."""
    embeddings = make_embeddings([*LABELS, "other"])
    head = build_head("single", embeddings)
    loss, accuracy = head.evaluate(embeddings.values, embeddings.targets, verbose=0)
    predicted = head.predict(embeddings.values, verbose=0)
    own = predicted[np.arange(9), embeddings.targets]
    assert loss == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert accuracy == pytest.approx((predicted.argmax(axis=1) == embeddings.targets).mean())


def _standardised(head: keras.Model, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    layer = keras.Model(head.input, head.get_layer("standardisation").output)
    standardised: npt.NDArray[np.float64] = layer.predict(values, verbose=0).astype(np.float64)
    return standardised


def test_standardisation_is_inside_the_head(make_embeddings: MakeEmbeddings) -> None:
    """Whoever uses a head would have to know mean and spread of its training images."""
    embeddings = make_embeddings(LABELS, width=5)
    values = embeddings.values * np.float32([1, 10, 100, 1e-3, 0]) + np.float32([0, 5, -7, 3, 2])
    head = build_compiled("single", "adam", values, 2)
    variance = values.var(axis=0, dtype=np.float64)
    floor = 1e-4 * variance.mean()
    assert (variance < floor).tolist() == [False, False, False, True, True]
    expected = (values - values.mean(axis=0, dtype=np.float64)) / np.sqrt(
        np.maximum(variance, floor)
    )
    np.testing.assert_allclose(_standardised(head, values), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_standardised(head, values)[:, 1:3].std(axis=0), 1, rtol=1e-5)


def test_scale_and_offset_of_embeddings_do_not_matter(make_embeddings: MakeEmbeddings) -> None:
    """A backbone with small embeddings would need another learning rate."""
    values = make_embeddings(LABELS).values
    first = _standardised(build_compiled("single", "adam", values, 2), values)
    moved = values * np.float32(256) + np.float32(64)
    second = _standardised(build_compiled("single", "adam", moved, 2), moved)
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-4)


def test_a_feature_that_hardly_varies_cannot_overflow_a_head(
    make_embeddings: MakeEmbeddings,
) -> None:
    """One image with a rare feature would be classified by that feature alone, or as NaN."""
    values = make_embeddings(LABELS, width=4).values.copy()
    values[:, 3] = 0
    rare = values[:1].copy()
    rare[0, 3] = 1
    head = build_compiled("single", "adam", values, 2)
    floor = 1e-4 * values.var(axis=0, dtype=np.float64).mean()
    assert _standardised(head, rare)[0, 3] == pytest.approx(1 / np.sqrt(floor), rel=1e-4)
    constant = build_compiled("multi", "adam", np.ones((6, 4), np.float32), 2)
    constant.fit(np.ones((6, 4), np.float32), np.arange(6) % 2, verbose=0)
    assert np.isfinite(constant.predict(np.ones((6, 4), np.float32), verbose=0)).all()


@pytest.mark.parametrize("head", HEADS)
def test_people_can_train_a_head_as_any_keras_model(
    head: str, make_embeddings: MakeEmbeddings
) -> None:
    """A user's own callbacks would not work, or training not go on."""

    class StopAfterTwo(keras.callbacks.Callback):
        losses: list[float] = []  # noqa: RUF012

        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            self.losses.append(logs["loss"])
            self.model.stop_training = epoch == 1

    embeddings = make_embeddings(LABELS * 3)
    model = build_head(head, embeddings, learning_rate=1e-2)
    own = StopAfterTwo()
    before = model.evaluate(embeddings.values, embeddings.targets, verbose=0)[0]
    history = model.fit(embeddings.values, embeddings.targets, epochs=9, callbacks=[own], verbose=0)
    assert history.history["loss"] == own.losses
    assert len(own.losses) == 2
    model.fit(embeddings.values, embeddings.targets, epochs=5, verbose=0)
    assert model.evaluate(embeddings.values, embeddings.targets, verbose=0)[0] < before


ALONE = """
import sys
import keras
import numpy as np
for name in ("single", "multi"):
    head = keras.saving.load_model(f"{name}.keras")
    np.save(f"{name}-alone.npy", head.predict(np.load("raw.npy"), verbose=0))
print("gelkit" in sys.modules)
"""


@pytest.mark.exhaustive("exhaustive grids")
def test_a_saved_head_needs_keras_alone(make_embeddings: MakeEmbeddings, tmp_path: Path) -> None:
    """A head could not be used without gelkit, or would predict something else there."""
    embeddings = make_embeddings(LABELS * 3)
    raw = embeddings.values * 50 + 7
    np.save(tmp_path / "raw.npy", raw)
    predicted = {}
    for name in ("single", "multi"):
        head = build_compiled(name, "adam", raw, 2)
        head.fit(raw, embeddings.targets, epochs=2, verbose=0)
        head.save(tmp_path / f"{name}.keras")
        predicted[name] = head.predict(raw, verbose=0)
    run = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "False", run.stderr
    for name, expected in predicted.items():
        assert np.array_equal(np.load(tmp_path / f"{name}-alone.npy"), expected)


MISTAKES = {
    "head": ({"head": "double"}, "Expected a head: single, multi. Received: 'double'"),
    "optimizer": ({"optimizer": "adamw"}, "Expected an optimizer: adam, sgd. Received: 'adamw'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_unknown_names_are_refused(mistake: str, make_embeddings: MakeEmbeddings) -> None:
    """A user would see a KeyError."""
    names, message = MISTAKES[mistake]
    with pytest.raises(UsageError, match=message):
        build_head(**{"head": "single", "embeddings": make_embeddings(LABELS)} | names)


def test_images_without_labels_are_refused(make_embeddings: MakeEmbeddings) -> None:
    """A head with a wrong number of classes would be built."""
    with pytest.raises(UsageError, match=r"Received: none for '1\.png'"):
        build_head("single", make_embeddings(["gel", None, "photo"]))


def test_another_keras_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads would fail later and elsewhere in a process that uses TensorFlow."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(GelkitError, match="Received: 'tensorflow'"):
        load_keras()


def test_the_embeddings_decide_width_and_classes(make_embeddings: MakeEmbeddings) -> None:
    """A head would not fit the embeddings it was asked for."""
    embeddings = make_embeddings(["c", "a", "b", "a"], width=7)
    assert build_head("single", embeddings).input_shape == (None, 7)
    assert build_head("single", embeddings).output_shape == (None, 3)
    fewer = embeddings.take(np.array([1, 3, 2]))
    assert build_head("multi", fewer).output_shape == (None, 2)
