"""Plans: the heads and optimizers that a stack can train exactly as Keras would.

A head has a plan if it is a chain of plain dense layers with plain dropout between them, and its
optimizer is a plain Adam or SGD. Options are compared with Keras' defaults, all of them, so that
what a later Keras adds is not overlooked. Everything else has no plan and is Keras' own to train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.heads.architectures import HEADS, OPTIMIZERS, load_keras

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[np.float32]

HIDDEN_ACTIVATIONS = ("relu", "linear")


@dataclass(frozen=True)
class DenseLayer:
    """One dense layer, and the dropout before it."""

    inputs: int
    units: int
    activation: str
    dropout: float
    """The rate at which the layer's inputs are dropped in training; 0 for none."""
    initializers: tuple[keras.Initializer, ...]
    """Of the kernel and, if the layer has one, of the bias."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the kernel and of the bias, if there is one."""
        return [(self.inputs, self.units), (self.units,)][: len(self.initializers)]


@dataclass(frozen=True)
class AdamRule:
    """Adam as Keras computes it: epsilon is added to the uncorrected root."""

    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float


@dataclass(frozen=True)
class SgdRule:
    """Gradient descent as Keras computes it: the momentum holds the learning rate."""

    learning_rate: float
    momentum: float


Rule: TypeAlias = AdamRule | SgdRule


@dataclass(frozen=True)
class Plan:
    """All that decides how a head is trained; its last layer gives probabilities by softmax."""

    layers: tuple[DenseLayer, ...]
    rule: Rule
    clip: float
    """Keras' cross-entropy has no gradient where a probability is this near to 0 or 1."""


def make_plan(
    head: str, optimizer: str, width: int, num_classes: int, learning_rate: float
) -> Plan | None:
    """Return the plan of a configuration; None if it has to be left to Keras.

    Plans are remembered: call :func:`forget_plans` where the tables' functions may have changed.
    """
    if head not in HEADS or optimizer not in OPTIMIZERS:
        return None
    return _plan(HEADS[head], OPTIMIZERS[optimizer], width, num_classes, learning_rate)


def initial_weights(plan: Plan, seed: int) -> list[list[Array]]:
    """Draw, for each layer, its kernel (inputs x units) and bias (units,) by its initializers.

    Initializers without a seed of their own are given one from ``seed``.
    """
    seeds = iter(np.random.default_rng([seed, 2]).integers(2**31, size=2 * len(plan.layers)))
    return [
        [
            _drawn(_seeded(initializer, int(next(seeds))), shape)
            for initializer, shape in zip(layer.initializers, layer.shapes, strict=True)
        ]
        for layer in plan.layers
    ]


@lru_cache(maxsize=256)
def _plan(
    make_head: Callable[[int, int], keras.Model],
    make_optimizer: Callable[[float], keras.Optimizer],
    width: int,
    num_classes: int,
    learning_rate: float,
) -> Plan | None:
    layers = _layers(make_head(width, num_classes), width, num_classes)
    rule = _rule(make_optimizer(learning_rate))
    if layers is None or rule is None:
        return None
    return Plan(layers, rule, load_keras().config.epsilon())


forget_plans = _plan.cache_clear


def _layers(head: keras.Model, width: int, num_classes: int) -> tuple[DenseLayer, ...] | None:
    keras = load_keras()
    if type(head) is not keras.Sequential or not head.built or head.input_shape != (None, width):
        return None
    layers: list[DenseLayer] = []
    dropout = 0.0
    for layer in head.layers:
        if _is_plain_dropout(layer) and not dropout:
            dropout = layer.rate
        elif _is_plain_dense(layer):
            layers.append(_dense_layer(layer, dropout))
            dropout = 0.0
        else:
            return None
    return tuple(layers) if not dropout and _gives_probabilities(layers, num_classes) else None


def _gives_probabilities(layers: Sequence[DenseLayer], num_classes: int) -> bool:
    return (
        bool(layers)
        and layers[-1].activation == "softmax"
        and layers[-1].units == num_classes
        and all(layer.activation in HIDDEN_ACTIVATIONS for layer in layers[:-1])
    )


def _dense_layer(layer: keras.layers.Dense, dropout: float) -> DenseLayer:
    inputs, units = layer.kernel.shape
    initializers = (layer.kernel_initializer, layer.bias_initializer)
    return DenseLayer(
        inputs=inputs,
        units=units,
        activation=layer.activation.__name__,
        dropout=dropout,
        initializers=initializers if layer.use_bias else initializers[:1],
    )


def _is_plain_dropout(layer: keras.Layer) -> bool:
    return (
        type(layer) is load_keras().layers.Dropout
        and layer.rate < 1
        and _options(layer) == _options(type(layer)(layer.rate))
    )


def _is_plain_dense(layer: keras.Layer) -> bool:
    keras = load_keras()
    if type(layer) is not keras.layers.Dense or layer.activity_regularizer is not None:
        return False
    names = (*HIDDEN_ACTIVATIONS, "softmax")
    plain = type(layer)(layer.units, activation=layer.activation, use_bias=layer.use_bias)
    return (
        any(layer.activation is getattr(keras.activations, name) for name in names)
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and _options(layer) == _options(plain)
        and _is_as_initialised(layer)
    )


def _is_as_initialised(layer: keras.layers.Dense) -> bool:
    """Tell whether the weights are the initializers' doing, and not put there by other means."""
    pairs = [(layer.kernel_initializer, layer.kernel), (layer.bias_initializer, layer.bias)]
    return all(
        isinstance(initializer, load_keras().initializers.Initializer)
        and np.array_equal(_drawn(initializer, tuple(variable.shape)), variable.numpy())
        for initializer, variable in pairs[: 1 + layer.use_bias]
    )


def _rule(optimizer: keras.Optimizer) -> Rule | None:
    optimizers = load_keras().optimizers
    if not isinstance(optimizer.get_config().get("learning_rate"), float):
        return None
    rate = float(optimizer.learning_rate)
    if type(optimizer) is type(optimizers.Adam()):  # Keras makes a backend's subclass of it
        adam = AdamRule(rate, optimizer.beta_1, optimizer.beta_2, optimizer.epsilon)
        plain = optimizers.Adam(rate, adam.beta_1, adam.beta_2, adam.epsilon)
        return adam if _options(optimizer) == _options(plain) else None
    if type(optimizer) is type(optimizers.SGD()):
        sgd = SgdRule(rate, optimizer.momentum)
        return sgd if _options(optimizer) == _options(optimizers.SGD(rate, sgd.momentum)) else None
    return None


def _options(configured: Any) -> dict[str, Any]:
    """Return what a layer or an optimizer is configured with, its name and initializers apart."""
    apart = ("name", "kernel_initializer", "bias_initializer")
    return {key: value for key, value in configured.get_config().items() if key not in apart}


def _seeded(initializer: keras.Initializer, seed: int) -> keras.Initializer:
    config = initializer.get_config()
    if "seed" in config and config["seed"] is None:
        config["seed"] = seed
    return type(initializer).from_config(config)


def _drawn(initializer: keras.Initializer, shape: tuple[int, ...]) -> Array:
    drawn: Array = load_keras().ops.convert_to_numpy(initializer(shape, dtype="float32"))
    return drawn
