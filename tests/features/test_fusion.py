"""A fused model gives what the model gives, whatever follows its convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from gelkit.features.fusion import FusedConvolution, fuse
from gelkit.features.winograd import WinogradConvolution

SHAPE = (2, 64, 12, 14)


class _Block(nn.Module):
    """A little model whose forward pass is one of ``FORMS``."""

    def __init__(self, form: Callable[[_Block, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.form = form
        self.entry = nn.Conv2d(64, 64, 1)
        self.same = nn.Conv2d(64, 64, 3, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 5, padding=2, groups=64, bias=False)
        self.reflected = nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect")
        self.relu, self.hardswish, self.silu = nn.ReLU(inplace=True), nn.Hardswish(), nn.SiLU()
        self.dropout = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.form(self, x)


FORMS: dict[str, Callable[[_Block, torch.Tensor], torch.Tensor]] = {
    "relu": lambda m, x: m.relu(m.entry(x)),
    "hardswish": lambda m, x: m.hardswish(m.depthwise(x)),
    "silu": lambda m, x: m.silu(m.entry(x)),
    "winograd, hardswish": lambda m, x: m.hardswish(m.same(x)),
    "nothing after": lambda m, x: m.same(x).mean((2, 3)),
    "used twice": lambda m, x: m.relu(y := m.same(x)) + y,
    "sum, relu": lambda m, x: m.relu(m.entry(y := m.entry(x)) + y),
    "sum, hardswish": lambda m, x: m.hardswish(m.entry(y := m.entry(x)) + y),
    "sum by winograd": lambda m, x: m.relu(m.same(y := m.entry(x)) + y),
    "sum of the input": lambda m, x: m.entry(x) + x,
    "sum of what is convolved": lambda m, x: m.relu(m.depthwise(y := m.entry(x)) + y),
    "sum of what is convolved by winograd": lambda m, x: m.same(y := m.entry(x)) + y,
    "sum with a part of itself": lambda m, x: m.depthwise((y := m.entry(x)).roll(1, 2)) + y,
    "sum with another name of itself": lambda m, x: m.depthwise(m.dropout(y := m.entry(x))) + y,
    "sum with a view of itself": lambda m, x: m.depthwise((y := m.entry(x))[:, :]) + y,
    "sum of another branch": lambda m, x: m.relu(m.entry(m.silu(m.entry(x))) + m.depthwise(x)),
    "sum by winograd of another branch": lambda m, x: m.relu(
        m.same(m.silu(m.entry(x))) + m.depthwise(x)
    ),
    "sum needed later": lambda m, x: (m.depthwise(y := m.entry(x)) + y) * y,
    "sum under another name": lambda m, x: (m.depthwise(y := m.entry(x)) + m.dropout(y)) * y,
    "sum with itself": lambda m, x: (y := m.entry(x)) + y,
    "sum with a number": lambda m, x: m.relu(m.entry(x) + 0.5),
    "sum of other shape": lambda m, x: m.entry(x) + m.entry(x).mean((2, 3), keepdim=True),
    "reflected border": lambda m, x: m.relu(m.reflected(x)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_fused_model_gives_the_same(form: str) -> None:
    """A user's own backbone would get other embeddings, or its input be overwritten."""
    torch.manual_seed(0)
    model = _Block(FORMS[form]).eval().requires_grad_(False)
    pictures = torch.randn(SHAPE)
    kept = pictures.clone()
    with torch.inference_mode():
        expected = model(pictures)
        fused = fuse(fx.symbolic_trace(model), SHAPE)
        for batch in (pictures, pictures.to(memory_format=torch.channels_last)):
            assert _error(fused(batch), expected) <= 2e-5
    assert torch.equal(pictures, kept)


@pytest.mark.parametrize(
    ("form", "modules"),
    [
        pytest.param("relu", [FusedConvolution], id="relu"),
        pytest.param("sum of another branch", [FusedConvolution] * 3, id="sum, relu"),
        pytest.param(
            "sum by winograd of another branch",
            [FusedConvolution, FusedConvolution, WinogradConvolution],
            id="winograd",
        ),
    ],
)
def test_what_follows_is_fused(form: str, modules: list[type[nn.Module]]) -> None:
    """The kernel would gain nothing."""
    model = _Block(FORMS[form]).eval().requires_grad_(False)
    fused = fuse(fx.symbolic_trace(model), SHAPE)
    assert isinstance(fused, fx.GraphModule)
    calls = [node for node in fused.graph.nodes if node.op not in ("placeholder", "output")]
    assert [type(fused.get_submodule(str(node.target))) for node in calls] == modules


IN_PLACE = {
    "1 x 1": nn.Conv2d(512, 512, 1),
    "3 x 3": nn.Conv2d(64, 64, 3, padding=1),
    "depthwise": nn.Conv2d(64, 64, 5, padding=2, groups=64),
}
"""A narrow 1 x 1 comes out right by luck: all channels are read before any is written."""


@pytest.mark.parametrize("convolution", IN_PLACE.values(), ids=IN_PLACE)
def test_onednn_is_wrong_where_it_adds_to_what_it_reads(convolution: nn.Conv2d) -> None:
    """Why a sum with the convolution's own input is not fused: embeddings would be silently wrong.

    Seen with SSE4.1, AVX2 and AVX-512, with one thread and two, in channels-last memory. Where
    this fails, torch has mended it, and the sum may be fused.
    """
    shape = (2, convolution.in_channels, 12, 14)
    pictures, others = (torch.randn(shape).to(memory_format=torch.channels_last) for _ in "12")
    with torch.inference_mode():
        convolved = convolution(pictures)
        fused = FusedConvolution(convolution, shape, "none")
        apart = fused(pictures, others.clone(memory_format=torch.preserve_format))
        assert _error(apart, convolved + others) <= 2e-5
        shared = pictures.clone(memory_format=torch.preserve_format)
        assert _error(fused(shared, shared), convolved + pictures) > 0.01


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())
