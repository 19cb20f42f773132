"""Summaries: what the terminal says is counted right, kept short, and not better than it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gelkit.features.cache import Cache, Failure
from gelkit.features.diagnosis import Speed
from gelkit.features.planning import Identified, Plan
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.workers import Task
from gelkit.images.catalog import Catalog, CatalogImage, Leftover
from gelkit.report.summary import costs, failed, skipped, speeds


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


def test_what_is_no_data_is_named_with_what_it_is() -> None:
    """A folder that somebody meant as a class would be left out without a word."""
    left = [Leftover(f"{number}.png", "a picture that gelkit drew") for number in range(12)]
    catalog = Catalog("gels", (), ("a.txt",), leftovers=(*left, Leftover(".Trash", "hidden")))
    shown = skipped(catalog).splitlines()
    assert shown[:2] == ["Files that are no images: 1 (a.txt)", "Not data, and left out: 13"]
    assert shown[2].startswith("  a picture that gelkit drew: 0.png, 1.png")
    assert shown[2].endswith(" and 2 more")
    assert shown[3:] == ["  hidden: .Trash"]


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


SPEEDS = (("torch", "float32", 10.0), ("torch", "bfloat16", 20.0), ("winograd", "float32", 30.0))
FASTEST: dict[str, tuple[tuple[tuple[str, str, float], ...], str]] = {
    "a kernel": (SPEEDS, "with --kernel winograd."),
    "a precision": (SPEEDS[:2], "with --precision bfloat16."),
    "neither": (SPEEDS[:1], "with the defaults."),
    "both": (
        (*SPEEDS, ("openvino", "bfloat16", 40.0)),
        "with --kernel openvino --precision bfloat16.",
    ),
}


@pytest.mark.parametrize("case", FASTEST)
def test_the_fastest_is_named_as_it_is_asked_for(case: str) -> None:
    """A user would have to find the fastest row, and guess what to type."""
    measured, said = FASTEST[case]
    text = speeds([Speed("resnet18", *each, cosine=1.0) for each in measured])
    assert f"Fastest here: resnet18 {said}" in text
    both = [Speed(b, *each, cosine=1.0) for b in ("vgg16", "resnet18") for each in measured]
    assert speeds(both).splitlines()[-1].startswith("Fastest here: vgg16 with ")


def test_each_plan_has_a_line() -> None:
    """The costs of one backbone would be shown as those of all."""
    lines = costs([_plan(3, 0), _plan(3, 3, "vgg16", "tpu")]).splitlines()
    assert lines[0] == "resnet18 on cpu, weights random: 3 images, all known"
    assert lines[1].startswith("vgg16 on tpu-emulated, weights random: 3 images, 3 to embed")
    assert len(lines) == 2
