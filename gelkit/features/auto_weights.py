"""Automatic weights: for each backbone by itself, pretrained if they can be had, else random."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gelkit.features.backbones import BACKBONES, default_backbones, get_backbone
from gelkit.features.planning import Identified, identify, plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.torchvision_weights import download_folder
from gelkit.features.weights import find_weights
from gelkit.features.weights_files import WeightsError
from gelkit.images.catalog import Catalog

logger = logging.getLogger(__name__)

PRETRAINED, RANDOM = "pretrained", "random"

Pairs = Mapping[tuple[str, str], RecipeOptions]
"""What stage one computes: the options of each pair of a backbone and a hardware type."""


def choose_pairs(
    catalog: Catalog | Identified,
    hardware: Sequence[str],
    backbones: Sequence[str] = (),
    *,
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
) -> Pairs:
    """Choose what stage one computes, with the weights ``auto`` resolved for each backbone.

    Where no backbone is named, and one of the usual ones has to do with random weights, those
    whose weights come as a package take part, too, if it is installed: then some rows say something
    of transfer learning.

    :param backbones: none: the usual ones.
    """
    options = options or RecipeOptions()
    names = list(dict.fromkeys(backbones or default_backbones()))
    chosen = choose_weights(catalog, names, hardware, cache=cache, options=options)
    if not backbones and options.weights == "auto" and any(map(_is_random, chosen.values())):
        pretrained = replace(options, weights=PRETRAINED)
        chosen |= dict.fromkeys(stand_ins(options.weights_dir), pretrained)
    return {(name, type_): chosen[name] for type_ in hardware for name in chosen}


def choose_weights(
    catalog: Catalog | Identified,
    backbones: Iterable[str],
    hardware: Sequence[str] = ("cpu",),
    *,
    cache: str | Path = "features",
    options: RecipeOptions | None = None,
) -> dict[str, RecipeOptions]:
    """Resolve the weights ``auto`` for each backbone by itself; others stay as they are.

    Pretrained weights are taken where all embeddings of them are cached, or where they can be had;
    random ones where all embeddings of those are cached, or as the last resort. Random weights are
    logged as a warning, once.

    :param hardware: on which the embeddings are wanted.
    :returns: the options of each backbone.
    """
    options = options or RecipeOptions(weights="auto")
    if options.weights != "auto":
        return dict.fromkeys(backbones, options)
    catalog = identify(catalog, cache)
    chosen: dict[str, RecipeOptions] = {}
    reason: WeightsError | None = None
    for name in backbones:
        pretrained, random = (replace(options, weights=its) for its in (PRETRAINED, RANDOM))
        pairs = [(name, type_) for type_ in hardware]
        if _is_cached(catalog, pairs, cache, pretrained):
            chosen[name] = pretrained
            continue
        if get_backbone(name).packaged is None and _is_cached(catalog, pairs, cache, random):
            chosen[name] = random
            continue
        obstacle = _obstacle(name, options.weights_dir, may_download=reason is None)
        chosen[name] = pretrained if obstacle is None else random
        reason = reason or obstacle
    _warn([name for name, its in chosen.items() if _is_random(its)], reason)
    return chosen


def stand_ins(weights_dir: Path | None = None) -> list[str]:
    """Return the backbones that must be named and whose weights an installed package brings."""
    return [
        row.name
        for row in BACKBONES.values()
        if row.only_if_named
        and row.packaged is not None
        and _obstacle(row.name, weights_dir, may_download=False) is None
    ]


def _obstacle(
    backbone: str, weights_dir: Path | None, *, may_download: bool
) -> WeightsError | None:
    """Return why a backbone's pretrained weights cannot be had; None if they can.

    :param may_download: not where another download has failed: a firewall would let each wait.
    """
    row = get_backbone(backbone)
    if not may_download and row.library == "torchvision":
        weights_dir = weights_dir or download_folder()
    try:
        find_weights(row, PRETRAINED, weights_dir)
    except WeightsError as error:
        return error
    return None


def _is_random(options: RecipeOptions) -> bool:
    return options.weights == RANDOM


def _is_cached(
    catalog: Identified, pairs: Sequence[tuple[str, str]], cache: str | Path, options: RecipeOptions
) -> bool:
    try:
        return not any(
            plan(catalog, backbone=name, hardware=hardware, cache=cache, options=options).missing
            for name, hardware in pairs
        )
    except WeightsError:  # what nobody knows the SHA-256 of has not been cached here
        return False


def _warn(backbones: Sequence[str], reason: WeightsError | None) -> None:
    """Say which backbones have random weights, and why."""
    if not backbones:
        return
    why = (
        "their embeddings are cached; --weights pretrained computes others"
        if reason is None
        else f"pretrained ones cannot be had. {reason}"
    )
    logger.warning(
        "weights auto: RANDOM weights for %s, which says nothing of transfer learning, because %s",
        ", ".join(backbones),
        why,
    )
