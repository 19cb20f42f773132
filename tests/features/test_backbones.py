"""Backbones: the table's facts are those of the libraries, and embeddings their models' own."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from rounding import CLOSE, MARGIN, sensitivity
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_weight

from gelkit.errors import UsageError
from gelkit.features.backbones import (
    BACKBONES,
    Preprocessing,
    default_backbones,
    get_backbone,
)
from gelkit.features.freezing import freeze
from gelkit.features.libraries import build_model
from gelkit.features.weights import load_weights

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra pretrained")
LARGE = dict.fromkeys(("resnet18", "vgg16"), pytest.mark.exhaustive("exhaustive grids"))


@pytest.fixture(
    params=[pytest.param(name, marks=LARGE.get(name, ())) for name in BACKBONES], scope="module"
)
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of each backbone in turn."""
    if find_spec(BACKBONES[request.param].library) is None:
        pytest.skip(f"needs {BACKBONES[request.param].library}")
    return str(request.param)


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "mobilenet-v3"])
def test_the_weights_are_the_ones_torchvision_registers(name: str) -> None:
    """Downloads would fail, caches be named after other weights, or pictures look another way."""
    row = BACKBONES[name]
    assert row.library == "torchvision"
    registered = get_weight(row.weights)
    assert row.weights_url == registered.url
    assert row.weights.endswith("IMAGENET1K_V1")
    assert row.parameters == registered.meta["num_params"]
    assert row.giga_operations == pytest.approx(registered.meta["_ops"], abs=0.005)
    preset = registered.transforms()
    assert row.preprocessing == Preprocessing(
        preset.crop_size[0], preset.interpolation.value, tuple(preset.mean), tuple(preset.std)
    )


@needs_timm
def test_efficientnet_is_shown_what_timm_would_show_it() -> None:
    """The network would be shown pictures of another size or brightness than it was trained on."""
    import timm

    row = BACKBONES["efficientnet-lite0"]
    facts = timm.get_pretrained_cfg(row.model)
    assert row.preprocessing == Preprocessing(
        facts.input_size[-1], facts.interpolation, facts.mean, facts.std
    )
    assert row.layer == facts.classifier


def test_the_operations_are_those_of_a_forward_pass(name: str) -> None:
    """What a run is said to cost would be another network's cost."""
    row = BACKBONES[name]
    with torch.device("meta"):
        model = build_model(row).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, row.preprocessing.input_size, row.preprocessing.input_size))
    assert row.giga_operations == pytest.approx(counter.get_total_flops() / 2e9, abs=0.005)


def test_the_last_layer_on_an_embedding_gives_the_models_output(name: str) -> None:
    """Embeddings would be of another layer, or of an image normalised in another way."""
    row = BACKBONES[name]
    whole, _ = load_weights(row, "random", seed=0)
    assert sum(parameter.numel() for parameter in whole.parameters()) == row.parameters
    views, shown = _coarse_views(), row.preprocessing
    mean, std = (torch.tensor(x).reshape(3, 1, 1).double() for x in (shown.mean, shown.std))
    pictures = (views.expand(-1, 3, -1, -1) / 255 - mean) / std
    frozen = freeze(copy.deepcopy(whole), row).double()  # its weights were rounded to float32
    whole = whole.eval().double()
    with torch.no_grad():
        embeddings = frozen(views)
        expected, output = whole(pictures), whole.get_submodule(row.layer)(embeddings)
    allowed = MARGIN * sensitivity(whole, pictures)
    assert allowed < 1e-3
    assert embeddings.shape == (3, row.width)
    np.testing.assert_allclose(output, expected, rtol=0, atol=allowed * float(expected.abs().max()))


def _coarse_views() -> torch.Tensor:
    """Draw greys of large patches; single pixels of noise would be ill-conditioned."""
    coarse = np.random.default_rng(0).integers(0, 256, (3, 1, 14, 14))
    return torch.from_numpy(coarse.repeat(16, axis=2).repeat(16, axis=3)).double()


def test_rounding_moves_embeddings_less_than_tests_allow(name: str) -> None:
    """What tests take for rounding would be another processor's fault, or nobody's."""
    row = BACKBONES[name]
    normalise, body = freeze(load_weights(row, "random")[0], row)
    assert MARGIN * sensitivity(body, normalise(_coarse_views().float())) <= CLOSE


def test_a_frozen_backbone_does_not_change(name: str) -> None:
    """Embeddings would depend on what was embedded before, or memory fill with gradients."""
    frozen = freeze(build_model(BACKBONES[name]), BACKBONES[name])
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_comparison_is_of_three_backbones_unless_others_are_named() -> None:
    """The 24 configurations would become 32."""
    assert default_backbones() == ("resnet18", "vgg16", "mobilenet-v3")


def test_an_unknown_backbone_names_the_known_ones() -> None:
    """A misspelt name would give a KeyError."""
    with pytest.raises(UsageError, match="resnet18, vgg16, mobilenet-v3"):
        get_backbone("resnet81")
