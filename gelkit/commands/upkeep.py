"""The commands that look after caches and the installation: cache, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from gelkit.commands.console import bars, echo
from gelkit.features.verification import verify
from gelkit.report.summary import findings, speeds, verified


@click.group()
def cache() -> None:
    """Look after the caches of embeddings.

    \b
    Example:
      gelkit cache verify
    """


@cache.command("verify")
@click.option(
    "--cache",
    "root",
    default="features",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the caches of all recipes.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Keep the whole rows of damaged files, set those aside; features then makes the others.",
)
def verify_caches(root: Path, repair: bool) -> None:
    """Read every row of every cache, and find what is damaged.

    \b
    Examples:
      gelkit cache verify
      gelkit cache verify --repair
    """
    with bars() as progress:
        shards = verify(root, repair=repair, progress=progress)
    echo(verified(shards))
    if any(shard.error and shard.set_aside is None for shard in shards):
        raise click.ClickException(
            "Expected whole caches. Received damage, listed above. Keep what is whole with: gelkit "
            "cache verify --repair, and compute the rest again with: gelkit features DATA"
        )


@click.command()
@click.option(
    "--weights-dir",
    type=click.Path(path_type=Path, file_okay=False),
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
    echo(findings("Hardware", diagnosis.find_hardware()))
    echo(findings("ImageNet weights", diagnosis.find_pretrained(weights_dir)))
    if measure:
        with bars() as progress:
            measured = diagnosis.measure_kernels(progress=progress)
        echo(speeds(measured))
