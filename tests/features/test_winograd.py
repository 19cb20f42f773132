"""Winograd's algorithm gives what the convolution that it replaces gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gelkit.features.winograd import WinogradConvolution, pays


def _pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


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
    expected = convolution.double()(pictures.double())
    expected = expected if added is None else expected + added
    expected = expected.relu() if rectify else expected
    found = WinogradConvolution(convolution.float(), rectify=rectify)(pictures, added)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * max(1.0, expected.abs().max().item())


def test_a_large_picture_is_taken_in_portions() -> None:
    """Rows between two portions would be wrong, or an image would get its neighbour's margin."""
    convolution = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    pictures = _pictures(3, 64, 100, 92)
    found = WinogradConvolution(convolution)(pictures)
    expected = convolution(pictures)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    alone = WinogradConvolution(convolution)(pictures[1:2])
    torch.testing.assert_close(found[1:2], alone, rtol=0, atol=1e-5)


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
