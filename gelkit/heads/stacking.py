"""Stacks: several fits of one configuration trained together, as if each were alone.

The weights of a stack's heads lie in one tensor for each layer, and a step costs a few calls
whatever the number of heads. Only heads with a plan can be stacked; the others are left to Keras.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gelkit.heads.architectures import standardisation
from gelkit.heads.fits import (
    Fit,
    Fitted,
    Indices,
    Task,
    build,
    fit_alone,
    loss_weights,
    orders,
    training_values,
)
from gelkit.heads.plans import AdamRule, Array, Plan, SgdRule, initial_weights, make_plan
from gelkit.heads.stacked_layers import StackedDense, StackedSpan
from gelkit.systems import SYSTEM

if TYPE_CHECKING:
    import keras
    from torch import Tensor

STACK_BYTES = 32 * 2**20
"""What the weights of a stack, and all that is as large and touched in each step, may take.

Measured: updates are bound by memory, and three times slower where a core's share of the last cache
is exceeded; far below this, the calls themselves begin to be felt. The same on all machines, since
results may differ in the last digits between widths."""

_MASKED_STEPS = 16
"""Dropout is drawn for so many steps at a time."""

_CHANCES = 2**16
"""A rate of dropout is rounded to a whole number of so many: 16 bits are drawn as fast again as
32."""

_STANDARDISED_ROWS = 256
"""So many images are standardised at a time."""


def fit_all(task: Task, fits: Sequence[Fit], width: int | None = None) -> list[Fitted]:
    """Train heads, stacked where that is possible; return their outcomes in the same order.

    :param width: fits in a stack at most, 1 for one by one; default: what suits the shapes.
    """
    fitted: dict[int, Fitted] = {}
    for plan, numbers in _alike(task, fits):
        if plan is None:
            fitted |= {number: fit_alone(task, fits[number]) for number in numbers}
            continue
        its_width = width or stack_width(plan, max(len(fits[number].train) for number in numbers))
        for start in range(0, len(numbers), its_width):
            stacked = numbers[start : start + its_width]
            outcomes = _fit_stacked(task, plan, [fits[number] for number in stacked])
            fitted |= dict(zip(stacked, outcomes, strict=True))
    return [fitted[number] for number in range(len(fits))]


def stack_width(plan: Plan, num_images: int) -> int:
    """Return how many fits of so many training images to stack."""
    arrays = 4 if isinstance(plan.rule, AdamRule) else 2  # weights and slots, Adam's gradient too
    values = [arrays * layer.inputs * layer.units for layer in plan.layers]
    if _rule_in_span(plan, num_images):
        values[0] = num_images * (num_images + 3 * plan.layers[0].units)
    return max(1, STACK_BYTES // (np.dtype(np.float32).itemsize * sum(values)))


def _alike(task: Task, fits: Sequence[Fit]) -> Iterator[tuple[Plan | None, list[int]]]:
    """Yield a plan and the numbers of fits that can share a stack: of equal rate and steps."""
    groups: dict[tuple[float, int, int], list[int]] = {}
    for number, fit in enumerate(fits):
        steps = -(-len(fit.train) // task.batch_size)
        groups.setdefault((fit.learning_rate, fit.epochs, steps), []).append(number)
    for (learning_rate, _, _), numbers in groups.items():
        width = task.values.shape[1]
        yield make_plan(task.head, task.optimizer, width, task.num_classes, learning_rate), numbers


def _rule_in_span(plan: Plan, num_images: int) -> SgdRule | None:
    """Return the plan's rule if the first layer can learn in the span of the training images."""
    first, rule = plan.layers[0], plan.rule
    in_span = num_images < first.inputs and not first.dropout
    return rule if in_span and isinstance(rule, SgdRule) else None


def _fit_stacked(task: Task, plan: Plan, fits: Sequence[Fit]) -> list[Fitted]:
    import torch

    with torch.no_grad():
        stack = _Stack(task, plan, fits)
        _let_go(task.values)
        probabilities: list[list[Array]] = [[] for _ in fits]
        for epoch, steps in enumerate(_epochs(task, fits), start=1):
            stack.train(steps)
            for number, fit in enumerate(fits):
                if fit.followed or epoch == fit.epochs:
                    probabilities[number].append(stack.predict(number))
        states = [stack.state(number) if fit.kept else None for number, fit in enumerate(fits)]
        del stack  # its images would be in memory twice while Keras builds the heads
        heads = [
            None if state is None else _keras_head(task, fit, state)
            for fit, state in zip(fits, states, strict=True)
        ]
    return [Fitted(np.stack(its), head) for its, head in zip(probabilities, heads, strict=True)]


@dataclass(frozen=True)
class _State:
    """One head after its training."""

    weights: list[Tensor]
    slots: list[Tensor]
    """The optimizer's variables, after its iterations and learning rate."""
    num_steps: int


def _keras_head(task: Task, fit: Fit, state: _State) -> keras.Model:
    """Return the model, optimizer included, that Keras would have trained."""
    head = build(task, fit)
    head.optimizer.build(head.trainable_variables)
    variables = [*head.trainable_variables, *head.optimizer.variables[2:]]
    for variable, tensor in zip(variables, [*state.weights, *state.slots], strict=True):
        variable.assign(tensor)
    head.optimizer.iterations.assign(state.num_steps)
    return head


@dataclass(frozen=True)
class _Step:
    """One batch of each fit of a stack; shorter ones are filled up with images of no weight."""

    rows: Tensor
    """(fits x batch): places among all training images of the stack."""
    targets: Tensor
    """(fits x batch x 1)"""
    weights: Tensor
    """(fits x batch x 1): of the image in the mean over its batch."""


def _epochs(task: Task, fits: Sequence[Fit]) -> Iterator[list[_Step]]:
    """Yield the steps of each epoch; every fit sees its images in an order of its own."""
    import torch

    most = max(len(fit.train) for fit in fits)
    weights = [loss_weights(task, fit) for fit in fits]
    for epoch in zip(*map(orders, fits), strict=True):
        rows = np.zeros((len(fits), most), np.int64)
        targets = np.zeros((len(fits), most, 1), np.int64)
        shares = np.zeros((len(fits), most, 1), np.float32)
        for number, (fit, order) in enumerate(zip(fits, epoch, strict=True)):
            rows[number] = number * most
            rows[number, : len(order)] += order
            targets[number, : len(order), 0] = task.targets[fit.train[order]]
            shares[number, : len(order), 0] = weights[number][order]
            shares[number, : len(order), 0] /= _batch_sizes(len(order), task.batch_size)
        pieces = [
            torch.split(torch.from_numpy(a), task.batch_size, 1) for a in (rows, targets, shares)
        ]
        yield [_Step(*step) for step in zip(*pieces, strict=True)]


def _batch_sizes(count: int, size: int) -> Indices:
    """Return, for each place in an epoch, the size of the batch that it falls into."""
    starts = np.arange(count) // size * size
    return np.minimum(count - starts, size)


class _Stack:
    """The heads of several fits in training."""

    def __init__(self, task: Task, plan: Plan, fits: Sequence[Fit]) -> None:
        import torch

        self._plan = plan
        self._dropout = [np.random.Generator(np.random.SFC64([fit.seed, 1])) for fit in fits]
        self._batch_size = task.batch_size
        self._num_steps = 0
        most = max(len(fit.train) for fit in fits)
        self._images = torch.empty(len(fits), most, task.values.shape[1])  # no memory until filled
        self._held_out = []
        for fit, images in zip(fits, self._images, strict=True):
            layer = standardisation(training_values(task, fit))
            _standardise(layer, task, fit.train, images)
            images[len(fit.train) :] = 0
            self._held_out.append(torch.empty(len(fit.held_out), images.shape[1]))
            _standardise(layer, task, fit.held_out, self._held_out[-1])
        first, *rest = zip(*(initial_weights(plan, fit.seed) for fit in fits), strict=True)
        rule = _rule_in_span(plan, most)
        self._in_span = rule is not None
        self._first: StackedDense | StackedSpan = (
            StackedSpan(first, rule, self._images)
            if rule is not None
            else StackedDense(first, plan.rule)
        )
        self._rest = [StackedDense(weights, plan.rule) for weights in rest]

    @property
    def _layers(self) -> list[StackedDense | StackedSpan]:
        return [self._first, *self._rest]

    def train(self, steps: Sequence[_Step]) -> None:
        """Take the steps of one epoch."""
        for start in range(0, len(steps), _MASKED_STEPS):
            some = steps[start : start + _MASKED_STEPS]
            for step, *masks in zip(some, *self._masks(some), strict=True):
                self._take(step, masks)
        self._num_steps += len(steps)

    def predict(self, number: int) -> Array:
        """Return one head's probabilities for the held-out images of its fit."""
        values = self._held_out[number]
        for plan, layer in zip(self._plan.layers, self._layers, strict=True):
            values = _activated(plan.activation, layer.apply(number, values))
        return values.numpy()

    def state(self, number: int) -> _State:
        """Return one head's state."""
        weights = [tensor for layer in self._layers for tensor in layer.weights(number)]
        slots = [tensor for layer in self._layers for tensor in layer.slots(number)]
        return _State(weights, slots, self._num_steps)

    def _masks(self, steps: Sequence[_Step]) -> list[Sequence[Tensor | None]]:
        """Draw, for each layer and step, what its inputs (fits x batch x inputs) are scaled by."""
        import torch

        masks: list[Sequence[Tensor | None]] = []
        for layer in self._plan.layers:
            if not layer.dropout:
                masks.append([None] * len(steps))
                continue
            dropped = round(layer.dropout * _CHANCES)
            scale = np.float32(1 / (1 - layer.dropout))
            shape = (len(steps), self._batch_size, layer.inputs)
            scaled = np.empty((len(steps), len(self._dropout), *shape[1:]), np.float32)
            for number, draws in enumerate(self._dropout):
                kept = draws.integers(_CHANCES, size=shape, dtype=np.uint16) >= dropped
                np.multiply(kept, scale, out=scaled[:, number])
            masks.append(torch.from_numpy(scaled).unbind())
        return masks

    def _take(self, step: _Step, masks: Sequence[Tensor | None]) -> None:
        """Take one step: forward, and from the last layer to the first backward."""
        values, inputs = self._gathered(step.rows), []
        for plan, layer, mask in zip(self._plan.layers, self._layers, masks, strict=True):
            if mask is not None:
                values.mul_(mask[:, : values.shape[1]])
            inputs.append(values)
            values = _activated(plan.activation, layer.forward(values))
        errors = _errors(values, step, self._plan.clip)
        for number in range(len(self._rest), 0, -1):
            layer = self._rest[number - 1]
            below = layer.errors_below(errors)
            layer.learn(inputs[number], errors)
            errors = _errors_before(
                self._plan.layers[number - 1].activation, below, inputs[number], masks[number]
            )
        self._first.learn(inputs[0], errors)

    def _gathered(self, rows: Tensor) -> Tensor:
        """Return the first layer's inputs: images, or in their span the places of images."""
        if self._in_span:
            return rows
        return self._images.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)


def _activated(activation: str, outputs: Tensor) -> Tensor:
    if activation == "softmax":
        return outputs.softmax(-1)
    return outputs.relu_() if activation == "relu" else outputs


def _errors(probabilities: Tensor, step: _Step, clip: float) -> Tensor:
    """Return the gradient of the mean cross-entropy, as Keras clips it, before the softmax."""
    picked = probabilities.gather(2, step.targets)
    weights = step.weights * (picked == picked.clamp(clip, 1 - clip))
    return (probabilities * weights).scatter_add_(2, step.targets, -weights)


def _errors_before(activation: str, errors: Tensor, outputs: Tensor, mask: Tensor | None) -> Tensor:
    """Return the gradient before a hidden layer's activation for that after its dropout.

    :param outputs: what the layer gave, after dropout.
    """
    import torch

    if mask is not None:
        errors = errors.mul_(mask[:, : errors.shape[1]])
    if activation == "relu":  # in one pass
        torch.ops.aten.threshold_backward.grad_input(errors, outputs, 0, grad_input=errors)
    return errors


def _standardise(layer: keras.Layer, task: Task, index: Indices, out: Tensor) -> None:
    """Write standardised images into ``out``, some at a time to spare memory."""
    for start in range(0, len(index), _STANDARDISED_ROWS):
        some = index[start : start + _STANDARDISED_ROWS]
        out[start : start + len(some)] = layer(task.values[some])


def _let_go(values: Array) -> None:
    """Give the system back the memory of embeddings that a file holds too; they can be read again.

    Training has its own standardised copy, and beside it these would stay until the last step.
    """
    holder: object = values.base
    if isinstance(holder, mmap.mmap):
        SYSTEM.let_go(holder)
