"""The command line: each command is a library call plus printing."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import gelkit
from gelkit.errors import GelkitError, UsageError
from gelkit.features.extraction import Workforce, carry_out, plan_views
from gelkit.features.planning import choose_weights, identify
from gelkit.features.verification import verify
from gelkit.options import (
    allow_outside_option,
    backbones_option,
    limits_options,
    recipe_options,
    training_options,
    view_options,
)
from gelkit.progress import Progress
from gelkit.report.summary import (
    costs,
    done,
    failed,
    findings,
    skipped,
    speeds,
    verified,
)
from gelkit.text import printable

if TYPE_CHECKING:
    from gelkit.features.cache import Failure
    from gelkit.images.formats import Limits


class _UsedWrongly(click.ClickException):
    exit_code = 2


class _Door(click.Group):
    """Turns the library's errors into messages and exit codes: 2 used wrongly, 1 failed."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _UsedWrongly(printable(str(error))) from error
        except GelkitError as error:
            raise click.ClickException(printable(str(error))) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when its reader has gone
            raise click.ClickException(
                f"Expected the disk to do what was asked. Received: {printable(str(error))}. What "
                "was finished is kept; make room or choose another folder, and run again."
            ) from error
        except KeyboardInterrupt:
            _echo("\nInterrupted. What was finished is kept; run again to go on.", err=True)
            raise


_IMAGES_FAILED = click.ClickException(
    "Expected every image to be read (--strict). Received failures, listed above."
)


class _Warnings(logging.Handler):
    """Shows the library's warnings on stderr, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode():
            message = printable(record.getMessage())
            click.secho(f"Warning: {message}", err=True, fg="yellow")


@click.group(cls=_Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gelkit.__version__, prog_name="gelkit")
def main() -> None:
    """Compare transfer-learning heads on images of gels.

    Stage one (features) passes every image once through frozen pretrained backbones and keeps the
    embeddings. Stage two (heads) trains and compares 24 configurations on them: 2 hardware types x
    3 backbones x 2 heads x 2 optimizers.

    \b
    Example, from nothing:
      gelkit samples my_gels
      gelkit features my_gels --weights random
      gelkit heads my_gels --weights random
      gelkit evaluate
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names need not be text
    logger = logging.getLogger("gelkit")
    if not any(isinstance(handler, _Warnings) for handler in logger.handlers):
        logger.addHandler(_Warnings(logging.WARNING))
        logger.propagate = False


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
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
    with _bars() as progress:
        paths = gelkit.draw_samples(out, count=count, seed=seed, by_kind=by_kind, progress=progress)
    classes = sorted({path.parent.name for path in paths})
    _echo(f"Drew {len(paths)} synthetic images of the classes {', '.join(classes)} in {out}")


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@view_options
@limits_options
@allow_outside_option
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw every image, and beside it what the backbone sees, into this PNG.",
)
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
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
    _echo_if_any(skipped(catalog))
    limits = _limits(viewing)
    with _bars() as progress:
        found = survey(
            catalog,
            gelkit.RecipeOptions(**viewing),
            limits=limits,
            with_pictures=sheet is not None,
            workers=workers,
            progress=progress,
        )
    _echo(describe_survey(catalog, found))
    if table is not None:
        write_frame(survey_table(found), table)
        _echo(f"Table: {table}")
    if sheet is not None:
        _echo(f"Sheet: {', '.join(str(path) for path in draw_sheets(found.images, sheet))}")
    _echo_if_any(failed(found.failures), err=True)
    if strict and found.failures:
        raise _IMAGES_FAILED


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@backbones_option
@click.option(
    "--hardware",
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="cpu, tpu or cuda; one or more.",
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
    help="Processes on cpu.  [default: by cores and memory]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 512),
    help="Views embedded at once.  [default: by hardware]",
)
@limits_options
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
    verify: bool,
    strict: bool,
    **recipe: Any,
) -> None:
    """Stage one: embed the images of DATA; only what is missing is computed.

    DATA is a folder with a sub-folder for each class, any folder or image, or a CSV manifest with
    the columns path, label, group, source and split (all but path may be left out).

    \b
    Examples:
      gelkit features my_gels
      gelkit features my_gels --backbone resnet18 --hardware cpu --hardware tpu
      gelkit features my_gels --views 8
    """
    from gelkit.features.backbones import BACKBONES
    from gelkit.features.hardware import require_hardware

    limits = _limits(recipe)
    catalog = gelkit.read_catalog(*data, allow_outside=allow_outside)
    _echo_if_any(skipped(catalog))
    with _bars() as progress:
        identified = identify(catalog, cache, limits=limits, verify=verify, progress=progress)
    pairs = list(dict.fromkeys((b, h) for h in hardware for b in backbones or tuple(BACKBONES)))
    options = choose_weights(identified, pairs, cache=cache, options=gelkit.RecipeOptions(**recipe))
    plans = [
        planned
        for backbone, name in pairs
        for planned in plan_views(
            identified,
            backbone=backbone,
            hardware=name,
            cache=cache,
            options=options,
            views=views,
            limits=limits,
        )
    ]
    _echo(costs(plans))
    for planned in plans:
        if planned.tasks:
            require_hardware(planned.recipe.hardware, planned.recipe.kernel)
    workforce = Workforce(workers, batch_size, limits)
    failures: dict[tuple[str, str], Failure] = {}
    tables = []
    for planned in plans:
        with _bars() as progress:
            its = carry_out(planned, options=options, workforce=workforce, progress=progress)
        failures |= {(failure.name, failure.sha256): failure for failure in its}
        tables += [str(planned.cache.failures_file)] if its else []
        _echo(done(planned, its))
    _echo_if_any(failed(list(failures.values())), err=True)
    if tables:
        _echo(f"Tables of what failed: {', '.join(tables)}", err=True)
    if len(failures) == len(catalog) + len(catalog.unreadable):
        raise GelkitError(
            f"Expected at least one image that can be read. Received: {len(failures)} that failed."
        )
    if strict and failures:
        raise _IMAGES_FAILED


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@backbones_option
@click.option(
    "--hardware",
    multiple=True,
    default=("cpu", "tpu"),
    show_default=True,
    help="cpu, tpu or cuda; one or more.",
)
@click.option("--head", "heads_", multiple=True, help="single or multi; default: all.")
@click.option("--optimizer", "optimizers", multiple=True, help="adam or sgd; default: all.")
@recipe_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go.  [default: results/<name of DATA>]",
)
@training_options
@click.option(
    "--workers",
    default=os.cpu_count() or 1,
    type=click.IntRange(1),
    help="Training processes.  [default: the number of cores]",
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
    workers: int,
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
    from gelkit.report.verdict import describe_results

    names = gelkit.RecipeOptions.__dataclass_fields__
    recipe = {name: value for name, value in given.items() if name in names}
    settings = {name: value for name, value in given.items() if name not in names}
    catalog = gelkit.read_catalog(data, allow_outside=allow_outside)
    folder = out or Path("results", catalog.name)
    with _bars() as progress:
        results = gelkit.compare(
            catalog,
            cache=cache,
            out=folder,
            configurations=gelkit.choose_configurations(hardware, backbones, heads_, optimizers),
            options=gelkit.RecipeOptions(**recipe),
            settings=gelkit.Settings(**settings),
            source_regex=source_regex,
            workers=workers,
            progress=progress,
        )
    _echo(describe_results(results, read_assessment(folder), folder))


@main.command()
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    help="Held-out images: a folder with a "
    "sub-folder for each class, or a manifest.  [default: rows marked test]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder that heads wrote.  [default: the one folder in results/]",
)
@click.option(
    "--cache",
    default="features",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the caches of all recipes.",
)
@allow_outside_option
@click.option("--strict", is_flag=True, help="Exit with status 1 if an image fails.")
def evaluate(
    test: Path | None, out: Path | None, cache: Path, allow_outside: bool, strict: bool
) -> None:
    """Score the saved heads on a held-out set, and fill the test columns of results.csv.

    Without a test set this shows the cross-validated results.

    \b
    Example:
      gelkit evaluate --test more_gels --out results/my_gels
    """
    from gelkit.heads.assessment import read_assessment
    from gelkit.heads.evaluation import find_test_set
    from gelkit.heads.held_out import read_findings
    from gelkit.report.verdict import describe_results

    folder = out or _only_results()
    catalog = (
        find_test_set(folder)
        if test is None
        else gelkit.read_catalog(test, allow_outside=allow_outside)
    )
    if catalog is None:
        _echo("No test set: give one with --test, or mark rows of the manifest as test.")
        results = gelkit.read_results(folder / "results.csv")
        _echo(describe_results(results, read_assessment(folder), folder))
        return
    _echo_if_any(skipped(catalog))
    with _bars() as progress:
        results = gelkit.evaluate(folder, catalog, cache=cache, progress=progress)
    found = read_findings(folder)
    _echo(describe_results(results, read_assessment(folder), folder, found))
    if strict and results["test_n_images"].min() < len(catalog):
        raise _IMAGES_FAILED


@main.group()
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
    with _bars() as progress:
        shards = verify(root, repair=repair, progress=progress)
    _echo(verified(shards))
    if any(shard.error and shard.set_aside is None for shard in shards):
        raise click.ClickException(
            "Expected whole caches. Received damage, listed above. Keep what is whole with: gelkit "
            "cache verify --repair, and compute the rest again with: gelkit features DATA"
        )


@main.command()
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

    _echo(findings("Packages", diagnosis.find_packages()))
    _echo(findings("Hardware", diagnosis.find_hardware()))
    _echo(findings("ImageNet weights", diagnosis.find_pretrained(weights_dir)))
    if measure:
        with _bars() as progress:
            measured = diagnosis.measure_kernels(progress=progress)
        _echo(speeds(measured))


@contextmanager
def _bars() -> Iterator[Progress]:
    """Show progress as a bar for each thing that is done; silent when not on a terminal."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            _close(bars)
            bars[what] = tqdm(total=total, desc=what, unit="", disable=None, leave=False)
        bars[what].update(done - bars[what].n)

    try:
        yield report
    finally:
        _close(bars)


def _close(bars: dict[str, Any]) -> None:
    for bar in bars.values():
        bar.close()
    bars.clear()


def _limits(given: dict[str, Any]) -> Limits:
    """Take the limits out of the options that were given."""
    from gelkit.images.formats import Limits

    return Limits(**{name: given.pop(name) for name in Limits.__dataclass_fields__})


def _only_results() -> Path:
    found = sorted(path.parent for path in Path("results").glob("*/results.csv"))
    if len(found) != 1:
        raise UsageError(
            f"Expected one folder of results in 'results'. Received: "
            f"{', '.join(map(str, found)) or 'none'}. Name it with --out, or make one with: "
            "gelkit heads DATA"
        )
    return found[0]


def _echo_if_any(text: str, *, err: bool = False) -> None:
    if text:
        _echo(text, err=err)


def _echo(text: str, *, err: bool = False) -> None:
    """Show a text in which names of files and classes cannot command the terminal."""
    click.echo(printable(text), err=err)
