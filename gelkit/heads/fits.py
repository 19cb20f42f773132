"""Fits: one head trained on some of the images, and the way that works for every Keras model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gelkit.heads.architectures import build_compiled, load_keras, standard_arithmetic

if TYPE_CHECKING:
    import keras

Indices = npt.NDArray[np.intp]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What all fits of a configuration share."""

    head: str
    optimizer: str
    values: npt.NDArray[np.float32]
    """Embeddings (images x width)."""
    targets: npt.NDArray[np.int64]
    num_classes: int
    batch_size: int
    class_weights: bool
    """Weigh the classes in the loss by the inverse of their frequency among the fit's images."""


@dataclass(frozen=True)
class Fit:
    """One head to be trained. Its outcome depends on this and the task, on no other fit."""

    train: Indices
    held_out: Indices
    """Images to be predicted; none of them may be in ``train``."""
    seed: int
    """Of the initial weights, the order of the images and the dropout."""
    learning_rate: float
    epochs: int
    followed: bool = False
    """Predict after every epoch, not only after the last."""
    kept: bool = False
    """The trained head itself is wanted."""


@dataclass(frozen=True)
class Fitted:
    """What a fit gives."""

    probabilities: Probabilities
    """(epochs predicted x held-out images x classes); the last epoch alone if not followed."""
    head: keras.Model | None
    """The trained model, if it was to be kept."""


def build(task: Task, fit: Fit) -> keras.Model:
    """Return the fit's compiled model before training, drawn from Keras' global random state."""
    load_keras().utils.set_random_seed(fit.seed)
    values = training_values(task, fit)
    return build_compiled(task.head, task.optimizer, values, task.num_classes, fit.learning_rate)


def training_values(task: Task, fit: Fit) -> npt.NDArray[np.float32]:
    """Return the embeddings a fit trains on, (images x width); not copied if they are all."""
    if np.array_equal(fit.train, np.arange(len(task.values))):
        return task.values
    return task.values[fit.train]


def fit_alone(task: Task, fit: Fit) -> Fitted:
    """Train one head of any architecture with any optimizer, by Keras' own training step."""
    head = build(task, fit)
    weights = loss_weights(task, fit)
    probabilities = []
    for epoch, order in enumerate(orders(fit), start=1):
        for batch in batches(order, task.batch_size):
            index = fit.train[batch]
            head.train_on_batch(task.values[index], task.targets[index], weights[batch])
        if fit.followed or epoch == fit.epochs:
            probabilities.append(predict(head, task.values[fit.held_out]))
    return Fitted(np.stack(probabilities), head if fit.kept else None)


@standard_arithmetic()
def predict(head: keras.Model, values: npt.NDArray[np.float32]) -> Probabilities:
    """Return a head's probabilities (images x classes) for raw embeddings (images x width)."""
    if not len(values):  # Keras refuses to predict nothing
        return np.zeros((0, head.output_shape[-1]), np.float32)
    probabilities: Probabilities = head.predict(values, batch_size=1024, verbose=0)
    return probabilities


def orders(fit: Fit) -> Iterator[Indices]:
    """Yield, for each epoch, the order in which a fit sees its training images, from 0."""
    generator = np.random.default_rng([fit.seed, 0])
    for _ in range(fit.epochs):
        yield generator.permutation(len(fit.train))


def batches(order: Indices, size: int) -> Sequence[Indices]:
    """Cut an epoch into batches as Keras does: the last one may be smaller."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def loss_weights(task: Task, fit: Fit) -> npt.NDArray[np.float32]:
    """Return the weight of each training image in the loss, (images,).

    With class weights, images / (classes x images of the class), as scikit-learn's ``balanced``.
    """
    targets = task.targets[fit.train]
    if not task.class_weights:
        return np.ones(len(targets), np.float32)
    counts = np.bincount(targets, minlength=task.num_classes)
    return (len(targets) / (task.num_classes * counts[targets])).astype(np.float32)
