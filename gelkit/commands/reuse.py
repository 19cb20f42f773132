"""The commands that use what was made: predict, similar, duplicates, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

import gelkit
from gelkit.analyses.abstention import MAX_ERROR
from gelkit.analyses.duplicates import SEARCHED_PAIRS
from gelkit.commands.console import (
    IMAGES_FAILED,
    bars,
    chosen_limits,
    echo,
    echo_if_any,
    only_results,
)
from gelkit.commands.options import (
    LocalPath,
    allow_outside_option,
    caches_option,
    limits_options,
    model_option,
    one_recipe_options,
    results_option,
)
from gelkit.features.extraction import Workforce
from gelkit.images.similarity import MAX_DISTANCE
from gelkit.report.summary import failed, skipped


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_option
@results_option
@caches_option
@click.option(
    "--max-error",
    default=MAX_ERROR,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The error rate to be kept by the predictions that are not 'unsure'.",
)
@click.option(
    "--csv",
    "table",
    type=LocalPath(dir_okay=False),
    help="Write a table with a row for each image.",
)
@limits_options
@allow_outside_option
@click.option("--strict", is_flag=True, help="Exit with status 1 if an image fails.")
def predict(
    images: tuple[Path, ...],
    model: int | Literal["best"],
    out: Path | None,
    cache: Path,
    max_error: float,
    table: Path | None,
    allow_outside: bool,
    strict: bool,
    **limits: Any,
) -> None:
    """Classify new IMAGES (files, folders or manifests) with a saved head.

    Each image gets a class and its probability, or is called unsure, with the training images that
    it is most like. One that is far from all of them is named: no head was made for such.

    \b
    Examples:
      gelkit predict new_gels
      gelkit predict a.png b.tif --model 9 --csv predicted.csv
    """
    from gelkit.analyses.prediction import predict as predict_images
    from gelkit.report.predicted import describe_predictions
    from gelkit.tables import write_frame

    catalog = gelkit.read_catalog(*images, allow_outside=allow_outside)
    echo_if_any(skipped(catalog))
    with bars() as progress:
        predicted = predict_images(
            out or only_results(),
            catalog,
            model=model,
            cache=cache,
            max_error=max_error,
            workforce=Workforce(limits=chosen_limits(limits)),
            progress=progress,
        )
    echo(describe_predictions(predicted))
    if table is not None:
        write_frame(predicted.table(), table)
        echo(f"Table: {table}")
    echo_if_any(failed(predicted.failures), err=True)
    if strict and predicted.failures:
        raise IMAGES_FAILED


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="The images to search: a folder or a manifest.",
)
@one_recipe_options
@click.option(
    "--count", default=5, show_default=True, type=click.IntRange(1), help="Neighbours of each."
)
@click.option(
    "--csv",
    "table",
    type=LocalPath(dir_okay=False),
    help="Write a table with a row for each neighbour.",
)
def similar(
    images: tuple[Path, ...],
    data: Path,
    backbone: str,
    hardware: str,
    cache: Path,
    allow_outside: bool,
    count: int,
    table: Path | None,
    **recipe: Any,
) -> None:
    """Find the images of --data that are most like IMAGES, by the cosine of their embeddings.

    What is not cached yet is embedded. Whole images are compared: a lane that was copied from one
    gel into another is not seen.

    \b
    Example:
      gelkit similar new.png --data my_gels
    """
    from gelkit.analyses.similar import find_similar, write_similar
    from gelkit.report.matches import describe_similar

    options = gelkit.RecipeOptions(**recipe)
    catalogs = (
        gelkit.read_catalog(*images, allow_outside=allow_outside),
        gelkit.read_catalog(data, allow_outside=allow_outside),
    )
    with bars() as progress:
        query, collection = (
            gelkit.extract(
                catalog,
                backbone=backbone,
                hardware=hardware,
                cache=cache,
                options=options,
                progress=progress,
            )
            for catalog in catalogs
        )
        found = find_similar(query, collection, count, progress=progress)
    echo(describe_similar(found))
    if table is not None:
        write_similar(found, table)
        echo(f"Table: {table}")
    echo_if_any(failed([*query.failures, *collection.failures]), err=True)


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@one_recipe_options
@click.option(
    "--csv",
    "table",
    type=LocalPath(dir_okay=False),
    help="Write a table with a row for each pair.",
)
@click.option(
    "--sheet",
    type=LocalPath(dir_okay=False),
    help="Draw each pair over each other, as PNG.",
)
@click.option(
    "--max-distance",
    default=MAX_DISTANCE,
    show_default=True,
    type=click.IntRange(0, 63),
    help="Bits of 63 in which the perceptual hashes of candidates may differ.",
)
@click.option(
    "--search",
    "searched_pairs",
    default=SEARCHED_PAIRS,
    show_default=True,
    type=click.IntRange(0),
    help="Pairs of near embeddings to search for crops: more finds more, and takes longer.",
)
def duplicates(
    data: tuple[Path, ...],
    backbone: str,
    hardware: str,
    cache: Path,
    allow_outside: bool,
    table: Path | None,
    sheet: Path | None,
    max_distance: int,
    searched_pairs: int,
    **recipe: Any,
) -> None:
    """Find the images of DATA that show the same picture: saved again, turned, inverted, cropped.

    Candidates come from perceptual hashes and from embeddings, and are confirmed on the pictures.
    Whole images are compared: a lane that was copied from one gel into another is not seen.

    \b
    Example:
      gelkit duplicates my_gels --csv pairs.csv --sheet pairs.png
    """
    from gelkit.analyses.duplicates import find_duplicates, lay_pair, write_duplicates
    from gelkit.report.matches import describe_duplicates
    from gelkit.report.sheet import draw_pairs

    catalog = gelkit.read_catalog(*data, allow_outside=allow_outside)
    echo_if_any(skipped(catalog))
    with bars() as progress:
        embeddings = gelkit.extract(
            catalog,
            backbone=backbone,
            hardware=hardware,
            cache=cache,
            options=gelkit.RecipeOptions(**recipe),
            progress=progress,
        )
        pairs = find_duplicates(
            embeddings,
            max_distance=max_distance,
            searched_pairs=searched_pairs,
            progress=progress,
        )
    echo(describe_duplicates(pairs, len(embeddings)))
    if table is not None:
        write_duplicates(pairs, table)
        echo(f"Table: {table}")
    if sheet is not None and pairs:
        lay = partial(lay_pair, embeddings=embeddings)
        echo(f"Sheet: {', '.join(str(path) for path in draw_pairs(pairs, lay, sheet))}")
    echo_if_any(failed(embeddings.failures), err=True)


@click.command()
@click.argument("destination", type=LocalPath(file_okay=False))
@model_option
@results_option
def export(destination: Path, model: int | Literal["best"], out: Path | None) -> None:
    """Export a saved head with its backbone as ONNX into the folder DESTINATION.

    The folder holds what a program without gelkit needs: the networks, how an image is prepared,
    the classes, and an example. It is checked against gelkit before it is left. Needs the extra
    'onnx'.

    \b
    Example:
      gelkit export classifier --model best
    """
    from gelkit.analyses.export import README_FILE, export_model

    with bars() as progress:
        exported = export_model(out or only_results(), destination, model=model, progress=progress)
    configuration = exported.head.configuration
    echo(
        f"Exported {configuration.name} to {exported.folder}.\n"
        f"ONNX Runtime agrees with torch and Keras: {exported.agreement}.\n"
        f"How to use it: {exported.folder / README_FILE}"
    )
