"""The layers of a stack: what each gives, and how each learns.

A stack's tensors begin with the dimension of its fits. Layers have this in common: ``forward``,
``errors_below``, ``learn``, ``apply``, ``weights`` and ``slots``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gelkit.heads.plans import AdamRule, Array, Rule, SgdRule

if TYPE_CHECKING:
    from torch import Tensor


class StackedDense:
    """A dense layer for each fit of a stack."""

    def __init__(self, weights: Sequence[Sequence[Array]], rule: Rule) -> None:
        import torch

        self._kernel = torch.stack([torch.from_numpy(its[0]) for its in weights])
        self._biases = [
            torch.stack([torch.from_numpy(its[1]) for its in weights]) for _ in weights[0][1:]
        ]
        parameters = [self._kernel, *self._biases]
        self._descent: _Adam | _Sgd = (
            _Adam(parameters, rule) if isinstance(rule, AdamRule) else _Sgd(parameters, rule)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (fits x batch x units) for inputs (fits x batch x inputs)."""
        import torch

        if not self._biases:
            return torch.bmm(inputs, self._kernel)
        return torch.baddbmm(self._biases[0].unsqueeze(1), inputs, self._kernel)

    def errors_below(self, errors: Tensor) -> Tensor:
        """Return the gradient at the inputs for that at the outputs."""
        import torch

        return torch.bmm(errors, self._kernel.mT)

    def learn(self, inputs: Tensor, errors: Tensor) -> None:
        """Take one step of the optimizer."""
        self._descent.step(inputs, errors)

    def apply(self, number: int, values: Tensor) -> Tensor:
        """Return (images x units) by the layer of one fit for values (images x inputs)."""
        product = values @ self._kernel[number]
        return product + self._biases[0][number] if self._biases else product

    def weights(self, number: int) -> list[Tensor]:
        """Return one fit's kernel (inputs x units) and, if there is one, bias (units,)."""
        return [self._kernel[number], *(bias[number] for bias in self._biases)]

    def slots(self, number: int) -> list[Tensor]:
        """Return the optimizer's variables of one fit, in Keras' order."""
        return self._descent.slots(number)


class StackedSpan:
    """A first layer under gradient descent, with fewer images than dimensions.

    All its updates are sums of standardised images, so that what is learnt is a coefficient for
    each image: the kernel is its start + images^T coefficients. The start's outputs and the images'
    inner products are computed once; the inputs of a step are places of images. A 1 beside each
    image's values stands for the bias.
    """

    def __init__(self, weights: Sequence[Sequence[Array]], rule: SgdRule, images: Tensor) -> None:
        import torch

        self._rule = rule
        self._images = images
        self._start = [[torch.from_numpy(array) for array in its] for its in weights]
        self._bias = float(len(self._start[0]) - 1)
        outputs = [_sum_of(x, its) for x, its in zip(images, self._start, strict=True)]
        self._outputs = torch.stack(outputs).flatten(0, 1)
        self._products = (torch.bmm(images, images.mT) + self._bias).flatten(0, 1)
        self._coefficients = images.new_zeros(*images.shape[:2], self._outputs.shape[1])
        self._momentum = torch.zeros_like(self._coefficients)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (fits x batch x units) for places (fits x batch) in the stack's images."""
        import torch

        places = rows.flatten()
        outputs = self._outputs.index_select(0, places).view(*rows.shape, -1)
        products = self._products.index_select(0, places).view(*rows.shape, -1)
        return torch.baddbmm(outputs, products, self._coefficients)

    def learn(self, rows: Tensor, errors: Tensor) -> None:
        """Take one step of gradient descent."""
        self._momentum.mul_(self._rule.momentum)
        self._momentum.flatten(0, 1).index_add_(
            0, rows.flatten(), errors.flatten(0, 1), alpha=-self._rule.learning_rate
        )
        self._coefficients.add_(self._momentum)

    def apply(self, number: int, values: Tensor) -> Tensor:
        """Return (images x units) by the layer of one fit for values (images x inputs)."""
        products = values @ self._images[number].T + self._bias
        return _sum_of(values, self._start[number]) + products @ self._coefficients[number]

    def weights(self, number: int) -> list[Tensor]:
        """Return one fit's kernel (inputs x units) and, if there is one, bias (units,)."""
        moved = self._moved(number, self._coefficients[number])
        return [start + by for start, by in zip(self._start[number], moved, strict=True)]

    def slots(self, number: int) -> list[Tensor]:
        """Return the optimizer's variables of one fit, in Keras' order."""
        moved = self._moved(number, self._momentum[number])
        return moved if self._rule.momentum else []

    def _moved(self, number: int, coefficients: Tensor) -> list[Tensor]:
        moved = [self._images[number].T @ coefficients, coefficients.sum(0)]
        return moved[: len(self._start[number])]


class _Adam:
    """The update of a layer's kernel and bias by Adam.

    PyTorch adds epsilon to the corrected root, Keras to the uncorrected one (the "epsilon hat" of
    Kingma and Ba 2015, section 2): the one is the other with an epsilon of its own at each step.
    """

    def __init__(self, parameters: Sequence[Tensor], rule: AdamRule) -> None:
        import torch

        self._rule = rule
        self._parameters = list(parameters)
        self._gradients = [torch.empty_like(tensor) for tensor in parameters]
        self._momenta = [torch.zeros_like(tensor) for tensor in parameters]
        self._velocities = [torch.zeros_like(tensor) for tensor in parameters]
        self._steps = [torch.zeros(()) for _ in parameters]
        self._step = 0

    def step(self, inputs: Tensor, errors: Tensor) -> None:
        import torch
        from torch.optim.adam import adam

        torch.bmm(inputs.mT, errors, out=self._gradients[0])
        for gradient in self._gradients[1:]:
            torch.sum(errors, 1, out=gradient)
        self._step += 1
        rate, epsilon = self._rate_and_epsilon()
        adam(
            self._parameters,
            self._gradients,
            self._momenta,
            self._velocities,
            [],
            self._steps,
            fused=True,
            amsgrad=False,
            beta1=self._rule.beta_1,
            beta2=self._rule.beta_2,
            lr=rate,
            weight_decay=0.0,
            eps=epsilon,
            maximize=False,
        )

    def _rate_and_epsilon(self) -> tuple[float, float]:
        """Return PyTorch's words for what Keras does in this step, corrections in float32 too."""
        betas, step = (self._rule.beta_1, self._rule.beta_2), self._step
        exact = [1 - beta**step for beta in betas]
        rounded = [float(1 - np.float32(beta) ** np.float32(step)) for beta in betas]
        root = exact[1] ** 0.5
        scale = (rounded[1] ** 0.5 / rounded[0]) / (root / exact[0])
        return self._rule.learning_rate * scale, self._rule.epsilon / root

    def slots(self, number: int) -> list[Tensor]:
        pairs = zip(self._momenta, self._velocities, strict=True)
        return [tensor[number] for pair in pairs for tensor in pair]


class _Sgd:
    """The update of a layer's kernel and bias by gradient descent with momentum."""

    def __init__(self, parameters: Sequence[Tensor], rule: SgdRule) -> None:
        import torch

        self._rule = rule
        self._parameters = list(parameters)
        self._momenta = [torch.zeros_like(tensor) for tensor in parameters]

    def step(self, inputs: Tensor, errors: Tensor) -> None:
        momentum, rate = self._rule.momentum, self._rule.learning_rate
        self._momenta[0].baddbmm_(inputs.mT, errors, beta=momentum, alpha=-rate)
        for its in self._momenta[1:]:
            its.mul_(momentum).sub_(errors.sum(1), alpha=rate)
        for parameter, its in zip(self._parameters, self._momenta, strict=True):
            parameter.add_(its)

    def slots(self, number: int) -> list[Tensor]:
        return [tensor[number] for tensor in self._momenta if self._rule.momentum]


def _sum_of(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    product = values @ weights[0]
    return product + weights[1] if weights[1:] else product
