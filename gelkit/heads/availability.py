"""Availability: which of the configurations are compared where no hardware is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.xla import find_tpu_chips
from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.paths import as_path


def choose_available(
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    backbones: tuple[str, ...] = (),
    heads: tuple[str, ...] = (),
    optimizers: tuple[str, ...] = (),
) -> tuple[tuple[Configuration, ...], str]:
    """Choose configurations on cpu, and on tpu where there is one, or was when stage one ran.

    :returns: the configurations, and a sentence on those left out, empty if there are none.
    :raises UsageError: a name is in no table.
    """
    options = options or RecipeOptions()
    usual = choose_configurations(backbones=backbones, heads=heads, optimizers=optimizers)
    names = dict.fromkeys(configuration.backbone for configuration in usual)
    if options.emulate_tpu or find_tpu_chips() or _is_cached(names, cache, options):
        return usual, ""
    chosen = tuple(its for its in usual if its.hardware != "tpu")
    how = (
        f"Those on tpu were emulated: add --emulate-tpu to compare what {cache} holds of them, too."
        if _is_cached(names, cache, replace(options, emulate_tpu=True))
        else "Those on tpu need a TPU, or --emulate-tpu (extra 'xla') in both stages."
    )
    return chosen, f"{len(chosen)} of the {len(usual)} configurations: those on cpu. {how}"


def _is_cached(backbones: Iterable[str], cache: str | Path, options: RecipeOptions) -> bool:
    """Tell whether there are embeddings of any images of any of the backbones on tpu."""
    weights = ("pretrained", "random") if options.weights == "auto" else (options.weights,)
    recipes = [
        make_recipe(backbone, "tpu", replace(options, weights=name))
        for backbone in backbones
        for name in weights
    ]
    root = as_path(cache)
    return any(any(Cache(root, recipe).folder.glob("shard-*.h5")) for recipe in recipes)
