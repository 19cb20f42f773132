"""Heads: Keras models from embeddings to class probabilities, and their optimizers.

Heads and optimizers are rows of tables. A head is any function that returns a Keras model; a row
added to :data:`HEADS` or :data:`OPTIMIZERS` makes further configurations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError, UsageError

if TYPE_CHECKING:
    import keras

    from gelkit.features.embeddings import Embeddings

LEARNING_RATE = 1e-3
MOMENTUM = 0.9

_COLUMNS_AT_ONCE = 128
"""Of so many features the variance is taken at a time: NumPy copies them as float64."""

_SMALLEST_VARIANCE = 1e-4
"""Of a feature, relative to the mean over all features."""

_KERAS_SETTINGS: Mapping[str, object] = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "dtype_policy": "float32",
    "max_epochs": None,
    "max_steps_per_epoch": None,
}
"""What decides a result and can be set in keras.json, by variables or in a notebook: Keras' own
defaults. It is a function of ``keras.config`` each, and one that begins with ``set_``."""


def load_keras() -> Any:
    """Import Keras with the torch backend.

    :raises GelkitError: this process already uses Keras with another backend, or what a person has
        set keeps Keras from starting.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        raise GelkitError(
            f"Expected Keras to start. Received: {error}. Set KERAS_BACKEND=torch, unset other "
            "variables that begin with KERAS_, and correct or remove keras.json in ~/.keras (or in "
            "KERAS_HOME)."
        ) from error

    if keras.backend.backend() != "torch":
        raise GelkitError(
            f"Expected Keras with the torch backend. Received: {keras.backend.backend()!r}. Set "
            "KERAS_BACKEND=torch before Keras is first imported."
        )
    return keras


@contextmanager
def standard_arithmetic() -> Iterator[None]:
    """Have Keras and torch compute as results are meant, whatever a person or a notebook has set.

    What was set before is set again afterwards.
    """
    import torch

    config = load_keras().config
    before = {name: getattr(config, name)() for name in _KERAS_SETTINGS}
    dtype = torch.get_default_dtype()
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cuda)
    products = [library.matmul for library in libraries]
    precisions = [product.fp32_precision for product in products]
    _set(config, _KERAS_SETTINGS)
    torch.set_default_dtype(torch.float32)
    for product in products:  # torch.set_float32_matmul_precision makes them bfloat16 or TF32
        product.fp32_precision = "ieee"
    try:
        yield
    finally:
        for product, precision in zip(products, precisions, strict=True):
            product.fp32_precision = precision
        torch.set_default_dtype(dtype)
        _set(config, before)


def _set(config: Any, settings: Mapping[str, object]) -> None:
    for name, value in settings.items():
        getattr(config, f"set_{name}")(value)


def single(width: int, num_classes: int) -> keras.Model:
    """Build one linear layer with softmax: multinomial logistic regression."""
    keras = load_keras()
    return keras.Sequential(
        [keras.Input((width,)), keras.layers.Dense(num_classes, activation="softmax")],
        name="single",
    )


def multi(width: int, num_classes: int) -> keras.Model:
    """Build two hidden layers with dropout, then a linear one with softmax."""
    keras = load_keras()
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(num_classes, activation="softmax"),
        ],
        name="multi",
    )


def adam(learning_rate: float) -> keras.Optimizer:
    """Build Adam (Kingma and Ba 2015, arXiv:1412.6980) with Keras' defaults."""
    return load_keras().optimizers.Adam(learning_rate)


def sgd(learning_rate: float) -> keras.Optimizer:
    """Build stochastic gradient descent with momentum 0.9."""
    return load_keras().optimizers.SGD(learning_rate, momentum=MOMENTUM)


HEADS: MutableMapping[str, Callable[[int, int], keras.Model]] = {"single": single, "multi": multi}
"""Heads by name: a function of an embedding's width and the number of classes, which returns a
model from standardised embeddings (images x width) to probabilities (images x classes)."""

OPTIMIZERS: MutableMapping[str, Callable[[float], keras.Optimizer]] = {"adam": adam, "sgd": sgd}
"""Optimizers by name: a function of the learning rate, which returns a Keras optimizer."""


def build_head(
    head: str,
    embeddings: Embeddings,
    *,
    optimizer: str = "adam",
    learning_rate: float = LEARNING_RATE,
) -> keras.Model:
    """Return a compiled Keras model for embeddings, ready for ``fit``.

    It takes raw embeddings (images x width), standardises them inside by the embeddings given,
    and gives probabilities (images x classes). Targets are class numbers: ``embeddings.targets``.

    :raises UsageError: an unknown head or optimizer, or images without labels.
    """
    num_classes = len(embeddings.classes) if len(embeddings.targets) else 0
    return build_compiled(head, optimizer, embeddings.values, num_classes, learning_rate)


@standard_arithmetic()
def build_compiled(
    head: str,
    optimizer: str,
    values: npt.NDArray[np.float32],
    num_classes: int,
    learning_rate: float = LEARNING_RATE,
) -> keras.Model:
    """Do what :func:`build_head` does, with an array of embeddings (images x width)."""
    for kind, name, table in (("a head", head, HEADS), ("an optimizer", optimizer, OPTIMIZERS)):
        if name not in table:
            raise UsageError(f"Expected {kind}: {', '.join(table)}. Received: {name!r}.")
    keras = load_keras()
    width = values.shape[1]
    inputs = keras.Input((width,), name="embedding")
    inner = HEADS[head](width, num_classes)
    model = keras.Model(inputs, inner(standardisation(values)(inputs)), name=head)
    model.compile(
        optimizer=OPTIMIZERS[optimizer](learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def standardisation(values: npt.NDArray[np.float32]) -> keras.Layer:
    """Return a Normalization layer adapted to ``values`` (images x width).

    Features that hardly vary here (a rectified feature that is 0 in all but one image) are scaled
    by a floor instead of their own spread: another image would otherwise overflow the head.
    """
    keras = load_keras()
    layer = keras.layers.Normalization(name="standardisation")
    layer.build(values.shape)
    variance = np.concatenate(
        [
            values[:, start : start + _COLUMNS_AT_ONCE].var(axis=0, dtype=np.float64)
            for start in range(0, values.shape[1], _COLUMNS_AT_ONCE)
        ]
    )
    floor = max(_SMALLEST_VARIANCE * variance.mean(), np.finfo(np.float32).tiny)
    layer.adapt_mean.assign(values.mean(axis=0, dtype=np.float64))
    layer.adapt_variance.assign(np.maximum(variance, floor))
    layer.finalize_state()
    return layer
