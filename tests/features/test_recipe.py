"""Recipes: two embeddings are the same kind exactly if their recipes are equal."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.features.recipe import Recipe, RecipeOptions, make_recipe

RANDOM = RecipeOptions(weights="random")
RECIPE = make_recipe("resnet18", "cpu")
FIELDS = [field.name for field in dataclasses.fields(Recipe)]


@given(values=st.fixed_dictionaries({name: st.text(max_size=5) for name in FIELDS}))
def test_a_recipe_reads_back(values: dict[str, str]) -> None:
    """A cache would be refused by the options it was made with."""
    recipe = Recipe(**values)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_makes_another_cache(name: str) -> None:
    """Embeddings of different kinds would be mixed in one cache."""
    other = dataclasses.replace(RECIPE, **{name: "something else"})
    assert other.sha256 != RECIPE.sha256
    assert other.folder_name.rpartition("-")[2] != RECIPE.folder_name.rpartition("-")[2]
    assert RECIPE.differences(other).startswith(f"{name}: ")
    assert RECIPE.differences(RECIPE) == ""


def test_the_folder_tells_people_what_it_holds() -> None:
    """Someone looking into the caches could not tell them apart."""
    assert RECIPE.folder_name == f"resnet18-imagenet1k_v1-cpu-{RECIPE.sha256[:8]}"
    emulated = make_recipe("vgg16", "tpu", dataclasses.replace(RANDOM, emulate_tpu=True))
    assert emulated.folder_name.startswith("vgg16-random-tpu-emulated-")


def test_emulation_is_a_recipe_of_its_own_and_concerns_the_tpu_alone() -> None:
    """Emulated rows would pass for a TPU's, or the cpu's cache would be made twice."""
    emulating = RecipeOptions(emulate_tpu=True)
    assert make_recipe("resnet18", "tpu", emulating) != make_recipe("resnet18", "tpu")
    assert make_recipe("resnet18", "cpu", emulating) == RECIPE


def test_this_versions_recipes_do_not_change() -> None:
    """Caches that took days would be computed again after an update."""
    assert make_recipe("resnet18", "cpu").folder_name == "resnet18-imagenet1k_v1-cpu-0eec2802"
    assert make_recipe("resnet18", "cpu", RANDOM).folder_name == "resnet18-random-cpu-4a02d2fd"


OF_OLDER_VERSIONS = {
    "resnet18": ("cpu", {}, "0eec280213a07a507b60f1113f05a420bfd3d69362db0437ffbe9285f80e8592"),
    "vgg16": ("cpu", {}, "635216413f7515669cd228fe737e1184022bbd42c2a14944d9a4b88c5ba2f585"),
    "mobilenet-v3": ("cpu", {}, "91b0d8fee655c46d21450ba496290ddc03f2710f6dd643e1713c23904069f60b"),
    "vgg16 on tpu": ("tpu", {}, "7a31523c5b6bf642d0b47d217d66134c9201219b24847ff6a6f35fa29847a828"),
    "mobilenet-v3, augmented": (
        "tpu",
        {"weights": "random", "emulate_tpu": True},
        "8c6599655c2d79d2473ad8813147be11ca7da9fbe70e1f100263b7f78c9bed2a",
    ),
}
"""Digests that were recorded before recipes had an interpolation, a mean and a deviation."""


@pytest.mark.parametrize("name", OF_OLDER_VERSIONS)
def test_recipes_of_older_versions_keep_their_digests(name: str) -> None:
    """Caches that took days would be computed again because a recipe has learned a new field."""
    hardware, options, digest = OF_OLDER_VERSIONS[name]
    backbone, augmented = name.split()[0].strip(","), name.endswith("augmented")
    recipe = make_recipe(backbone, hardware, RecipeOptions(**options), augmented=augmented)
    assert recipe.sha256 == digest
    assert "interpolation" not in recipe.to_json()
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_imagenet_is_the_older_word_for_pretrained() -> None:
    """Heads and caches of an older version would be made again, or be told from equal ones."""
    assert RecipeOptions(weights="imagenet") == RecipeOptions(weights="pretrained")
    assert RecipeOptions(weights="imagenet") == RecipeOptions()
    assert make_recipe("resnet18", "cpu", RecipeOptions(weights="imagenet")) == RECIPE


def test_what_a_network_is_shown_is_part_of_its_recipe() -> None:
    """Embeddings of views of another size or sharpness would be taken for the same."""
    recipe = make_recipe("efficientnet-lite0", "cpu", RANDOM)
    assert (recipe.view_size, recipe.interpolation, recipe.mean) == (224, "bicubic", (0.5,) * 3)
    assert Recipe.from_json(recipe.to_json()) == recipe
    larger = make_recipe("resnet18", "cpu", dataclasses.replace(RANDOM, input_size=256))
    assert larger.view_size == larger.network.preprocessing.input_size == 256
    usual = dataclasses.replace(RANDOM, input_size=224)
    assert make_recipe("resnet18", "cpu", usual) == make_recipe("resnet18", "cpu", RANDOM)
    with pytest.raises(UsageError, match="input size of 32 pixels or more"):
        make_recipe("resnet18", "cpu", dataclasses.replace(RANDOM, input_size=8))


def test_a_kernel_refuses_a_precision_that_it_has_not() -> None:
    """Winograd's sums in 8 bits would be noise, or float32 pass for bfloat16."""
    rounded = dataclasses.replace(RANDOM, kernel="winograd", precision="bfloat16")
    with pytest.raises(UsageError, match=r"Expected the precision float32 with .* 'winograd'"):
        make_recipe("vgg16", "cpu", rounded)
    assert make_recipe("vgg16", "tpu", rounded).precision == "bfloat16"


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"backbone": "resnet18"}'])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    """A cache of another version would be read as if it were of this one."""
    with pytest.raises(ValueError, match=r"recipe|Expecting"):
        Recipe.from_json(text)


def test_augmentations_concern_augmented_views_alone() -> None:
    """Another augmentation would mean embedding all clean views again."""
    flipped = RecipeOptions(augmentations=("flip",))
    assert make_recipe("resnet18", "cpu", flipped) == RECIPE
    augmented = make_recipe("resnet18", "cpu", flipped, augmented=True)
    assert augmented != make_recipe("resnet18", "cpu", augmented=True)
    assert augmented.folder_name.startswith("resnet18-imagenet1k_v1-cpu-augmented-")


def test_unknown_names_are_refused() -> None:
    """A misspelt option would make a cache of its own."""
    with pytest.raises(UsageError, match="cpu, tpu, cuda"):
        make_recipe("resnet18", "gpu")
    with pytest.raises(UsageError, match="Expected a backbone"):
        make_recipe("resnet", "cpu")
    with pytest.raises(UsageError, match="Expected the geometry"):
        make_recipe("resnet18", "cpu", RecipeOptions(geometry="crop"))


def test_naming_a_cache_needs_no_torch() -> None:
    """Looking a cache up would take seconds of imports."""
    program = (
        "import sys\nfrom gelkit.features.recipe import make_recipe\n"
        "make_recipe('vgg16', 'tpu')\nprint('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
