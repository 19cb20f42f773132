"""Rounding: how far float32 embeddings of one image may be apart, and where that comes from."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

MARGIN = 8
"""Two computations of an embedding may be so many times as far apart as one rounding moves it.

Each kernel that was measured, on processors from SSE4.1 to AVX-512, is 0.4 to 1.2 times as far from
the result in double precision: the roundings of its sums are many, and largely cancel.
"""

CLOSE = 1e-4
"""The same for all backbones, as a share of the largest value; see test_backbones.py."""


def sensitivity(model: nn.Module, pictures: torch.Tensor) -> float:
    """Return how far rounding all weights and pictures once moves the exact outputs, at most.

    As a share of the largest value.
    """
    exact, generator = copy.deepcopy(model).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = exact(pictures.double())
        for weights in exact.parameters():
            weights.copy_(_rounded(weights, generator))
        moved = exact(_rounded(pictures.double(), generator))
    return float((moved - expected).abs().max() / expected.abs().max())


def _rounded(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    signs = 2 * torch.randint(0, 2, values.shape, generator=generator) - 1
    return values * (1 + signs * 2.0**-24)


def assert_close(found: npt.NDArray[np.float32], expected: npt.NDArray[np.floating]) -> None:
    """Fail if embeddings differ by more than rounding."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * np.abs(expected).max())
