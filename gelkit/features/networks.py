"""The networks that there are: what ``gelkit backbones`` lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gelkit.errors import GelkitError
from gelkit.features.backbones import BACKBONES, Backbone, get_backbone
from gelkit.features.libraries import list_names
from gelkit.features.weights import describe_availability

MOST_DESCRIBED = 30
"""Beyond, networks are named alone: to describe one it has to be built, which takes a moment."""


@dataclass(frozen=True)
class Network:
    """A network that was described."""

    name: str
    width: int
    input_size: int
    parameters: int
    weights: str
    """Whether its weights are here, come from a package, or would be downloaded."""


def find_networks(words: Sequence[str]) -> list[str]:
    """Return the names of all networks in whose name each word occurs, those of the table first.

    :param words: in any case and order; none: all networks.
    """
    wanted = [word.casefold() for word in words]
    names = dict.fromkeys([*BACKBONES, *list_names()])
    return [name for name in names if all(word in name.casefold() for word in wanted)]


def describe_networks(names: Sequence[str], weights_dir: Path | None = None) -> list[Network]:
    """Describe networks; what cannot be a backbone is left out.

    :param weights_dir: where to look for weights files, instead of in the libraries' own folders.
    """
    rows = (_row(name) for name in names)
    return [_described(row, weights_dir) for row in rows if row is not None]


def _row(name: str) -> Backbone | None:
    try:
        return get_backbone(name)
    except GelkitError:
        return None


def _described(row: Backbone, weights_dir: Path | None) -> Network:
    return Network(
        name=row.name,
        width=row.width,
        input_size=row.preprocessing.input_size,
        parameters=row.parameters,
        weights=describe_availability(row, weights_dir),
    )
