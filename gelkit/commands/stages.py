"""The commands of the two stages and of what they show: features, heads, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import gelkit
from gelkit.commands.console import (
    IMAGES_FAILED,
    bars,
    chosen_limits,
    echo,
    echo_if_any,
    only_results,
    words_for,
)
from gelkit.commands.options import (
    LocalPath,
    allow_outside_option,
    backbones_option,
    caches_option,
    engine_options,
    limits_options,
    recipe_options,
    results_option,
    thumbnails_option,
    training_options,
)
from gelkit.errors import GelkitError, UsageError
from gelkit.features.auto_weights import choose_pairs
from gelkit.features.extraction import Workforce, carry_out, plan_views, standing_by
from gelkit.features.planning import identify
from gelkit.images.shares import Share, parse_share
from gelkit.report.summary import costs, done, failed, skipped
from gelkit.systems import SYSTEM

if TYPE_CHECKING:
    from gelkit.features.cache import Failure


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@backbones_option
@click.option(
    "--hardware",
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="cpu, tpu or cuda; may be given several times.",
)
@recipe_options
@click.option(
    "--views",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Views of each image: the clean one, and augmented ones.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes on cpu; actors with --engine ray.  [default: by cores and memory]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 512),
    help="Views embedded at once, of a TPU by each chip.  [default: by hardware]",
)
@engine_options
@limits_options
@click.option(
    "--shard",
    "share",
    metavar="I/N",
    callback=lambda ctx, param, value: value and parse_share(value),
    help="Only the I-th of N shares of DATA, from 1, for N processes or machines at once.",
)
@click.option("--verify", is_flag=True, help="Read every image, even those that seem unchanged.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if an image fails.")
def features(
    data: tuple[Path, ...],
    backbones: tuple[str, ...],
    hardware: tuple[str, ...],
    cache: Path,
    allow_outside: bool,
    views: int,
    workers: int | None,
    batch_size: int | None,
    engine: str,
    address: str | None,
    share: Share | None,
    verify: bool,
    strict: bool,
    **recipe: Any,
) -> None:
    """Stage one: embed the images of DATA; only what is missing is computed.

    DATA is a folder with a sub-folder for each class, any folder or image, or a CSV manifest with
    the columns path, label, group, source, split, page and channel (all but path may be left out).

    \b
    Examples:
      gelkit features my_gels
      gelkit features my_gels --backbone resnet18 --hardware cpu --hardware tpu
      gelkit features my_gels --views 8
      gelkit features my_gels --shard 3/16
      gelkit features my_gels --engine ray --address auto
    """
    from gelkit.features.hardware import require_hardware

    if share is not None and recipe["weights"] == "auto":
        raise UsageError(
            "Expected --weights pretrained, random or others by name, with --shard. Received: "
            "auto, which each process would choose for itself."
        )
    limits = chosen_limits(recipe)
    workforce = Workforce(workers, batch_size, limits, engine, address)
    catalog = gelkit.read_catalog(*data, allow_outside=allow_outside)
    with bars() as progress:
        identified = identify(
            catalog, cache, limits=limits, verify=verify, share=share, progress=progress
        )
    catalog = identified.catalog
    echo_if_any(skipped(catalog))
    options = gelkit.RecipeOptions(**recipe)
    pairs = choose_pairs(identified, hardware, backbones, cache=cache, options=options)
    plans = [
        (planned, chosen)
        for (backbone, name), chosen in pairs.items()
        for planned in plan_views(
            identified,
            backbone=backbone,
            hardware=name,
            cache=cache,
            options=chosen,
            views=views,
            limits=limits,
        )
    ]
    echo(costs([planned for planned, _ in plans]))
    for planned, _ in plans:
        if planned.tasks and engine == "local":
            require_hardware(planned.recipe.hardware, planned.recipe.kernel)
    failures: dict[tuple[str, str], Failure] = {}
    tables = []
    with standing_by(workforce, [planned for planned, _ in plans]):
        for planned, chosen in plans:
            with bars() as progress:
                its = carry_out(planned, options=chosen, workforce=workforce, progress=progress)
            failures |= {(failure.name, failure.sha256): failure for failure in its}
            tables += [str(planned.cache.failures_file)] if its else []
            echo(done(planned, its))
    echo_if_any(failed(list(failures.values())), err=True)
    if tables:
        echo(f"Tables of what failed: {', '.join(tables)}", err=True)
    if failures and len(failures) == len(catalog) + len(catalog.unreadable):
        raise GelkitError(
            f"Expected at least one image that can be read. Received: {len(failures)} that failed."
        )
    if strict and failures:
        raise IMAGES_FAILED


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@backbones_option
@click.option(
    "--hardware",
    multiple=True,
    help="cpu, tpu or cuda; may be given several times.  [default: cpu; tpu, too, if there is one "
    "or it is cached]",
)
@click.option(
    "--head",
    "heads_",
    multiple=True,
    help="single or multi; may be given several times.  [default: all]",
)
@click.option(
    "--optimizer",
    "optimizers",
    multiple=True,
    help="adam or sgd; may be given several times.  [default: all]",
)
@recipe_options
@click.option(
    "--out",
    type=LocalPath(file_okay=False),
    help="Where results go.  [default: results/<name of DATA>]",
)
@training_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Training processes.  [default: one for each core, as far as memory goes]",
)
def heads(
    data: Path,
    backbones: tuple[str, ...],
    hardware: tuple[str, ...],
    heads_: tuple[str, ...],
    optimizers: tuple[str, ...],
    cache: Path,
    allow_outside: bool,
    out: Path | None,
    source_regex: str | None,
    workers: int | None,
    **given: Any,
) -> None:
    """Stage two: cross-validate and compare all heads on DATA's cached embeddings.

    Then every head is fitted on all images and saved with results.csv, baselines.csv and
    predictions.csv, and what may be said of them is shown. Images that look alike are never
    separated by a split; images that a manifest marks as test take no part. What is there already
    is not trained again.

    \b
    Example:
      gelkit heads my_gels
    """
    from gelkit.heads.assessment import read_assessment
    from gelkit.heads.availability import choose_available
    from gelkit.heads.training import choose_trainers
    from gelkit.report.verdict import describe_results

    names = gelkit.RecipeOptions.__dataclass_fields__
    options = gelkit.RecipeOptions(**{key: given[key] for key in given if key in names})
    settings = {name: value for name, value in given.items() if name not in names}
    catalog = gelkit.read_catalog(data, allow_outside=allow_outside)
    echo_if_any(skipped(catalog))
    folder = out or Path("results", SYSTEM.allowed(catalog.name))
    axes = (backbones, heads_, optimizers)
    chosen, left_out = choose_available(cache, options, hardware, *axes)
    with bars() as progress:
        results = gelkit.compare(
            catalog,
            cache=cache,
            out=folder,
            configurations=chosen,
            options=options,
            settings=gelkit.Settings(**settings),
            source_regex=source_regex,
            workers=workers or choose_trainers(),
            progress=progress,
        )
    echo_if_any(left_out)
    echo(describe_results(results, read_assessment(folder), folder))
    where = words_for(folder, cache)
    echo(
        f"Next:    gelkit evaluate{where} (the report; --test DIR scores held-out images), "
        f"gelkit predict IMAGE{where}"
    )


@click.command()
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    help="Held-out images: a folder with a "
    "sub-folder for each class, or a manifest.  [default: rows marked test]",
)
@results_option
@caches_option
@thumbnails_option
@limits_options
@allow_outside_option
@click.option("--strict", is_flag=True, help="Exit with status 1 if an image fails.")
def evaluate(
    test: Path | None,
    out: Path | None,
    cache: Path,
    thumbnails: bool,
    allow_outside: bool,
    strict: bool,
    **limits: Any,
) -> None:
    """Score the saved heads on a held-out set, fill the test columns, and write the report.

    Without a test set this reports the cross-validated results.

    \b
    Example:
      gelkit evaluate --test more_gels --out results/my_gels
    """
    from gelkit.heads.assessment import read_assessment
    from gelkit.heads.evaluation import find_test_set
    from gelkit.heads.held_out import read_findings
    from gelkit.report.verdict import describe_results

    folder = out or only_results()
    catalog = (
        find_test_set(folder)
        if test is None
        else gelkit.read_catalog(test, allow_outside=allow_outside)
    )
    if catalog is None:
        echo("No test set: give one with --test, or mark rows of the manifest as test.")
        results = gelkit.read_results(folder / "results.csv")
        echo(describe_results(results, read_assessment(folder), folder))
        _write_report(folder, cache, thumbnails)
        return
    echo_if_any(skipped(catalog))
    with bars() as progress:
        results = gelkit.evaluate(
            folder, catalog, cache=cache, limits=chosen_limits(limits), progress=progress
        )
    found = read_findings(folder)
    echo(describe_results(results, read_assessment(folder), folder, found))
    _write_report(folder, cache, thumbnails)
    if strict and results["test_n_images"].min() < len(catalog):
        raise IMAGES_FAILED


@click.command()
@results_option
@caches_option
@thumbnails_option
def report(out: Path | None, cache: Path, thumbnails: bool) -> None:
    """Write report.html, one file that needs no network, and its plots as PNG and SVG.

    \b
    Example:
      gelkit report --out results/my_gels
    """
    _write_report(out or only_results(), cache, thumbnails)


def _write_report(folder: Path, cache: Path, thumbnails: bool) -> None:
    from gelkit.report.page import write_report

    with bars() as progress:
        path = write_report(folder, cache, thumbnails=thumbnails, progress=progress)
    echo(f"Report:  {path}")
