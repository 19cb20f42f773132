"""Configurations: hardware x backbone x head x optimizer, numbered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count, product

from gelkit.errors import UnknownNameError
from gelkit.features.backbones import BACKBONES, default_backbones, get_backbone
from gelkit.features.recipe import HARDWARE
from gelkit.heads.architectures import HEADS, OPTIMIZERS

HARDWARE_TYPES = ("cpu", "tpu")
"""The hardware that is compared by default."""

_FIXED_IDS = {
    combination: model_id
    for model_id, combination in enumerate(
        product(
            ("cpu", "tpu", "cuda"),
            ("resnet18", "vgg16", "mobilenet-v3"),
            ("single", "multi"),
            ("adam", "sgd"),
        ),
        start=1,
    )
}
"""Ids that never change, hardware outermost: those of the 24, then cuda's from 25 to 36."""


@dataclass(frozen=True)
class Configuration:
    """One of the combinations that are compared; a row of the results."""

    model_id: int
    hardware: str
    backbone: str
    head: str
    optimizer: str

    @property
    def name(self) -> str:
        """What the configuration's files are called, such as ``05-cpu-vgg16-single-adam``."""
        return f"{self.model_id:02d}-{'-'.join(self.combination)}".replace("/", "-")

    @property
    def combination(self) -> tuple[str, str, str, str]:
        """What the configuration consists of, whatever its number."""
        return (self.hardware, self.backbone, self.head, self.optimizer)


def choose_configurations(
    hardware: tuple[str, ...] = HARDWARE_TYPES,
    backbones: tuple[str, ...] = (),
    heads: tuple[str, ...] = (),
    optimizers: tuple[str, ...] = (),
) -> tuple[Configuration, ...]:
    """Return the configurations of some rows of the tables, in the tables' order.

    Where none are named: of all rows, but of the backbones without those that have to be named.
    Ids beyond 36 are those of an empty results folder, see :func:`number_configurations`.

    :raises UsageError: a name is in no table.
    """
    axes = (
        _chosen("hardware", hardware or HARDWARE, HARDWARE),
        _chosen_backbones(backbones or default_backbones()),
        _chosen("head", heads or HEADS, HEADS),
        _chosen("optimizer", optimizers or OPTIMIZERS, OPTIMIZERS),
    )
    return number_configurations(Configuration(0, *parts) for parts in product(*axes))


def number_configurations(
    configurations: Iterable[Configuration], known: Iterable[Configuration] = ()
) -> tuple[Configuration, ...]:
    """Give configurations their ids: the 24 and cuda's have them, others the next free ones.

    :param known: those that a results folder has already: there, they keep their ids.
    """
    taken = {its.combination: its.model_id for its in known}
    ids = taken | _FIXED_IDS
    free = (model_id for model_id in count(len(_FIXED_IDS) + 1) if model_id not in taken.values())
    return tuple(
        replace(its, model_id=ids.get(its.combination) or next(free)) for its in configurations
    )


def is_known(configuration: Configuration) -> bool:
    """Whether all parts of a configuration are in the tables, or are networks by name."""
    try:
        get_backbone(configuration.backbone)
    except UnknownNameError:
        return False
    return (
        configuration.hardware in HARDWARE
        and configuration.head in HEADS
        and configuration.optimizer in OPTIMIZERS
    )


def _chosen(axis: str, names: Iterable[str], table: Iterable[str]) -> list[str]:
    """Return names of a table in its order.

    :raises UsageError: one is not in it.
    """
    wanted, known = list(names), list(table)
    for name in wanted:
        if name not in known:
            raise UnknownNameError(axis, name, known)
    return [name for name in known if name in wanted]


def _chosen_backbones(names: Iterable[str]) -> list[str]:
    """Return backbones: the table's in its order, then others as they were named."""
    wanted = [get_backbone(name).name for name in names]
    in_table = [name for name in BACKBONES if name in wanted]
    return list(dict.fromkeys([*in_table, *wanted]))
