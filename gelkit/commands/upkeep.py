"""The commands that look after caches and the installation: cache, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import gelkit
from gelkit.commands.console import bars, echo, echo_if_any
from gelkit.commands.options import AnyPath, LocalPath, caches_option, one_recipe_options
from gelkit.errors import UsageError
from gelkit.features.inventory import take_inventory
from gelkit.features.merging import merge
from gelkit.features.verification import verify
from gelkit.report.summary import (
    findings,
    inventories,
    merged,
    names_alone,
    networks,
    outcomes,
    speeds,
    verified,
)


@click.group()
def cache() -> None:
    """Look after the caches of embeddings, and take them elsewhere.

    \b
    Examples:
      gelkit cache info
      gelkit cache verify
      gelkit cache merge from_the_cluster
      gelkit cache export my_gels my_gels.npz
    """


@cache.command("info")
@caches_option
def show_caches(cache: Path) -> None:
    """Tell what the caches hold: images, views, failures and bytes, and of which recipe.

    \b
    Example:
      gelkit cache info
    """
    echo(inventories(take_inventory(cache)))


@cache.command("merge")
@click.argument(
    "sources",
    metavar="[FROM]...",
    nargs=-1,
    type=AnyPath(file_okay=False),
)
@caches_option
def merge_caches(sources: tuple[Path, ...], cache: Path) -> None:
    """Add what the folders FROM have cached to --cache, and make one file of many small ones.

    FROM stays as it is. Without FROM only the files of --cache are put together, such as those
    that gelkit features --shard has left.

    \b
    Examples:
      gelkit cache merge
      gelkit cache merge features_1 features_2 --cache features
    """
    with bars() as progress:
        echo_if_any(merged(merge(cache, sources, progress=progress)))
    echo(inventories(take_inventory(cache)))


@cache.command("verify")
@caches_option
@click.option(
    "--repair",
    is_flag=True,
    help="Keep the whole rows of damaged files, set those aside; features then makes the others.",
)
def verify_caches(cache: Path, repair: bool) -> None:
    """Read every row of every cache, and find what is damaged.

    \b
    Examples:
      gelkit cache verify
      gelkit cache verify --repair
    """
    with bars() as progress:
        shards = verify(cache, repair=repair, progress=progress)
    echo(verified(shards))
    if any(shard.error and shard.set_aside is None for shard in shards):
        raise click.ClickException(
            "Expected whole caches. Received damage, listed above. Keep what is whole with: gelkit "
            "cache verify --repair, and compute the rest again with: gelkit features DATA"
        )


@cache.command("export")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("file", type=LocalPath(dir_okay=False))
@one_recipe_options
def export_caches(
    data: tuple[Path, ...],
    file: Path,
    backbone: str,
    hardware: str,
    cache: Path,
    allow_outside: bool,
    **recipe: Any,
) -> None:
    """Write the cached embeddings of DATA into one FILE: .npz, .parquet, .csv or .h5ad.

    With names, labels, groups and sources, and the recipe. Parquet needs the extra 'parquet', h5ad
    the extra 'anndata'.

    \b
    Examples:
      gelkit cache export my_gels my_gels.npz
      gelkit cache export my_gels my_gels.parquet --backbone vgg16
    """
    from gelkit.analyses.cache_export import export_embeddings

    with bars() as progress:
        embeddings = gelkit.load(
            gelkit.read_catalog(*data, allow_outside=allow_outside),
            backbone=backbone,
            hardware=hardware,
            cache=cache,
            options=gelkit.RecipeOptions(**recipe),
            progress=progress,
        )
    export_embeddings(embeddings, file)
    echo(f"Wrote {len(embeddings)} embeddings of {embeddings.values.shape[1]} values to {file}")


@click.command()
@click.option(
    "--weights-dir",
    type=LocalPath(file_okay=False),
    help="Look for weights files here instead of in torch's own folder.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Measure what each kernel and precision gains here; takes about a minute.",
)
def doctor(weights_dir: Path | None, measure: bool) -> None:
    """Tell what is installed, what can be used here, and what to do about what cannot.

    \b
    Example:
      gelkit doctor
    """
    from gelkit.features import diagnosis

    echo(findings("Packages", diagnosis.find_packages()))
    echo(findings("Optional packages", diagnosis.find_optional_packages()))
    echo(findings("Hardware", diagnosis.find_hardware()))
    echo(findings("ImageNet weights", diagnosis.find_pretrained(weights_dir)))
    if measure:
        with bars() as progress:
            measured = diagnosis.measure_kernels(progress=progress)
        echo(speeds(measured))
    echo_if_any(outcomes(diagnosis.find_outcomes()))


@click.command()
@click.argument("words", nargs=-1)
@click.option(
    "--weights-dir",
    type=LocalPath(file_okay=False),
    help="Look for weights files here instead of in the libraries' own folders.",
)
def backbones(words: tuple[str, ...], weights_dir: Path | None) -> None:
    """List the networks that --backbone takes, those in whose name all WORDS occur.

    Those of gelkit's table, your own, torchvision's, and timm's where the extra 'timm' is
    installed; without WORDS, the first two. Says how long an embedding is, how many pixels along
    each side the network is shown, and whether its weights are here. Nothing is downloaded.

    \b
    Examples:
      gelkit backbones
      gelkit backbones dinov2 small
      gelkit backbones convnext_tiny
    """
    from gelkit.features.backbones import BACKBONES
    from gelkit.features.networks import MOST_DESCRIBED, describe_networks, find_networks
    from gelkit.features.own_networks import list_own

    found = find_networks(words)
    first = [*BACKBONES, *list_own()]
    if not found:
        raise UsageError(
            f"Expected words of a network's name. Received: {' '.join(words)!r}, which is in none. "
            "Give fewer words, or install the extra 'timm' for timm's networks."
        )
    if words and len(found) > MOST_DESCRIBED:
        echo(names_alone(found, MOST_DESCRIBED))
        return
    echo(networks(describe_networks(found if words else first, weights_dir)))
    if not words:
        more = len(found) - len(first)
        echo(f"And {more:,} more by name: gelkit backbones WORDS, such as dinov2 or convnext.")
