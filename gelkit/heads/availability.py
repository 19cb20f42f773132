"""Availability: which configurations are compared where hardware or backbones are not named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gelkit.features.auto_weights import PRETRAINED, RANDOM, stand_ins
from gelkit.features.backbones import default_backbones
from gelkit.features.cache import Cache
from gelkit.features.recipe import HARDWARE, RecipeOptions, make_recipe
from gelkit.features.xla import find_tpu_chips
from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.paths import as_path


def choose_available(
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
    hardware: tuple[str, ...] = (),
    backbones: tuple[str, ...] = (),
    heads: tuple[str, ...] = (),
    optimizers: tuple[str, ...] = (),
) -> tuple[tuple[Configuration, ...], str]:
    """Choose configurations on cpu, and on tpu where there is one, or was when stage one ran.

    A backbone whose weights come as a package takes part, too, where its embeddings are cached and
    those of the usual ones, with pretrained weights, are not all. Where none of the usual ones is
    cached at all, it is the only one.

    :param hardware: if it is named, it is taken as it is.
    :returns: the configurations, and a sentence on those left out, empty if there are none.
    :raises UsageError: a name is in no table.
    """
    options = options or RecipeOptions()
    names = backbones or _present(cache, options)
    if hardware:
        return choose_configurations(hardware, names, heads, optimizers), ""
    usual = choose_configurations(backbones=names, heads=heads, optimizers=optimizers)
    if options.emulate_tpu or find_tpu_chips() or _is_cached(names, "tpu", cache, options):
        return usual, ""
    chosen = choose_configurations(("cpu",), names, heads, optimizers)
    how = (
        f"Those on tpu were emulated: add --emulate-tpu to compare what {cache} holds of them, too."
        if _is_cached(names, "tpu", cache, replace(options, emulate_tpu=True))
        else "Those on tpu need a TPU, or --emulate-tpu (extra 'xla') in both stages."
    )
    return chosen, f"{len(chosen)} of the {len(usual)} configurations: those on cpu. {how}"


def _present(cache: str | Path, options: RecipeOptions) -> tuple[str, ...]:
    """Return the backbones to compare where none is named."""
    usual, added = default_backbones(), tuple(_added(cache, options))
    is_any = any(_is_cached_anywhere(name, cache, options) for name in usual)
    return (*usual, *added) if is_any or not added else added


def _added(cache: str | Path, options: RecipeOptions) -> list[str]:
    """Return the backbones with packaged weights that take part beside the usual ones."""
    if options.weights not in ("auto", PRETRAINED):
        return []
    pretrained = replace(options, weights=PRETRAINED)
    if all(_is_cached_anywhere(name, cache, pretrained) for name in default_backbones()):
        return []
    added = stand_ins(options.weights_dir)
    return [name for name in added if _is_cached_anywhere(name, cache, pretrained)]


def _is_cached_anywhere(backbone: str, cache: str | Path, options: RecipeOptions) -> bool:
    return any(_is_cached([backbone], hardware, cache, options) for hardware in HARDWARE)


def _is_cached(
    backbones: Iterable[str], hardware: str, cache: str | Path, options: RecipeOptions
) -> bool:
    """Tell whether there are embeddings of any images of any of the backbones."""
    weights = (PRETRAINED, RANDOM) if options.weights == "auto" else (options.weights,)
    recipes = [
        make_recipe(backbone, hardware, replace(options, weights=name))
        for backbone in backbones
        for name in weights
    ]
    root = as_path(cache)
    return any(any(Cache(root, recipe).folder.glob("shard-*.h5")) for recipe in recipes)
