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
            assert (fused(batch) - expected).abs().max() <= 2e-5 * expected.abs().max()
    assert torch.equal(pictures, kept)


@pytest.mark.parametrize(
    ("form", "modules"),
    [
        pytest.param("relu", [FusedConvolution], id="relu"),
        pytest.param("sum, relu", [FusedConvolution, FusedConvolution], id="sum, relu"),
        pytest.param("sum by winograd", [FusedConvolution, WinogradConvolution], id="winograd"),
    ],
)
def test_what_follows_is_fused(form: str, modules: list[type[nn.Module]]) -> None:
    """The kernel would gain nothing."""
    model = _Block(FORMS[form]).eval().requires_grad_(False)
    fused = fuse(fx.symbolic_trace(model), SHAPE)
    assert isinstance(fused, fx.GraphModule)
    calls = [node for node in fused.graph.nodes if node.op not in ("placeholder", "output")]
    assert [type(fused.get_submodule(str(node.target))) for node in calls] == modules
