"""Configurations: ids stay whatever is added to the tables, and rows are chosen by name."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace

import pytest

from gelkit.errors import UsageError
from gelkit.features.backbones import BACKBONES
from gelkit.heads.architectures import HEADS, OPTIMIZERS, sgd, single
from gelkit.heads.configurations import (
    Configuration,
    choose_configurations,
    number_configurations,
)

AXES = (
    ("cpu", "tpu"),
    ("resnet18", "vgg16", "mobilenet-v3"),
    ("single", "multi"),
    ("adam", "sgd"),
)

BY_HAND = {
    1: "01-cpu-resnet18-single-adam",
    2: "02-cpu-resnet18-single-sgd",
    3: "03-cpu-resnet18-multi-adam",
    5: "05-cpu-vgg16-single-adam",
    12: "12-cpu-mobilenet-v3-multi-sgd",
    13: "13-tpu-resnet18-single-adam",
    24: "24-tpu-mobilenet-v3-multi-sgd",
    25: "25-cuda-resnet18-single-adam",
    36: "36-cuda-mobilenet-v3-multi-sgd",
}


def test_ids_count_hardware_outermost_then_backbone_head_and_optimizer() -> None:
    """Somebody's row 5 would not be the study's row 5."""
    configurations = choose_configurations()
    assert [configuration.model_id for configuration in configurations] == list(range(1, 25))
    for configuration in configurations:
        names = (configuration.hardware, configuration.backbone)
        names += (configuration.head, configuration.optimizer)
        number = 0
        for axis, name in zip(AXES, names, strict=True):
            number = number * len(axis) + axis.index(name)
        assert configuration.model_id == number + 1


@pytest.mark.parametrize("model_id", BY_HAND)
def test_files_are_named_by_id_and_parts(model_id: int) -> None:
    """Files of saved heads would not be found again."""
    everything = choose_configurations(hardware=())
    assert {its.model_id: its.name for its in everything}[model_id] == BY_HAND[model_id]


ADDED: dict[str, tuple[MutableMapping[str, object], object, str, int]] = {
    "backbone": (BACKBONES, replace(BACKBONES["resnet18"], name="new"), "backbone", 2 * 2 * 2),
    "head": (HEADS, single, "head", 2 * 3 * 2),
    "optimizer": (OPTIMIZERS, sgd, "optimizer", 2 * 3 * 2),
}


@pytest.mark.parametrize("row", ADDED)
def test_an_added_row_gets_ids_from_37_on(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying a head of one's own would renumber the 24 or cuda's, or never run."""
    before = choose_configurations()
    table, value, axis, count = ADDED[row]
    monkeypatch.setitem(table, "new", value)
    everything = choose_configurations()
    assert tuple(its for its in everything if its.model_id <= 24) == before
    added = [its for its in everything if its.model_id > 24]
    assert [its.model_id for its in added] == list(range(37, 37 + count))
    assert {getattr(its, axis) for its in added} == {"new"}


def test_a_results_folder_keeps_the_ids_that_it_has_given() -> None:
    """Row 37 of one run would be another network in the next, and its files overwritten."""
    first = choose_configurations(("cpu",), ("efficientnet-lite0",), ("single",))
    assert [its.model_id for its in first] == [37, 38]
    known = [replace(its, model_id=its.model_id + 3) for its in first]
    again = number_configurations(
        choose_configurations(("cpu",), ("resnet18", "efficientnet-lite0"), (), ("adam",)), known
    )
    ids = {its.combination[1:]: its.model_id for its in again}
    assert ids == {
        ("resnet18", "single", "adam"): 1,
        ("resnet18", "multi", "adam"): 3,
        ("efficientnet-lite0", "single", "adam"): 40,
        ("efficientnet-lite0", "multi", "adam"): 37,
    }


def test_a_name_with_a_slash_makes_no_folder() -> None:
    """The files of a network of timm could not be written."""
    assert Configuration(40, "cpu", "timm/vit_tiny", "single", "adam").name == (
        "40-cpu-timm-vit_tiny-single-adam"
    )


def test_a_removed_row_leaves_the_ids_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doing without one backbone would renumber the rest."""
    rest = {name: row for name, row in BACKBONES.items() if name != "vgg16"}
    monkeypatch.setattr("gelkit.features.backbones.BACKBONES", rest)
    monkeypatch.setattr("gelkit.heads.configurations.BACKBONES", rest)
    ids = [configuration.model_id for configuration in choose_configurations()]
    assert ids == [1, 2, 3, 4, *range(9, 17), *range(21, 25)]


CHOICES = {
    "cpu": ({"hardware": ("cpu",)}, list(range(1, 13))),
    "one backbone": ({"backbones": ("vgg16",)}, [5, 6, 7, 8, 17, 18, 19, 20]),
    "head and optimizer": ({"heads": ("multi",), "optimizers": ("sgd",)}, [4, 8, 12, 16, 20, 24]),
    "asked for in another order": (
        {
            "hardware": ("tpu", "cpu"),
            "backbones": ("mobilenet-v3", "resnet18"),
            "heads": ("multi",),
        },
        [3, 4, 11, 12, 15, 16, 23, 24],
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_rows_are_chosen_by_name(choice: str) -> None:
    """A user would train others than those asked for."""
    names, ids = CHOICES[choice]
    chosen = choose_configurations(**names)
    assert [configuration.model_id for configuration in chosen] == ids


def test_cuda_is_compared_only_when_asked_for() -> None:
    """Machines without CUDA would be told of missing embeddings in every run."""
    chosen = choose_configurations(hardware=("cuda",), backbones=("resnet18",))
    assert {configuration.hardware for configuration in chosen} == {"cuda"}
    assert [configuration.model_id for configuration in chosen] == [25, 26, 27, 28]


UNKNOWN = {
    "hardware": ({"hardware": ("gpu",)}, "Expected a hardware: cpu, tpu, cuda. Received: 'gpu'"),
    "emulation": ({"hardware": ("tpu-emulated",)}, "cpu, tpu, cuda. Received: 'tpu-emulated'"),
    "backbone": (
        {"backbones": ("resnet18", "resnet19")},
        "(gelkit backbones lists them). Received: 'resnet19'. Did you mean resnet18?",
    ),
    "head": (
        {"heads": ("Single",)},
        "Expected a head: single, multi. Received: 'Single'. Did you mean single?",
    ),
    "optimizer": ({"optimizers": ("",)}, "Expected an optimizer: adam, sgd. Received: ''"),
    "a slip": ({"optimizers": ("Adams",)}, "'Adams'. Did you mean adam?"),
    "a digit": ({"backbones": ("resnet81",)}, "'resnet81'. Did you mean resnet18?"),
    "another spelling": ({"backbones": ("MobileNetV3",)}, "Did you mean mobilenet-v3?"),
    "two in one": (
        {"backbones": ("resnet18, vgg16",)},
        "name each by itself: --backbone resnet18 --backbone vgg16.",
    ),
}


@pytest.mark.parametrize("axis", UNKNOWN)
def test_unknown_names_are_refused_and_the_known_ones_named(axis: str) -> None:
    """A typing error would silently train nothing."""
    names, message = UNKNOWN[axis]
    with pytest.raises(UsageError) as error:
        choose_configurations(**names)
    assert message in str(error.value)
    assert ("Did you mean" in str(error.value)) == ("Did you mean" in message)
