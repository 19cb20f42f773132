"""Advice: what to say when the cache lacks embeddings, and which command makes them here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from gelkit.features.devices import DeviceError
from gelkit.features.hardware import require_hardware
from gelkit.features.planning import MissingEmbeddingsError, Plan, plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.xla import find_tpu_chips
from gelkit.systems import SYSTEM
from gelkit.text import counted

Pairs = Sequence[tuple[str, str]]
"""Of a backbone and a hardware type."""

_USUAL_WEIGHTS = ("pretrained", "random")


def missing_embeddings(
    planned: Plan, pairs: Pairs, options: RecipeOptions, view: int = 0
) -> MissingEmbeddingsError:
    """Return the error that says what the cache lacks of a plan, and what to do about that.

    :param pairs: what to compute, of which the plan is one.
    """
    folder = planned.cache.folder
    command = say_how(pairs, options, folder.parent, planned.catalog.given, view)
    if not any(folder.parent.glob("*/shard-*.h5")):
        return MissingEmbeddingsError(
            f"Expected a cache of embeddings. Received: none in {str(folder.parent.resolve())!r}. "
            f"If there is one elsewhere, name it with --cache. {command}"
        )
    sentences = [
        f"Expected {folder} to hold the embeddings of {counted(len(planned.catalog), 'image')}.",
        f"Received: {len(planned.missing)} of them are missing.",
        other_weights(planned, options),
        command,
    ]
    return MissingEmbeddingsError(" ".join(filter(None, sentences)))


def other_weights(planned: Plan, options: RecipeOptions) -> str:
    """Say with which other weights the cache has more of a plan's images; empty if with none."""
    recipe = planned.recipe
    root = planned.cache.folder.parent
    for weights in _USUAL_WEIGHTS:
        other = plan(
            planned.identified,
            backbone=recipe.backbone,
            hardware=recipe.hardware.removesuffix("-emulated"),
            cache=root,
            options=replace(options, weights=weights),
            views=planned.tasks[0].views,
        )
        if len(other.missing) < len(planned.missing):
            held = f"all but {len(other.missing)} of these" if other.missing else "these"
            return f"{root} holds {held} images with --weights {weights}: did you mean that?"
    return ""


def say_how(
    pairs: Pairs, options: RecipeOptions, cache: Path, given: Sequence[str] = (), view: int = 0
) -> str:
    """Say how to make the embeddings of pairs on this machine, or, if none can be, elsewhere."""
    possible = [
        pair for pair in pairs if pair[1] != "tpu" or options.emulate_tpu or find_tpu_chips()
    ]
    if possible:
        return f"Compute them first: {features_command(possible, options, cache, given, view)}"
    emulating = replace(options, emulate_tpu=True)
    return (
        f"There is no TPU here: {_before_emulation()}compute them with --emulate-tpu, and give "
        f"that here, too: {features_command(pairs, emulating, cache, given, view)}"
    )


def _before_emulation() -> str:
    try:
        require_hardware("tpu-emulated")
    except DeviceError:
        return "install gelkit's extra 'xla', "
    return ""


def features_command(
    pairs: Pairs, options: RecipeOptions, cache: Path, given: Sequence[str] = (), view: int = 0
) -> str:
    """Return the command that makes the embeddings of pairs.

    :param given: the arguments that name the data, as of :class:`gelkit.images.catalog.Catalog`.
    """
    names = {
        "--backbone": dict.fromkeys(backbone for backbone, _ in pairs),
        "--hardware": dict.fromkeys(hardware for _, hardware in pairs),
    }
    words = ["gelkit features", *(map(SYSTEM.quoted, given) if given else ["DATA"])]
    words += [f"{option} {value}" for option, values in names.items() for value in values]
    default = RecipeOptions()
    words += [
        _option(field.name, getattr(options, field.name))
        for field in fields(options)
        if field.name not in ("emulate_tpu", "augmentations")
        and getattr(options, field.name) != getattr(default, field.name)
    ]
    if options.augmentations != default.augmentations:
        words += [f"--augment {name}" for name in options.augmentations]
    words += ["--emulate-tpu"] if options.emulate_tpu and "tpu" in names["--hardware"] else []
    words += [f"--cache {SYSTEM.quoted(str(cache))}"] if str(cache) != "features" else []
    words += [f"--views {view + 1}"] if view else []
    return " ".join(words)


def _option(name: str, value: object) -> str:
    option = f"--{name.replace('_', '-')}"
    return option if value is True else f"{option} {SYSTEM.quoted(str(value))}"
