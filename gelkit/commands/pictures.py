"""The commands about images alone: samples, images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import gelkit
from gelkit.commands.console import (
    IMAGES_FAILED,
    bars,
    chosen_limits,
    echo,
    echo_if_any,
)
from gelkit.commands.options import LocalPath, allow_outside_option, limits_options, view_options
from gelkit.report.summary import failed, skipped


@click.command()
@click.argument("out", type=LocalPath())
@click.option(
    "--count", default=120, show_default=True, help="Number of images, half of them gels."
)
@click.option("--seed", default=0, show_default=True, help="The same seed draws the same images.")
@click.option("--by-kind", is_flag=True, help="More than two classes: a folder for each kind.")
def samples(out: Path, count: int, seed: int, by_kind: bool) -> None:
    """Draw a labelled set of synthetic gels and look-alikes into the folder OUT.

    The gels have lanes, wells, a ladder, bands, smears and an imager's faults; the others are
    charts, text, micrographs, plates, blots and patterns with the same intensities and files.

    \b
    Example:
      gelkit samples my_gels --count 200
    """
    with bars() as progress:
        paths = gelkit.draw_samples(out, count=count, seed=seed, by_kind=by_kind, progress=progress)
    classes = sorted({path.parent.name for path in paths})
    echo(f"Drew {len(paths)} synthetic images of the classes {', '.join(classes)} in {out}")


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@view_options
@limits_options
@allow_outside_option
@click.option(
    "--sheet",
    type=LocalPath(dir_okay=False),
    help="Draw every image, and beside it what the backbone sees, into this PNG.",
)
@click.option(
    "--csv",
    "table",
    type=LocalPath(dir_okay=False),
    help="Write a table with a row for each image.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: the cores]")
@click.option("--strict", is_flag=True, help="Exit with status 1 if an image fails.")
def images(
    data: tuple[Path, ...],
    allow_outside: bool,
    sheet: Path | None,
    table: Path | None,
    workers: int | None,
    strict: bool,
    **viewing: Any,
) -> None:
    """Show what is in DATA and how it is read, before anything is computed of it.

    Kinds of files, what was done to read them (orientation, inversion, pages, transparency), what a
    person should know of (saturation, strong shrinking), and what cannot be read, with the reason.

    \b
    Examples:
      gelkit images my_gels
      gelkit images my_gels --sheet sheet.png --csv images.csv
    """
    from gelkit.features.surveys import survey
    from gelkit.report.listing import describe_survey, survey_table
    from gelkit.report.sheet import draw_sheets
    from gelkit.tables import write_frame

    catalog = gelkit.read_catalog(*data, allow_outside=allow_outside)
    echo_if_any(skipped(catalog))
    limits = chosen_limits(viewing)
    with bars() as progress:
        found = survey(
            catalog,
            gelkit.RecipeOptions(**viewing),
            limits=limits,
            with_pictures=sheet is not None,
            workers=workers,
            progress=progress,
        )
    echo(describe_survey(catalog, found))
    if table is not None:
        write_frame(survey_table(found), table)
        echo(f"Table: {table}")
    if sheet is not None:
        echo(f"Sheet: {', '.join(str(path) for path in draw_sheets(found.images, sheet))}")
    echo_if_any(failed(found.failures), err=True)
    if strict and found.failures:
        raise IMAGES_FAILED
