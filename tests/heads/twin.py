"""A head trained in double precision, from the definitions, to see what rounding can do to it.

Keras' own double precision is not one: it multiplies matrices in single precision here and there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from gelkit.heads.fits import Fit, Task
from gelkit.heads.plans import AdamRule, Plan, initial_weights

Change = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
Images = npt.NDArray[np.intp]


class Twin:
    """One head of a plan, its standardisation, and its optimizer.

    :param change: what is made of the embeddings and of the initial weights before the training.
    """

    def __init__(self, task: Task, fit: Fit, plan: Plan, change: Change) -> None:
        values = change(task.values.astype(np.float64))
        mean, deviation = values[fit.train].mean(axis=0), values[fit.train].std(axis=0)
        self._values = torch.from_numpy((values - mean) / deviation)
        self._targets = torch.from_numpy(task.targets)
        self._plan = plan
        self._layers = [
            [torch.from_numpy(change(array.astype(np.float64))) for array in layer]
            for layer in initial_weights(plan, fit.seed)
        ]
        self._weights = [array.requires_grad_() for layer in self._layers for array in layer]
        self._slots = [
            [torch.zeros_like(array) for _ in range(_num_slots(plan))] for array in self._weights
        ]
        self._num_steps = 0

    def learn(self, images: Images, weights: npt.NDArray[np.float32]) -> None:
        """Take one step with a batch, whose images have weights in the loss."""
        loss = self._losses(images) @ torch.from_numpy(weights.astype(np.float64)) / len(images)
        gradients = torch.autograd.grad(loss, self._weights)
        self._num_steps += 1
        with torch.no_grad():
            for weight, slots, gradient in zip(self._weights, self._slots, gradients, strict=True):
                weight += self._step(slots, gradient)

    def predict(self, images: Images) -> npt.NDArray[np.float64]:
        """Return probabilities (images x classes)."""
        return self._probabilities(images).detach().numpy()

    def loss(self, images: Images) -> float:
        """Return the mean loss."""
        return float(self._losses(images).detach().mean())

    def trained(self) -> list[npt.NDArray[np.float64]]:
        """Return all weights, then the optimizer's variables of each, as Keras orders them."""
        slots = [slot for slots in self._slots for slot in slots]
        return [array.detach().numpy() for array in [*self._weights, *slots]]

    def _probabilities(self, images: Images) -> torch.Tensor:
        values = self._values[images]
        for layer, (kernel, *bias) in zip(self._plan.layers, self._layers, strict=True):
            values = values @ kernel + sum(bias)
            if layer.activation == "relu":
                values = values.relu()
        return values.softmax(1)

    def _losses(self, images: Images) -> torch.Tensor:
        picked = self._probabilities(images)[range(len(images)), self._targets[images]]
        return -picked.clamp(self._plan.clip, 1 - self._plan.clip).log()

    def _step(self, slots: list[torch.Tensor], gradient: torch.Tensor) -> torch.Tensor:
        """Return what is added to a weight."""
        rule = self._plan.rule
        if not isinstance(rule, AdamRule):
            for momentum in slots:
                return momentum.mul_(rule.momentum).sub_(rule.learning_rate * gradient)
            return -rule.learning_rate * gradient
        momentum, velocity = slots
        momentum += (gradient - momentum) * (1 - rule.beta_1)
        velocity += (gradient**2 - velocity) * (1 - rule.beta_2)
        number = self._num_steps
        rate = rule.learning_rate * (1 - rule.beta_2**number) ** 0.5 / (1 - rule.beta_1**number)
        return -rate * momentum / (velocity.sqrt() + rule.epsilon)


def _num_slots(plan: Plan) -> int:
    return 2 if isinstance(plan.rule, AdamRule) else int(plan.rule.momentum > 0)
