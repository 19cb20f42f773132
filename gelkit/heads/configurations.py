"""Configurations: hardware x backbone x head x optimizer, numbered."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from gelkit.errors import UnknownNameError
from gelkit.features.backbones import BACKBONES, default_backbones
from gelkit.features.recipe import HARDWARE
from gelkit.heads.architectures import HEADS, OPTIMIZERS

HARDWARE_TYPES = ("cpu", "tpu")
"""The hardware that is compared by default."""

_NUMBERED = tuple(
    product(
        ("cpu", "tpu", "cuda"),
        ("resnet18", "vgg16", "mobilenet-v3"),
        ("single", "multi"),
        ("adam", "sgd"),
    )
)
"""Those whose ids never change, hardware outermost: the 24 from 1 on, cuda's from 25 to 36."""


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
        parts = (self.hardware, self.backbone, self.head, self.optimizer)
        return f"{self.model_id:02d}-{'-'.join(parts)}"


def all_configurations() -> tuple[Configuration, ...]:
    """Return all combinations of the tables' rows: 24, cuda's, from 37 on what was added."""
    everything = product(HARDWARE, BACKBONES, HEADS, OPTIMIZERS)
    added = tuple(combination for combination in everything if combination not in _NUMBERED)
    return tuple(
        Configuration(model_id, *combination)
        for model_id, combination in enumerate((*_NUMBERED, *added), start=1)
    )


def choose_configurations(
    hardware: tuple[str, ...] = HARDWARE_TYPES,
    backbones: tuple[str, ...] = (),
    heads: tuple[str, ...] = (),
    optimizers: tuple[str, ...] = (),
) -> tuple[Configuration, ...]:
    """Return the configurations of some rows of the tables.

    Where none are named: of all rows, but of the backbones without those that have to be named.

    :raises UsageError: a name is in no table.
    """
    axes = {
        "hardware": (hardware, HARDWARE),
        "backbone": (backbones, tuple(BACKBONES)),
        "head": (heads, tuple(HEADS)),
        "optimizer": (optimizers, tuple(OPTIMIZERS)),
    }
    defaults = {"backbone": default_backbones()}
    for axis, (chosen, known) in axes.items():
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise UnknownNameError(axis, unknown[0], known)
    return tuple(
        configuration
        for configuration in all_configurations()
        if all(
            getattr(configuration, axis) in (chosen or defaults.get(axis, known))
            for axis, (chosen, known) in axes.items()
        )
    )
