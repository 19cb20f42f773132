"""Hardware as a seam: a device prepares a frozen model once, then runs batches of views.

Between a device and the rest of gelkit travel NumPy arrays alone. Batches are padded to one fixed
shape, so that a device that compiles does so once for each backbone, and an embedding does not
depend on how many images happen to come with it. On the CPU it depends on its image alone, to the
last bit. Where a compiler plans the sums (XLA, CUDA), its place in the batch may change their
order.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError

if TYPE_CHECKING:
    import torch
    from openvino import CompiledModel
    from torch import nn

    from gelkit.features.frozen import FrozenBackbone

    Rewriting: TypeAlias = Callable[[nn.Module, Sequence[int]], nn.Module]


class DeviceError(GelkitError):
    """The hardware asked for is not there or does not start."""


class Device(Protocol):
    """What stage one needs of hardware."""

    name: str
    """What really runs, for people: ``cpu (AMD EPYC)``."""
    batch_size: int
    """Views that it embeds at once; 0 until it is prepared."""

    def prepare(self, model: FrozenBackbone, batch_size: int) -> None:
        """Take a frozen model, which stays as it is.

        From then on the device embeds ``batch_size`` views at once, or as many more as give all of
        its chips the same number.
        """

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed views: (views x height x width) to (views x width).

        Other views in the batch, and the place in it, change an embedding by rounding at most: by
        less than eight times what rounding the weights and the pictures once would.

        :raises ValueError: there are more than the device's ``batch_size``.
        """

    def versions(self) -> dict[str, str]:
        """Tell the versions of the packages that compute."""


class TorchDevice:
    """A device of torch's own: the CPU or a CUDA GPU, with the channels of an image together.

    :param rewrite: turns the model and the shape of its batches into a faster model.
    """

    def __init__(
        self,
        device: str,
        name: str,
        precision: str = "float32",
        rewrite: Rewriting | None = None,
    ) -> None:
        self.name = name
        self.batch_size = 0
        self._device = device
        self._precision = precision
        self._rewrite = rewrite
        self._model: nn.Sequential | None = None

    def prepare(self, model: FrozenBackbone, batch_size: int) -> None:
        """Copy the model to the device."""
        import torch

        copied = rounded(model, self._precision)
        if self._rewrite is not None:
            _require_traced(model)
            copied[1] = self._rewrite(copied[1], copied.example(batch_size).shape)
        self._model = copied.to(self._device)
        for module in self._model.modules():
            if isinstance(module, torch.nn.Conv2d):  # other weights may have too many axes
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch, eagerly."""
        import torch

        assert self._model is not None, "prepare() comes first"
        with torch.inference_mode():
            batch = torch.from_numpy(padded(views, self.batch_size)).to(self._device)
            return to_numpy(embedded(self._model, batch, self._precision), len(views))

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch and torchvision."""
        return package_versions("torch", "torchvision")


class TorchTPUDevice(TorchDevice):
    """One chip of a TPU by way of torch_tpu, which makes ``tpu`` a device of torch's own."""

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch, eagerly, with products of float32 computed as such."""
        tpu: Any = import_module("torch.tpu")  # which importing torch_tpu has made
        with tpu.precision(tpu.Precision.HIGHEST):
            return super().run(views)

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch, torchvision and torch_tpu."""
        return super().versions() | package_versions("torch_tpu")


class OpenVINODevice:
    """The CPU by way of OpenVINO, one thread a process."""

    def __init__(self, name: str, precision: str = "float32") -> None:
        self.name = name
        self.batch_size = 0
        self._precision = precision
        self._normalise: nn.Module | None = None
        self._model: CompiledModel | None = None

    def prepare(self, model: FrozenBackbone, batch_size: int) -> None:
        """Compile the model for batches of this size."""
        import torch

        openvino = _import_openvino()
        self._normalise, body = model
        example = model.example(batch_size)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # a network that looks at its pictures' size: here that is always the same
                warnings.simplefilter("ignore")
                converted = openvino.convert_model(body, example_input=example, input=example.shape)
        except Exception as error:  # OpenVINO's own, and what the network itself raises
            raise DeviceError(
                f"Expected a network that OpenVINO can express, for --kernel openvino. Received: "
                f"{model.name}, {_last_line(error)}. Leave --kernel out."
            ) from error
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to one core
        }
        try:
            self._model = openvino.Core().compile_model(converted, "CPU", settings)
        except RuntimeError as error:
            raise DeviceError(
                f"OpenVINO cannot compute this network in {self._precision} on this processor "
                f"({self.name}): {_last_line(error)}. Leave --kernel out, or --precision."
            ) from error
        self.batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch."""
        import torch

        assert self._model is not None, "prepare() comes first"
        assert self._normalise is not None
        batch = torch.from_numpy(padded(views, self.batch_size)).unsqueeze(1).float()
        with torch.inference_mode():
            normalised = self._normalise(batch).numpy()
        values: npt.NDArray[np.float32] = self._model(normalised)[0][: len(views)].copy()
        return values

    def versions(self) -> dict[str, str]:
        """Tell the versions of openvino, torch and torchvision."""
        return package_versions("openvino", "torch", "torchvision")


def _import_openvino() -> Any:
    """Import OpenVINO without the package by which it reports its use to its maker.

    That one is optional for OpenVINO. If a program imported OpenVINO before, it is as it is there.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        return import_module("openvino")
    sys.modules[name] = None  # type: ignore[assignment]  # what makes an import of it fail
    try:
        return import_module("openvino")
    finally:
        del sys.modules[name]


def _last_line(error: Exception) -> str:
    """Return the reason in an error of OpenVINO's, which begins with where it was raised."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")


def _require_traced(model: FrozenBackbone) -> None:
    if not model.is_traced:
        raise DeviceError(
            f"Expected a network that can be traced, for --kernel winograd. Received: "
            f"{model.name}, which cannot. Leave --kernel out, or take --kernel openvino."
        )


def rounded(model: FrozenBackbone, precision: str) -> FrozenBackbone:
    """Copy a frozen model with rounded weights, but for its normalisation: greys pass exactly.

    What is not rounded shares its memory with the model, until it is moved.
    """
    import torch
    from torch import nn

    shared = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    copied = deepcopy(model, dict[int, Any](shared))
    copied[1].to(getattr(torch, precision))
    return copied


def embedded(model: nn.Sequential, greys: torch.Tensor, precision: str) -> torch.Tensor:
    """Run a frozen model over greys (images x height x width) on the device where both are."""
    import torch

    normalised = model[0](greys.unsqueeze(1).float())
    values: torch.Tensor = model[1](normalised.to(getattr(torch, precision)))
    return values


def padded(views: npt.NDArray[np.uint8], batch_size: int) -> npt.NDArray[np.uint8]:
    """Fill a batch up with empty views."""
    missing = batch_size - len(views)
    if missing < 0:
        raise ValueError(f"Expected at most {batch_size} views. Received: {len(views)}.")
    return np.pad(views, ((0, missing), (0, 0), (0, 0)))


def to_numpy(embedded: torch.Tensor, count: int) -> npt.NDArray[np.float32]:
    """Return the first rows; cut after the transfer, since cutting on XLA compiles again."""
    values: npt.NDArray[np.float32] = embedded.cpu().float().numpy()[:count].copy()
    return values


def package_versions(*packages: str) -> dict[str, str]:
    """Tell the versions of installed packages."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}
