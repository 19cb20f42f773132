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
