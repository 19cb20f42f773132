"""Summaries: what the terminal says is counted right, kept short, and not better than it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gelkit.features.cache import Cache, Failure
from gelkit.features.planning import Identified, Plan
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.workers import Task
from gelkit.heads.results import make_results
from gelkit.images.catalog import Catalog, CatalogImage
from gelkit.report.summary import answer, costs, failed, skipped


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"{number}.txt" for number in range(count))


SKIPPED = {
    0: "",
    1: "Files that are no images: 1 (0.txt)",
    2: "Files that are no images: 2 (0.txt, 1.txt)",
    10: f"Files that are no images: 10 ({', '.join(_names(10))})",
    11: f"Files that are no images: 11 ({', '.join(_names(10))} and 1 more)",
    500: f"Files that are no images: 500 ({', '.join(_names(10))} and 490 more)",
}


@pytest.mark.parametrize("count", SKIPPED)
def test_files_that_are_no_images_are_counted_and_some_named(count: int) -> None:
    """Files would vanish without a word, or thousands of names fill the terminal."""
    assert skipped(Catalog("gels", (), _names(count))) == SKIPPED[count]


def _failures(count: int) -> list[Failure]:
    return [Failure(f"{number}.png", "", "broken", retry=False) for number in range(count)]


def test_failures_are_counted_and_named_with_their_reason() -> None:
    """A user would not know which images are missing, and why."""
    assert failed([]) == ""
    assert failed(_failures(2)).splitlines() == [
        "Images that failed, the others are done: 2",
        "  0.png: broken",
        "  1.png: broken",
    ]


@pytest.mark.parametrize(("count", "last"), [(10, "  9.png: broken"), (17, "  and 7 more")])
def test_a_long_list_of_failures_is_cut(count: int, last: str) -> None:
    """What matters would scroll away, or the eleventh image be dropped silently."""
    lines = failed(_failures(count)).splitlines()
    assert lines[0].endswith(str(count))
    assert lines[-1] == last
    assert sum("broken" in line for line in lines) == 10


def _plan(images: int, tasks: int, backbone: str = "resnet18", hardware: str = "cpu") -> Plan:
    catalog = Catalog("gels", (CatalogImage(Path("0.png"), "0.png"),) * images)
    recipe = make_recipe(backbone, hardware, RecipeOptions(weights="random", emulate_tpu=True))
    return Plan(
        identified=Identified(catalog, sha256s=("0",) * images, failures=()),
        cache=Cache(Path("features"), recipe),
        tasks=(Task(Path("0.png"), "0.png", "0"),) * tasks,
        failures=(),
    )


# 3.628 GFLOP at 100 GFLOP/s and 8 ms of decoding: 0.0443 s an image, 5 s more; 2048 + 300 bytes
COSTS = {
    "all known": (7, 0, "7 images, all known"),
    "one": (7, 1, "7 images, 1 to embed, very roughly 5 s and 0.0 MB"),
    "seconds": (900, 900, "900 images, 900 to embed, very roughly 45 s and 2.1 MB"),
    "minutes": (4000, 4000, "4000 images, 4000 to embed, very roughly 3 min and 9.4 MB"),
    "hours": (10**6, 10**6, "1000000 images, 1000000 to embed, very roughly 12.3 h and 2348.0 MB"),
}


@pytest.mark.parametrize("case", COSTS)
def test_costs_say_what_is_to_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would start hours of work in the belief that it is minutes."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    images, tasks, expected = COSTS[case]
    assert costs([_plan(images, tasks)]) == f"resnet18 on cpu, weights random: {expected}"


def test_each_plan_has_a_line() -> None:
    """The costs of one backbone would be shown as those of all."""
    lines = costs([_plan(3, 0), _plan(3, 3, "vgg16", "tpu")]).splitlines()
    assert lines[0] == "resnet18 on cpu, weights random: 3 images, all known"
    assert lines[1].startswith("vgg16 on tpu-emulated, weights random: 3 images, 3 to embed")
    assert len(lines) == 2


def _results(count: int = 8, **columns: Any) -> pd.DataFrame:
    """Make result rows whose balanced accuracy rises with the id."""
    row: dict[str, Any] = {
        "hardware_type": "cpu",
        "pretrained_model": "resnet18",
        "classifier_head": "single",
        "opt_alg": "adam",
        "accuracy": 0.5,
        "roc_auc": 0.5,
        "n_images": 92,
        "n_groups": 73,
        "classes": ["gel", "001"],
        "weights": "ResNet18_Weights.IMAGENET1K_V1",
        "device": "cpu (x86)",
        "folds": 5,
        "repeats": 4,
    }
    return make_results(
        [
            row | {"model_id": number, "balanced_accuracy": number / 100} | columns
            for number in range(1, count + 1)
        ]
    )


def _shown_ids(text: str) -> list[int]:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["id", "hardware"])
    rows = [line.split() for line in lines[start + 1 :] if " resnet18 " in line]
    return [int(words[0]) for words in rows]


def test_the_answer_says_what_was_compared_and_where_it_is() -> None:
    """A user would not know what the figures rest on, or where to find the rest."""
    lines = answer(_results(), Path("results/gels")).splitlines()
    assert lines[0] == (
        "8 configurations, 92 images in 73 groups, classes gel, 001; 4 x 5-fold cross-validation."
    )
    assert lines[1] == "The 5 with the highest balanced accuracy:"
    assert lines[-2:] == ["Results: results/gels/results.csv", "Heads:   results/gels/heads"]
    assert len(lines) == 2 + 1 + 5 + 2


def test_the_best_rows_are_shown_the_best_first() -> None:
    """The highest figure would not be the first that one sees."""
    assert _shown_ids(answer(_results(), Path("out"))) == [8, 7, 6, 5, 4]
    few = answer(_results(count=2), Path("out"))
    assert _shown_ids(few) == [2, 1]
    assert "The 2 with the highest" in few


def test_ties_are_ordered_by_area_and_then_by_id() -> None:
    """The order would differ from run to run."""
    results = _results(count=4, balanced_accuracy=0.9)
    results["roc_auc"] = [0.7, 0.9, 0.7, 0.8]
    assert _shown_ids(answer(results, Path("out"))) == [2, 4, 1, 3]


def test_figures_have_three_digits() -> None:
    """Differences that mean nothing would be shown to six digits."""
    text = answer(_results(count=1, balanced_accuracy=0.123456, accuracy=2 / 3), Path("out"))
    assert "0.667" in text
    assert "0.123" in text
    assert "0.1234" not in text


def test_test_columns_are_shown_only_after_an_evaluation() -> None:
    """Empty columns would look like figures that failed, or figures not be shown."""
    assert "test accuracy" not in answer(_results(), Path("out"))
    text = answer(_results(test_accuracy=0.625, test_roc_auc=0.5), Path("out"))
    assert "test accuracy" in text
    assert "0.625" in text


RANDOM = "RANDOM weights: these figures say nothing of transfer learning."
EMULATED = "No TPU was used: the rows of tpu ran on XLA:CPU (emulated)."
OVERLAP = "3 test images are training images: the test figures flatter."

DOUBTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({}, []),
    "random weights": ({"weights": "random"}, [RANDOM]),
    "emulated": ({"device": "XLA:CPU (emulated)"}, [EMULATED]),
    "overlap": ({"test_overlap": 3}, [OVERLAP]),
    "no overlap": ({"test_overlap": 0}, []),
    "all": (
        {"weights": "random", "device": "XLA:CPU (emulated)", "test_overlap": 3},
        [RANDOM, EMULATED, OVERLAP],
    ),
}


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("rows", ["all", "the last"])
def test_doubts_are_told(doubt: str, rows: str) -> None:
    """Figures that mean little would be taken for those of the study."""
    columns, expected = DOUBTS[doubt]
    doubtful = _results(**columns)
    if rows == "the last":
        kept = [_results().iloc[:-1], doubtful.iloc[-1:]]
        doubtful = pd.concat(kept, ignore_index=True)
    text = answer(doubtful, Path("out"))
    told = [line for line in text.splitlines() if line in {RANDOM, EMULATED, OVERLAP}]
    assert told == expected
