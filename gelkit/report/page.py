"""The page: one HTML file that tells what a comparison found, and loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gelkit
from gelkit.files import write_atomically
from gelkit.heads.rechecks import write_rechecks
from gelkit.heads.results_folder import PLOTS_FOLDER, RECHECK_FILE, REPORT_FILE
from gelkit.progress import Progress, silent
from gelkit.report.contents import Contents, read_contents
from gelkit.report.contributions import describe_difference, list_times
from gelkit.report.gallery import Wall, hang_gallery, list_copies
from gelkit.report.methods import describe_methods, list_references, package_versions
from gelkit.report.numbers import FILTERS, scale_of_fractions
from gelkit.report.ranking import choose_columns, list_axes, rank_configurations
from gelkit.report.tested import describe_test
from gelkit.report.thumbnails import Thumbnails, Uses, draw_thumbnails, explain_gaps
from gelkit.report.verdict import (
    doubt_best,
    find_cautions,
    name_configuration,
    say_answer,
    say_what_was_compared,
)
from gelkit.report.words import WORDS
from gelkit.text import shown

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

    from gelkit.report.plots import Plot


_SHOWN_RECHECKS = 20
_SHOWN_GROUPS = 20
_SHOWN_COPIES = 6

_SECTIONS = {
    "answer": "The answer",
    "recheck": "Images to recheck",
    "warnings": "Take care",
    "configurations": "All configurations",
    "axes": "What each axis contributes",
    "test": "On the test set",
    "curves": "Curves and confusion",
    "calibration": "Calibration",
    "learning": "More images?",
    "time": "Time",
    "gallery": "Images that tell most",
    "map": "Map",
    "copies": "Near-duplicates",
    "words": "Words",
    "methods": "Methods and fingerprints",
}
"""Titles of the sections' links, by id, in the page's order."""


@dataclass(frozen=True)
class _Shown:
    """Which images a page shows."""

    walls: tuple[Wall, ...]
    copies: tuple[tuple[int, ...], ...]
    rechecked: tuple[int, ...]

    def uses(self) -> dict[int, Uses]:
        """Return how often each image's pictures are shown, by position."""
        exhibits = [its for wall in self.walls for its in wall.exhibits]
        pairs = Counter([*self.rechecked, *(its.position for its in exhibits)])
        alone = Counter([near.position for its in exhibits for near in its.neighbors])
        alone.update(i for group in self.copies[:_SHOWN_GROUPS] for i in group[:_SHOWN_COPIES])
        return {i: Uses(pairs[i] + alone[i], pairs[i]) for i in (pairs | alone)}


def write_report(
    out: str | Path,
    cache: str | Path = "features",
    *,
    destination: str | Path | None = None,
    thumbnails: bool = True,
    progress: Progress = silent,
) -> Path:
    """Write what a comparison found as one HTML page; return its path.

    The plots are also written as SVG and PNG into the folder ``plots`` beside it, and the images to
    recheck into recheck.csv. What is not at hand any more is named in the page.

    :param out: the folder that :func:`gelkit.compare` wrote, and :func:`gelkit.evaluate` perhaps.
    :param cache: the folder that holds the caches of all recipes.
    :param destination: of the page; default: ``report.html`` in ``out``.
    :param thumbnails: show images; without, their names alone.
    :raises UsageError: there is no results.csv.
    """
    from gelkit.report.plots import draw_plots, read_figures, save_plots

    folder = Path(out)
    path = folder / REPORT_FILE if destination is None else Path(destination)
    contents = read_contents(folder, Path(cache))
    plots = draw_plots(read_figures(folder, Path(cache)))
    page = render_page(contents, plots, thumbnails=thumbnails, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_plots(plots, path.parent / PLOTS_FOLDER)
    keep_rechecks(contents, path.parent)
    write_atomically(path, page.encode(errors="replace"))
    return path


def keep_rechecks(contents: Contents, folder: Path) -> None:
    """Write recheck.csv, if what to recheck is known."""
    images = contents.images
    if images is not None and contents.rechecks is not None:
        write_rechecks(
            contents.rechecks,
            [its.full_name for its in images.images],
            images.sha256s,
            contents.classes,
            folder / RECHECK_FILE,
        )


def render_page(
    contents: Contents,
    plots: Sequence[Plot],
    *,
    thumbnails: bool = True,
    progress: Progress = silent,
) -> str:
    """Return the page as HTML that holds all it needs.

    Text of any kind is shown as text: names and labels are spelled out and escaped, and the page's
    policy lets no script run but its own.

    :param plots: placed by their names; one that is missing is a gap.
    """
    chosen = _choose_images(contents)
    drawn: dict[int, Thumbnails] = {}
    if thumbnails and contents.images is not None and contents.best is not None:
        recipe = contents.best.recipe
        drawn = draw_thumbnails(contents.images, chosen.uses(), recipe, progress=progress)
    environment = _environment()
    values = {
        **_page_parts(environment),
        **_findings(contents),
        **_tables(contents),
        **_background(contents),
        "plots": {plot.name: plot for plot in plots},
        "images": contents.images,
        "classes": contents.classes,
        "thumbnails": drawn,
        "not_drawn": explain_gaps(drawn.values()),
        "walls": chosen.walls,
        "copies": chosen.copies,
        "embeddings_at_hand": contents.embeddings is not None,
    }
    return environment.get_template("report.html.j2").render(values)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gelkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_spelled,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _spelled(value: object) -> object:
    """Spell out what does not print, in all that is no markup."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return shown(value)
    return value


def _page_parts(environment: Environment) -> dict[str, Any]:
    """Return style, script, and the policy that lets these two work and nothing else."""
    from markupsafe import Markup

    loader = environment.loader
    assert loader is not None
    style, script = (
        loader.get_source(environment, name)[0] for name in ("report.css", "report.js")
    )
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash_source(style),
        "script-src": _hash_source(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return {
        "style": Markup(style),
        "script": Markup(script),
        "policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "version": gelkit.__version__,
    }


def _hash_source(text: str) -> str:
    """Return the source expression of exactly this text (Content Security Policy level 2)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _choose_images(contents: Contents) -> _Shown:
    rechecks = contents.rechecks or ()
    return _Shown(
        walls=hang_gallery(contents),
        copies=() if contents.images is None else list_copies(contents.images.groups),
        rechecked=tuple(its.position for its in rechecks[:_SHOWN_RECHECKS]),
    )


def _findings(contents: Contents) -> dict[str, Any]:
    results, assessment = contents.results, contents.assessment
    test = describe_test(results, contents.best_id)
    return {
        "title": shown(contents.folder.resolve().name) or "results",
        "sections": {key: title for key, title in _SECTIONS.items() if test or key != "test"},
        "compared": say_what_was_compared(results),
        "answer": [] if assessment is None else say_answer(results, assessment),
        "doubts": doubt_best(results, contents.best_id),
        "gaps": contents.gaps,
        "cautions": find_cautions(results, assessment, contents.findings),
        "rechecks": contents.rechecks,
        "recheck_file": RECHECK_FILE,
        "shown_rechecks": _SHOWN_RECHECKS,
        "shown_groups": _SHOWN_GROUPS,
        "shown_copies": _SHOWN_COPIES,
        "best_name": name_configuration(results, contents.best_id),
        "test": test,
    }


def _tables(contents: Contents) -> dict[str, Any]:
    results, assessment = contents.results, contents.assessment
    columns = choose_columns(results)
    scores = int(results.iloc[0]["folds"] * results.iloc[0]["repeats"])
    contrasts = () if assessment is None else assessment.contrasts
    differences = [describe_difference(contrast, scores) for contrast in contrasts]
    return {
        "columns": columns,
        "rows": rank_configurations(results, columns, contents.best_id),
        "axes": list_axes(results),
        "scale": scale_of_fractions(results["accuracy_low"], _chance(contents)),
        "contrasts": differences,
        "times": list(list_times(results)),
    }


def _background(contents: Contents) -> dict[str, Any]:
    methods = describe_methods(contents)
    return {
        "methods": methods,
        "references": list_references(" ".join(methods)),
        "words": WORDS,
        "fingerprints": _fingerprints(contents.results),
    }


def _chance(contents: Contents) -> float | None:
    """Return the accuracy of knowing how frequent the classes are."""
    baselines = contents.baselines
    if baselines is None:
        return None
    found = baselines.loc[baselines["name"] == "majority", "accuracy"]
    return float(found.iloc[0]) if len(found) else None


def _fingerprints(results: pd.DataFrame) -> Mapping[str, str]:
    first = results.iloc[0]
    caches = results.drop_duplicates(["hardware_type", "pretrained_model"])
    kept = {
        "Data set (images and labels)": first["dataset_fingerprint"],
        "Splits": first["splits_fingerprint"],
        **{
            f"Embeddings of {row['pretrained_model']} on {row['hardware_type']}": row[
                "cache_fingerprint"
            ]
            for row in caches.to_dict("records")
        },
        "Test set": first["test_fingerprint"],
        "Seed": str(first["seed"]),
        "Made by gelkit": first["gelkit_version"],
        "Installed when written": ", ".join(
            f"{name} {number}" for name, number in package_versions().items()
        ),
    }
    return {name: value for name, value in kept.items() if value}
