"""The options that several commands share, or that are many."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from gelkit.heads.training import Settings
from gelkit.paths import as_path, require_local

Command: TypeAlias = Callable[..., None]
Option: TypeAlias = Callable[[Command], Command]

_DEFAULTS = Settings()


class AnyPath(click.Path):
    """A path on this machine or in a store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path as it is meant."""
        return as_path(os.fsdecode(super().convert(value, param, ctx)))


class LocalPath(click.Path):
    """A path on this machine; one in a store is refused before anything is done."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        name = param.opts[0] if param else "path"
        return require_local(os.fsdecode(super().convert(value, param, ctx)), f"path for {name}")


backbones_option = click.option(
    "--backbone",
    "backbones",
    multiple=True,
    help="A network's name, as gelkit backbones lists them; may be given several times.  "
    "[default: resnet18, vgg16, mobilenet-v3]",
)

allow_outside_option = click.option(
    "--allow-outside", is_flag=True, help="Let a manifest name images outside its own folder."
)


results_option = click.option(
    "--out",
    type=LocalPath(file_okay=False),
    help="The folder that heads wrote.  [default: the one folder in results/]",
)

caches_option = click.option(
    "--cache",
    default="features",
    show_default=True,
    type=AnyPath(),
    help="Folder of the caches of all recipes, here or in a store (s3://bucket/features).",
)


thumbnails_option = click.option(
    "--thumbnails/--no-thumbnails",
    default=True,
    show_default=True,
    help="Show the images in report.html; without, no picture leaves this machine with it.",
)


def _model(ctx: click.Context, param: click.Parameter, value: str) -> int | Literal["best"]:
    if value == "best":
        return "best"
    if not value.isdecimal():
        raise click.BadParameter(f"Expected best or a model_id of results. Received: {value!r}.")
    return int(value)


model_option = click.option(
    "--model",
    metavar="ID|best",
    callback=_model,
    default="best",
    show_default=True,
    help="A model_id of results.csv, or best: what cross-validation chose.",
)


def one_recipe_options(command: Command) -> Command:
    """Add the options that name one recipe: a backbone, a hardware type and the rest."""
    return _with(
        command,
        click.option("--backbone", default="resnet18", show_default=True, help="A network."),
        click.option("--hardware", default="cpu", show_default=True, help="cpu, tpu or cuda."),
        recipe_options,
    )


def recipe_options(command: Command) -> Command:
    """Add the options that name a recipe: the same for all commands that use a cache."""
    from gelkit.features.recipe import CPU_KERNELS, PRECISIONS
    from gelkit.images.augmentations import AUGMENTATIONS, DEFAULT_AUGMENTATIONS

    return _with(
        command,
        caches_option,
        click.option(
            "--weights",
            default="pretrained",
            show_default=True,
            help="pretrained (the network's own), random, a torchvision name (IMAGENET1K_V2), the "
            "path of a .pth or .safetensors file, or auto: pretrained if they can be had, else "
            "random for all.",
        ),
        click.option(
            "--weights-seed", default=0, show_default=True, help="Seed of random weights."
        ),
        click.option(
            "--weights-dir",
            type=LocalPath(file_okay=False),
            help="Folder of downloaded weights files; nothing is downloaded then.",
        ),
        click.option(
            "--input-size",
            type=click.IntRange(32, 2048),
            help="Pixels along each side of what the backbone is shown.  [default: what its "
            "weights want, mostly 224]",
        ),
        view_options,
        click.option(
            "--augment",
            "augmentations",
            multiple=True,
            default=DEFAULT_AUGMENTATIONS,
            show_default=True,
            type=click.Choice(tuple(AUGMENTATIONS)),
            help="What makes the views other than the clean one; may be given several times.",
        ),
        click.option(
            "--precision",
            default="float32",
            show_default=True,
            type=click.Choice(tuple(PRECISIONS)),
            help="Of weights and products; bfloat16 is faster on processors made for it.",
        ),
        click.option(
            "--kernel",
            default="torch",
            show_default=True,
            type=click.Choice(tuple(CPU_KERNELS)),
            help="What computes on cpu: doctor measures them; openvino needs the extra 'fast'.",
        ),
        click.option(
            "--emulate-tpu", is_flag=True, help="Run tpu on XLA's CPU client, and say so."
        ),
        allow_outside_option,
    )


def view_options(command: Command) -> Command:
    """Add the options that decide how files are read and what a backbone is shown of them."""
    from gelkit.images.formats import POLARITIES
    from gelkit.images.views import GEOMETRIES, WINDOWS

    return _with(
        command,
        click.option(
            "--geometry",
            default="stretch",
            show_default=True,
            type=click.Choice(tuple(GEOMETRIES)),
            help="How an image becomes a square.",
        ),
        click.option(
            "--window",
            default="percentile",
            show_default=True,
            type=click.Choice(tuple(WINDOWS)),
            help="Which intensities are shown, for images of more than 8 bits.",
        ),
        click.option(
            "--polarity",
            default="keep",
            show_default=True,
            type=click.Choice(tuple(POLARITIES)),
            help="Invert images that are known to have the other background.",
        ),
        click.option(
            "--guess-polarity",
            is_flag=True,
            help="Guess the background of images whose file does not tell it; may be wrong.",
        ),
        click.option(
            "--page", type=click.IntRange(1), help="Which page of files that have several."
        ),
        click.option(
            "--channel", type=click.IntRange(1), help="Which channel of files that have several."
        ),
    )


def limits_options(command: Command) -> Command:
    """Add the options of :class:`gelkit.images.formats.Limits`."""
    from gelkit.images.formats import Limits

    default = Limits()
    return _with(
        command,
        *(
            click.option(
                option,
                name,
                default=getattr(default, name),
                show_default=True,
                type=click.FloatRange(0, min_open=True) if name == "seconds" else click.IntRange(1),
                help=f"An image that {meaning} fails; the others are done.",
            )
            for option, name, meaning in (
                ("--max-pixels", "pixels", "has more pixels"),
                ("--max-bytes", "bytes", "has more bytes"),
                ("--max-pages", "pages", "has more pages"),
                ("--max-path", "path", "has a longer path, in bytes,"),
                ("--decode-seconds", "seconds", "takes longer to decode"),
                ("--decode-memory", "memory", "takes more bytes of memory to decode"),
            )
        ),
    )


def engine_options(command: Command) -> Command:
    """Add the options that say on which machines stage one runs."""
    from gelkit.features.extraction import ENGINES

    return _with(
        command,
        click.option(
            "--engine",
            default="local",
            show_default=True,
            type=click.Choice(tuple(ENGINES)),
            help="What embeds: processes here, or a Ray cluster, whose nodes can all read DATA "
            "under the same path; ray needs the extra 'ray'.",
        ),
        click.option(
            "--address",
            help="Of the Ray cluster: host:port, auto or ray://host:port.  [default: a Ray of its "
            "own, on this machine alone]",
        ),
    )


def training_options(command: Command) -> Command:
    """Add the options of :class:`gelkit.Settings`."""
    return _with(
        command,
        click.option(
            "--folds",
            default=_DEFAULTS.folds,
            show_default=True,
            type=click.IntRange(2),
            help="Folds of the cross-validation.",
        ),
        click.option(
            "--repeats",
            default=_DEFAULTS.repeats,
            show_default=True,
            help="Repeats of the cross-validation.",
        ),
        click.option(
            "--epochs",
            default=_DEFAULTS.epochs,
            show_default=True,
            type=click.IntRange(1),
            help="Passes over the images.",
        ),
        click.option(
            "--batch-size",
            default=_DEFAULTS.batch_size,
            show_default=True,
            type=click.IntRange(1),
            help="Images a step.",
        ),
        click.option(
            "--learning-rate",
            default=_DEFAULTS.learning_rate,
            show_default=True,
            help="Of the optimizer.",
        ),
        click.option("--class-weights", is_flag=True, help="Weigh classes by inverse frequency."),
        click.option(
            "--learning-rates",
            multiple=True,
            type=float,
            help="Choose among these, on an inner split of the training images; may be given "
            "several times.",
        ),
        click.option(
            "--early-stopping",
            default=_DEFAULTS.early_stopping,
            show_default=True,
            type=click.IntRange(0),
            help="Epochs without gain on an inner split after which to stop; 0: never.",
        ),
        click.option(
            "--positive",
            default=_DEFAULTS.positive,
            metavar="CLASS",
            help="Of two classes: precision, recall and F1 are this one's.  [default: means over "
            "classes]",
        ),
        click.option(
            "--near-duplicates/--no-near-duplicates",
            default=_DEFAULTS.near_duplicates,
            show_default=True,
            help="Find images that look alike, and never separate them by a split.",
        ),
        click.option(
            "--source-regex",
            metavar="REGEX",
            help="Finds each image's source (imager, laboratory, date) in its name: its first "
            "group. Each source is held out once.",
        ),
        click.option(
            "--seed", default=0, show_default=True, help="Of the splits and of the training."
        ),
    )


def _with(command: Command, *options: Option) -> Command:
    """Add options to a command; its help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command
