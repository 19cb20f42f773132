"""The libraries: who builds networks, and who knows which there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from gelkit.features.backbones import Backbone
from gelkit.features.facts import Facts, remembered_facts
from gelkit.features.own_networks import build_own, list_own, measure_own
from gelkit.features.timm_models import (
    PREFIX,
    build_with_timm,
    find_in_timm,
    list_timm,
    measure_timm,
)
from gelkit.features.torchvision_models import (
    build_with_torchvision,
    find_in_torchvision,
    list_torchvision,
    measure_torchvision,
)

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Library:
    """Who builds networks; a row of :data:`LIBRARIES`."""

    build: Callable[[Backbone], nn.Module]
    """Build the whole model, initialised as the library does."""
    measure: Callable[[Backbone, int], Facts]
    """Find out what a model says of itself when it is shown pictures of a size."""
    version: Callable[[Backbone], str]
    """What the facts of a network depend on."""


def _own_version(backbone: Backbone) -> str:
    return "" if backbone.own is None else backbone.own.version


LIBRARIES: Mapping[str, Library] = {
    "torchvision": Library(
        build_with_torchvision, measure_torchvision, lambda _: version("torchvision")
    ),
    "timm": Library(build_with_timm, measure_timm, lambda _: version("timm")),
    "own": Library(build_own, measure_own, _own_version),
}
"""The libraries by name."""


def list_names() -> list[str]:
    """Return the names of all networks that can be found here, those of the table left out."""
    return [*list_own(), *list_torchvision(), *list_timm()]


def find(name: str) -> Backbone | None:
    """Return what is known of a network that is not in the table; None if there is none.

    :raises UsageError: it cannot be a backbone.
    :raises GelkitError: it is timm's, which is not installed.
    """
    return find_in_timm(name) if name.startswith(PREFIX) else find_in_torchvision(name)


def build_model(backbone: Backbone) -> nn.Module:
    """Build the library's whole model, initialised as the library does.

    :raises GelkitError: the library is not installed.
    """
    return LIBRARIES[backbone.library].build(backbone)


def resized(backbone: Backbone, input_size: int) -> Backbone:
    """Return a backbone that is shown pictures of another size.

    :param input_size: pixels along each side.
    :raises UsageError: it takes no pictures of that size.
    """
    usual = backbone.preprocessing.input_size
    if input_size == usual:
        return backbone
    library = LIBRARIES[backbone.library]
    key = f"{backbone.name}@{input_size} of {usual}, {backbone.library} {library.version(backbone)}"
    facts = remembered_facts(key, lambda: library.measure(backbone, input_size))
    shown = replace(backbone.preprocessing, input_size=input_size)
    return replace(backbone, **asdict(facts), preprocessing=shown)
