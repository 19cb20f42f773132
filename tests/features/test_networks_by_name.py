"""Networks by name: what is known of each is its model's own, and is found out once."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_weight

from gelkit.errors import GelkitError, UsageError
from gelkit.features.backbones import Backbone, get_backbone
from gelkit.features.freezing import freeze
from gelkit.features.libraries import build_model, resized
from gelkit.features.recipe import RecipeOptions, choose_backbone, make_recipe
from gelkit.features.weights import load_weights

RANDOM = RecipeOptions(weights="random")

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")

grid = pytest.mark.exhaustive("exhaustive grids")

SMALL = ["mnasnet0_5", "shufflenet_v2_x0_5", pytest.param("googlenet", marks=grid), "swin_t"]
SMALL_OF_TIMM = ["timm/test_vit.r160_in1k", "timm/test_convnext2.r160_in1k", "timm/levit_128s"]
"""Networks of all kinds that take no time."""


def _embedded(row: Backbone, whole: nn.Module, views: torch.Tensor) -> torch.Tensor:
    """Embed the plain way: the model without its classifier, three equal channels, normalised."""
    if row.library == "timm":
        whole.reset_classifier(0)
    else:
        whole.set_submodule(row.layer, nn.Identity())
    shown = row.preprocessing
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (shown.mean, shown.std))
    with torch.no_grad():
        return whole.eval()((views.expand(-1, 3, -1, -1) / 255 - mean) / std)


def _views(size: int) -> torch.Tensor:
    coarse = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse.float(), size=(size, size))


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=needs_timm) for name in SMALL_OF_TIMM)]
)
def test_a_network_gives_what_enters_its_classifier(name: str) -> None:
    """Embeddings would be of another layer, or of pictures shown in another way."""
    row = get_backbone(name)
    views = _views(row.preprocessing.input_size)
    expected = _embedded(row, load_weights(row, "random")[0], views)
    with torch.no_grad():
        found = freeze(load_weights(row, "random")[0], row)(views)
    assert found.shape == (3, row.width)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    assert float(expected.std(0).mean()) > 1e-3 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_16", "efficientnet_b0", "densenet121"])
def test_facts_are_those_that_torchvision_states(name: str) -> None:
    """Costs, sizes and shown pictures would be another network's."""
    row = get_backbone(name)
    stated = get_weight(row.weights)
    assert row.weights_url == stated.url
    assert row.parameters == stated.meta["num_params"]
    assert row.giga_operations == pytest.approx(stated.meta["_ops"], rel=0.02)
    assert row.preprocessing.input_size == stated.transforms().crop_size[0]
    assert row.preprocessing.interpolation == stated.transforms().interpolation.value


def test_other_weights_have_their_own_preprocessing() -> None:
    """Weights that were trained on 384 pixels would be shown 224."""
    options = RecipeOptions(weights="IMAGENET1K_SWAG_E2E_V1")
    recipe = make_recipe("vit_b_16", "cpu", options)
    assert (recipe.view_size, recipe.interpolation) == (384, "bicubic")
    assert recipe.weights == "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"
    assert build_model(recipe.network).image_size == 384


@needs_timm
def test_a_tag_left_out_is_that_of_the_default_weights() -> None:
    """The same embeddings would be made twice, or an update of timm mix those of two weights."""
    short, long = (f"timm/test_vit{tag}" for tag in ("", ".r160_in1k"))
    assert get_backbone(short) == get_backbone(long)
    assert make_recipe(short, "cpu", RANDOM) == make_recipe(long, "cpu", RANDOM)
    folder = make_recipe(short, "cpu", RANDOM).folder_name
    assert folder.startswith("timm-test_vit.r160_in1k-random-cpu-")


@needs_timm
def test_a_vision_transformer_takes_another_size() -> None:
    """DINOv2 could be had at 518 pixels alone, five times as slow as at 224."""
    name = "timm/vit_small_patch14_dinov2.lvd142m"
    usual, small = (
        choose_backbone(name, RecipeOptions(weights="random", input_size=size))
        for size in (None, 224)
    )
    assert (usual.preprocessing.input_size, small.preprocessing.input_size) == (518, 224)
    assert usual.width == small.width == 384
    assert small.giga_operations < usual.giga_operations / 5
    with pytest.raises(UsageError, match="input size of 32 pixels or more"):
        resized(usual, 8)


def test_a_size_that_a_network_does_not_take_is_refused() -> None:
    """The first worker would fail with an assertion of torchvision's."""
    with pytest.raises(UsageError, match="Expected vit_b_16 to take pictures of 256 x 256"):
        make_recipe("vit_b_16", "cpu", RecipeOptions(weights="random", input_size=256))
    larger = make_recipe("mnasnet0_5", "cpu", RecipeOptions(weights="random", input_size=256))
    assert larger.view_size == 256


REFUSED = {
    "no linear layer": ("squeezenet1_0", "squeezenet1_0, whose classifier is another"),
    "a slip": ("convnext_tinny", "Did you mean convnext_tiny?"),
    "a detector": ("fasterrcnn_resnet50_fpn", "Expected a backbone: resnet18, vgg16"),
}
REFUSED_OF_TIMM = {
    "a slip": ("timm/vit_small_patch14_dinov", "Did you mean timm/vit_small_patch14_dinov2"),
    "an unknown tag": ("timm/resnet18.nonsense", "Received: 'timm/resnet18.nonsense'."),
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *REFUSED.values(),
        *(pytest.param(*case, marks=needs_timm) for case in REFUSED_OF_TIMM.values()),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_by_name(name: str, message: str) -> None:
    """A user would get a KeyError or a traceback of torchvision's or timm's."""
    with pytest.raises(UsageError) as error:
        get_backbone(name)
    assert message in str(error.value)


def test_without_timm_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would see an ImportError, or be told that there is no such network."""
    monkeypatch.setattr("gelkit.features.timm_models.find_spec", lambda name: None)
    with pytest.raises(GelkitError, match=r'pip install "gelkit\[timm\]"'):
        get_backbone("timm/not_looked_up_before")


PROGRAM = """
import sys
from gelkit.features.recipe import RecipeOptions, make_recipe
name, size = sys.argv[1:]
recipe = make_recipe(name, "cpu", RecipeOptions(weights="random", input_size=int(size)))
print(recipe.network.width, 'torch' in sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param("mnasnet0_5", 1280, marks=grid),
        pytest.param("timm/test_vit", 64, marks=[needs_timm, grid]),
    ],
)
def test_facts_are_found_out_once(name: str, width: int, tmp_path: Path) -> None:
    """A run in which all is cached would import torch, and take seconds."""
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, name, "96"],
            env=os.environ | {"GELKIT_NOTES": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert said == [f"{width} True\n", f"{width} False\n"]
    for note in tmp_path.rglob("*.json"):
        note.write_text(note.read_text().replace('"width"', '"breadth"'))
    run = [sys.executable, "-c", PROGRAM, name, "96"]
    again = subprocess.run(
        run, env=os.environ | {"GELKIT_NOTES": str(tmp_path)}, capture_output=True, text=True
    )
    assert again.stdout == f"{width} True\n"


@pytest.mark.exhaustive("exhaustive grids")
def test_torchvision_is_imported_without_a_compiler_and_does_what_it_does() -> None:
    """Each process would take a second longer, or somebody's compiler be broken by gelkit."""
    program = (
        "import sys, torch\n"
        "from gelkit.features.torchvision_models import list_torchvision\n"
        "assert 'resnet18' in list_torchvision()\n"
        "assert not [name for name in sys.modules if name.startswith('torch._dynamo')]\n"
        "compiled = torch.compile(torch.nn.Identity(), backend='eager')\n"
        "assert compiled(torch.ones(3)).sum() == 3\n"
        "assert 'torch._dynamo.eval_frame' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
