"""Agreement: no kernel embeds an image on a machine before it has agreed there with plain torch.

A kernel that is right on one processor can be silently wrong on another. So each embeds a small
fixed batch with the very network first. What it gives is compared with plain torch in float64, and
may differ from that by so many times as plain torch itself differs in the kernel's precision:
that measures how much the network amplifies rounding, whatever the processor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gelkit.features.devices import Device, DeviceError, embedded, rounded
from gelkit.features.hardware import describe_processor
from gelkit.features.weights import random_scheme
from gelkit.images.views import VIEW_SIZE
from gelkit.notes import add_note, read_notes

if TYPE_CHECKING:
    from gelkit.features.frozen import FrozenBackbone

FACTORS = {"float32": 16.0, "bfloat16": 4.0}
"""How many times plain torch's own error a kernel may differ, by precision.

Of the kernels here none was above 3 in float32 and 1.2 in bfloat16; a channel with the wrong sign
is 100,000 times in float32 and, where the network is well conditioned, 10 times and more in
bfloat16.
"""

UNIT_ROUNDOFFS = {"float32": 2.0**-24, "bfloat16": 2.0**-9}
"""The largest relative error of one rounding, by precision; no network errs less."""

MOST_PLAIN_ERROR = 1e-3
"""Of the largest value: where plain torch in float32 is further off, nothing can be compared."""

_NOTES = "agreement"
_TRIED_IMAGES = 4
_SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "CPU_NUM_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "XLA_FLAGS",
)
"""Environment variables that choose among a kernel's programs."""


@dataclass(frozen=True)
class Trial:
    """A kernel with a network: what is tried."""

    backbone: str
    weights: str
    """The SHA-256 of the weights file, or what random weights are made from."""
    hardware: str
    kernel: str
    precision: str
    input_size: int = VIEW_SIZE

    @property
    def is_plain(self) -> bool:
        """Whether this is plain torch, which the others are compared with."""
        return (self.hardware, self.kernel, self.precision) == ("cpu", "torch", "float32")


@dataclass(frozen=True)
class Place:
    """Where a kernel is tried: what else may decide whether it computes rightly."""

    device: str
    processor: str
    batch_size: int
    threads: int
    versions: str
    settings: str
    """The environment variables that are set and choose among a kernel's programs."""


@dataclass(frozen=True)
class Agreement:
    """How far a kernel is from plain torch in float64, as shares of the largest value."""

    difference: float
    plain: float
    """The same of plain torch in the kernel's precision."""
    allowed: float
    """The largest difference that is rounding; beyond it, the kernel is wrong."""

    @property
    def agrees(self) -> bool:
        """Whether the kernel may be used."""
        return self.difference <= self.allowed


@dataclass(frozen=True)
class Outcome:
    """What was tried, where, and what came of it."""

    trial: Trial
    place: Place
    agreement: Agreement


def require_agreement(device: Device, plain: PlainTorch, trial: Trial) -> Agreement | None:
    """Compare a prepared device with plain torch, unless that was done on this machine before.

    :param plain: of the model that the device was prepared with.
    :returns: how far it is from plain torch; None for plain torch itself.
    :raises DeviceError: the device gives other embeddings than plain torch.
    """
    if trial.is_plain:
        return None
    place = _place(device)
    known = [
        outcome.agreement
        for outcome in read_outcomes()
        if (outcome.trial, outcome.place) == (trial, place) and outcome.agreement.agrees
    ]
    if known:  # what was refused gets another chance
        return known[0]
    found = compare(device, plain, trial.precision)
    _remember(Outcome(trial, place, found))
    if not found.agrees:
        raise DeviceError(
            f"The kernel {trial.kernel!r} ({trial.hardware}, {trial.precision}) is wrong on this "
            f"machine and was not used: its embeddings of {trial.backbone} differ from plain "
            f"torch's by {found.difference:.1e} of the largest value, where rounding explains "
            f"{found.allowed:.1e}. {_remedy(trial)}"
        )
    return found


def describe_random(seed: int, library: str) -> str:
    """Say what random weights are made from, where others have a file's SHA-256."""
    return f"random, seed {seed}, {random_scheme(library)}"


def read_outcomes() -> Iterator[Outcome]:
    """Yield what is remembered of all kernels that were tried for this user."""
    for key, value in read_notes(_NOTES).items():
        with suppress(TypeError, ValueError):  # a note of another version of gelkit
            trial, place = json.loads(key)
            yield Outcome(Trial(**trial), Place(**place), Agreement(**value))


def _remember(outcome: Outcome) -> None:
    key = json.dumps([asdict(outcome.trial), asdict(outcome.place)], sort_keys=True)
    add_note(_NOTES, key, asdict(outcome.agreement))


def _place(device: Device) -> Place:
    import torch

    return Place(
        device=device.name,
        processor=describe_processor(),
        batch_size=device.batch_size,
        threads=torch.get_num_threads(),
        versions=", ".join(f"{name} {version}" for name, version in device.versions().items()),
        settings=" ".join(f"{n}={os.environ[n]}" for n in _SETTINGS if n in os.environ),
    )


class PlainTorch:
    """What plain torch gives of a small fixed batch: the network as it is, eagerly, on the CPU.

    :param model: a frozen one.
    """

    def __init__(self, model: FrozenBackbone) -> None:
        self._model = model
        self._errors: dict[str, float] = {}

    @cached_property
    def views(self) -> npt.NDArray[np.uint8]:
        """The batch (views x height x width)."""
        return draw_views(_TRIED_IMAGES, self._model.input_size)

    def distance(self, embeddings: npt.NDArray[Any]) -> float:
        """Return the largest difference from the truth, as a share of the largest value.

        :param embeddings: of the first views, or of all.
        """
        most = np.abs(embeddings - self._truth[: len(embeddings)]).max()
        share = float(most / np.abs(self._truth).max())
        return share if np.isfinite(share) else float("inf")

    def error(self, precision: str) -> float:
        """Return the distance of plain torch itself in a precision."""
        if precision not in self._errors:
            self._errors[precision] = self.distance(self._embed(precision))
        return self._errors[precision]

    @cached_property
    def _truth(self) -> npt.NDArray[np.float64]:
        return self._embed("float64")

    def _embed(self, precision: str) -> npt.NDArray[np.float64]:
        import torch

        with torch.inference_mode():
            model, views = rounded(self._model, precision), torch.from_numpy(self.views)
            found: npt.NDArray[np.float64] = embedded(model, views, precision).double().numpy()
        return found


def compare(device: Device, plain: PlainTorch, precision: str) -> Agreement:
    """Compare what a prepared device gives of a small fixed batch with plain torch.

    :param precision: what the device computes in.
    :raises DeviceError: plain torch itself is far off in float32.
    """
    usual = plain.error("float32")
    if not usual <= MOST_PLAIN_ERROR:
        raise DeviceError(
            f"{device.name} cannot be compared with plain torch, whose own embeddings in float32 "
            f"and float64 differ by {usual:.1e} of the largest value (at most "
            f"{MOST_PLAIN_ERROR:.0e} is usual). Either this network amplifies rounding, or torch "
            "is wrong on this machine. Use --hardware cpu without --kernel and --precision, and "
            "compare with another machine."
        )
    error = plain.error(precision)
    difference = plain.distance(device.run(plain.views[: device.batch_size]))
    return Agreement(difference, error, FACTORS[precision] * max(error, UNIT_ROUNDOFFS[precision]))


def draw_views(count: int, size: int) -> npt.NDArray[np.uint8]:
    """Draw pictures with lanes, bands and noise, every other one dark on light.

    :returns: uint8 (count x size x size), the same for the same arguments everywhere.
    """
    random = np.random.default_rng(0)
    return np.stack([_gel(random, number, size) for number in range(count)])


def _gel(random: np.random.Generator, number: int, size: int) -> npt.NDArray[np.uint8]:
    lanes, places = 5 + 2 * number, np.linspace(0, 1, size)
    picture = np.zeros((size, size))
    for lane in range(lanes):
        centres, widths = random.uniform(0.05, 0.95, 6), random.uniform(0.004, 0.03, 6)
        bands = np.exp(-(((places[:, None] - centres) / widths) ** 2) / 2)
        profile = bands @ random.uniform(0.2, 1, 6)
        across = np.exp(-(((places - (lane + 0.5) / lanes) * lanes * 4) ** 4) / 2)
        picture += np.outer(profile, across)
    uneven = 0.1 * random.uniform(-1, 1) * places[:, None] + random.normal(0, 0.02, picture.shape)
    light = np.clip(0.1 + 0.8 * np.clip(picture, 0, 1) + uneven, 0, 1)
    grey: npt.NDArray[np.uint8] = np.rint(255 * (1 - light if number % 2 else light)).astype("u1")
    return grey


def _remedy(trial: Trial) -> str:
    if trial.hardware != "cpu":
        return "Use --hardware cpu, or other versions of the packages that compute."
    return "Leave --precision out." if trial.kernel == "torch" else "Leave --kernel out."
