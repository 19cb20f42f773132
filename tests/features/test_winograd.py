"""Winograd's algorithm gives what the convolution that it replaces gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gelkit.features import winograd
from gelkit.features.winograd import WinogradConvolution, pays

UNIT_ROUNDOFF = 2.0**-24


def _pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _rounding(convolution: nn.Conv2d, pictures: torch.Tensor) -> torch.Tensor:
    """Return how far roundings move each value of Winograd's result, without bias or sum.

    Each value is a sum of products, and about n roundings act on it, each with another sign: they
    add up as the root of the products' squares does, times that of n; 6 standard deviations.
    """
    data, kernel, result = (
        torch.tensor(matrix, dtype=torch.float64).square()
        for matrix in (
            winograd._TRANSFORM_OF_INPUT,
            winograd._TRANSFORM_OF_KERNEL,
            winograd._TRANSFORM_OF_OUTPUT,
        )
    )
    height, width = pictures.shape[2:]
    padded = nn.functional.pad(pictures.double().square(), (1, 5, 1, 5))
    tiles = data @ padded.unfold(2, 6, 4).unfold(3, 6, 4) @ data.T
    kernels = kernel @ convolution.weight.double().square() @ kernel.T
    products = torch.einsum("ncyxij,ocij->noyxij", tiles, kernels)
    squares = (result @ products @ result.T).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)
    roundings = convolution.in_channels + 2 * 6 + 2 * 6 + 2  # the products' sums, both transforms
    return 6 * UNIT_ROUNDOFF * (roundings * squares[:, :, :height, :width]).sqrt()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5),
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    channels=st.sampled_from([(1, 1), (3, 5), (64, 8), (8, 300)]),
    bias=st.booleans(),
    rectify=st.booleans(),
    adds=st.booleans(),
)
def test_it_is_the_convolution(
    count: int,
    height: int,
    width: int,
    channels: tuple[int, int],
    bias: bool,
    rectify: bool,
    adds: bool,
) -> None:
    """Embeddings would depend on the kernel, at picture borders and for odd sizes above all."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(*channels, 3, padding=1, bias=bias).requires_grad_(False)
    pictures = _pictures(count, channels[0], height, width)
    added = _pictures(count, channels[1], height, width) if adds else None
    allowed = _rounding(convolution, pictures)
    expected = convolution.double()(pictures.double())
    expected = expected if added is None else expected + added
    expected = expected.relu() if rectify else expected
    found = WinogradConvolution(convolution.float(), rectify=rectify)(pictures, added)
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= allowed + 4 * UNIT_ROUNDOFF * (1 + expected.abs())).all()


def test_a_large_picture_is_taken_in_portions() -> None:
    """Rows between two portions would be wrong, or an image would get its neighbour's margin."""
    convolution = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    pictures = _pictures(3, 64, 100, 92)
    found = WinogradConvolution(convolution)(pictures)
    allowed = _rounding(convolution, pictures)
    alone = WinogradConvolution(convolution)(pictures[1:2])
    assert ((found[1:2] - alone).abs() <= 2 * allowed[1:2]).all()
    expected = convolution.double()(pictures.double())
    assert ((found - expected).abs() <= allowed + 4 * UNIT_ROUNDOFF * (1 + expected.abs())).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, True, id="plain"),
        pytest.param({"stride": 2}, False, id="stride"),
        pytest.param({"padding": 0}, False, id="no padding"),
        pytest.param({"padding": 2, "dilation": 2}, False, id="dilated"),
        pytest.param({"kernel_size": 5}, False, id="5 x 5"),
        pytest.param({"groups": 64}, False, id="depthwise"),
        pytest.param({"padding_mode": "reflect"}, False, id="reflected border"),
        pytest.param({"padding": "same"}, False, id="padding by name"),
        pytest.param({"in_channels": 3}, False, id="few channels"),
    ],
)
def test_only_what_it_computes_is_replaced(settings: dict[str, object], expected: bool) -> None:
    """Another convolution than the backbone's would be computed."""
    defaults = {"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1}
    assert pays(nn.Conv2d(**(defaults | settings))) == expected  # type: ignore[arg-type]
