"""Hardware as a seam: a device prepares a frozen model once, then runs batches of views.

Between a device and the rest of gelkit travel NumPy arrays alone. Batches are padded to one fixed
shape, so that a device that compiles does so once for each backbone, and an embedding does not
depend on how many images happen to come with it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError, UsageError
from gelkit.images.views import VIEW_SIZE

if TYPE_CHECKING:
    import torch
    from openvino import CompiledModel
    from torch import nn

EMULATED = "XLA:CPU (emulated)"

_GOOGLE = "0x1ae0"
_TPU_CHIPS = frozenset({"0x0027", "0x005e", "0x0063", "0x006f", "0x0056", "0x0062", "0x0076"})
"""PCI device ids of TPUs, as torch_xla and libtpu look for them."""

_TPU_START_SECS = 180


class DeviceError(GelkitError):
    """The hardware asked for is not there or does not start."""


class Device(Protocol):
    """What stage one needs of hardware."""

    name: str
    """What really runs, for people: ``cpu (AMD EPYC, 2 threads)``."""

    def prepare(self, model: nn.Sequential, batch_size: int) -> None:
        """Take a frozen model; all batches will have ``batch_size`` views."""

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed at most ``batch_size`` views: (views x height x width) to (views x width)."""

    def versions(self) -> dict[str, str]:
        """Tell the versions of the packages that compute."""


class TorchDevice:
    """A device of torch's own: the CPU or a CUDA GPU, with the channels of an image together."""

    def __init__(self, device: str, name: str, precision: str = "float32") -> None:
        self.name = name
        self._device = device
        self._precision = precision
        self._model: nn.Sequential | None = None
        self._batch_size = 0

    def prepare(self, model: nn.Sequential, batch_size: int) -> None:
        """Move the model to the device."""
        import torch

        moved = _rounded(model.to(self._device), self._precision)
        self._model = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch, eagerly."""
        import torch

        assert self._model is not None, "prepare() comes first"
        with torch.inference_mode():
            batch = torch.from_numpy(_padded(views, self._batch_size)).to(self._device)
            return _numpy(_embedded(self._model, batch, self._precision), len(views))

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch and torchvision."""
        return _versions("torch", "torchvision")


class OpenVINODevice:
    """The CPU by way of OpenVINO, one thread a process."""

    def __init__(self, name: str, precision: str = "float32") -> None:
        self.name = name
        self._precision = precision
        self._normalise: nn.Module | None = None
        self._model: CompiledModel | None = None
        self._batch_size = 0

    def prepare(self, model: nn.Sequential, batch_size: int) -> None:
        """Compile the model for batches of this size."""
        import openvino
        import torch

        self._normalise, body = model
        example = torch.zeros(batch_size, 3, VIEW_SIZE, VIEW_SIZE)
        with torch.no_grad():
            converted = openvino.convert_model(body, example_input=example, input=example.shape)
        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to one core
        }
        self._model = openvino.Core().compile_model(converted, "CPU", settings)
        self._batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch."""
        import torch

        assert self._model is not None, "prepare() comes first"
        assert self._normalise is not None
        batch = torch.from_numpy(_padded(views, self._batch_size)).unsqueeze(1).float()
        with torch.inference_mode():
            normalised = self._normalise(batch).numpy()
        values: npt.NDArray[np.float32] = self._model(normalised)[0][: len(views)].copy()
        return values

    def versions(self) -> dict[str, str]:
        """Tell the versions of openvino, torch and torchvision."""
        return _versions("openvino", "torch", "torchvision")


class XLADevice:
    """A device of torch_xla: a TPU, or XLA's CPU client in its place."""

    def __init__(self, name: str, precision: str = "float32") -> None:
        self.name = name
        self._precision = precision
        self._model: nn.Sequential | None = None
        self._batch_size = 0

    def prepare(self, model: nn.Sequential, batch_size: int) -> None:
        """Move the model to the device."""
        import torch_xla

        self._model = _rounded(model, self._precision).to(torch_xla.device())
        torch_xla.sync()
        self._batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch; the first one compiles."""
        import torch
        import torch_xla

        assert self._model is not None, "prepare() comes first"
        with torch.no_grad():  # under inference_mode a linear layer fails on XLA
            batch = torch.from_numpy(_padded(views, self._batch_size)).to(torch_xla.device())
            embedded = _embedded(self._model, batch, self._precision)
            torch_xla.sync()
            return _numpy(embedded, len(views))

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch, torchvision and torch_xla."""
        return _versions("torch", "torchvision", "torch_xla")


def open_device(hardware: str, kernel: str = "torch", precision: str = "float32") -> Device:
    """Open the device for a recipe's hardware.

    :param hardware: ``cpu``, ``tpu``, ``tpu-emulated`` or ``cuda``.
    :param kernel: on the CPU ``torch`` or ``openvino``; elsewhere there is one.
    :param precision: ``float32`` or ``bfloat16``: of weights and products.
    :raises DeviceError: it is not there, or does not start.
    """
    openers: dict[str, Callable[[str], Device]] = {
        "cpu": _open_openvino if kernel == "openvino" else _open_cpu,
        "tpu": _open_tpu,
        "tpu-emulated": _open_emulated_tpu,
        "cuda": _open_cuda,
    }
    if hardware not in openers:
        raise UsageError(f"Expected the hardware {', '.join(openers)}. Received: {hardware!r}.")
    require_hardware(hardware, kernel)
    return openers[hardware](precision)


def require_hardware(hardware: str, kernel: str = "torch") -> None:
    """Check at once, without starting anything, that a recipe's hardware and kernel can be there.

    :raises DeviceError: a TPU without a TPU chip, XLA without torch_xla, OpenVINO that is not
        installed.
    """
    if hardware == "tpu" and not find_tpu_chips():
        raise DeviceError(
            "Expected a TPU. Received: no TPU chip among this machine's PCI devices. Run on a TPU "
            "host, or add --emulate-tpu to run the same torch_xla program on XLA's CPU client."
        )
    if hardware.startswith("tpu") and importlib.util.find_spec("torch_xla") is None:
        raise DeviceError(
            "Expected torch_xla. Received: it is not installed. Install gelkit's extra 'xla' (on "
            "a TPU host 'tpu')."
        )
    if kernel == "openvino" and importlib.util.find_spec("openvino") is None:
        raise DeviceError(
            "Expected OpenVINO, for --kernel openvino. Received: it is not installed. Install "
            "gelkit's extra 'fast', or leave --kernel out."
        )


def find_tpu_chips(root: Path = Path("/sys/bus/pci/devices")) -> list[str]:
    """List the PCI addresses of TPU chips, in under a millisecond and without any import."""
    return sorted(
        device.name
        for device in root.glob("*")
        if _read(device / "vendor") == _GOOGLE and _read(device / "device") in _TPU_CHIPS
    )


def xla_compiles() -> int:
    """Count the programs that XLA has compiled in this process."""
    from torch_xla.debug import metrics

    data = metrics.metric_data("CompileTime")
    return 0 if data is None else int(data[0])


def _open_cpu(precision: str) -> Device:
    return TorchDevice("cpu", f"cpu ({_processor()})", precision)


def _open_openvino(precision: str) -> Device:
    return OpenVINODevice(f"cpu ({_processor()})", precision)


def _open_cuda(precision: str) -> Device:
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            "Expected a CUDA GPU. Received: torch finds none. Use --hardware cpu, or install the "
            "driver and a CUDA build of torch."
        )
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 in the recipe means float32
    torch.backends.cudnn.allow_tf32 = False
    return TorchDevice("cuda", f"cuda ({torch.cuda.get_device_name()})", precision)


def _open_tpu(precision: str) -> Device:
    _require_tpu_starts()
    _start_xla("TPU")
    return XLADevice(f"tpu ({len(find_tpu_chips())} chips)", precision)


def _open_emulated_tpu(precision: str) -> Device:
    _start_xla("CPU")
    return XLADevice(EMULATED, precision)


def _require_tpu_starts() -> None:
    """Start the TPU in another process first: a start that fails can hang for many minutes."""
    program = "import torch_xla; print(torch_xla.device())"
    environment = os.environ | {"PJRT_DEVICE": "TPU"}
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", program],
            env=environment,
            timeout=_TPU_START_SECS,
            check=True,
            capture_output=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"Expected the TPU to start within {_TPU_START_SECS} seconds. Received: nothing. "
            "Another process may hold it: end that and run again."
        ) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DeviceError(
            f"Expected the TPU to start. Received: {' '.join(reason)} Install the extra 'tpu'."
        ) from error


def _start_xla(client: str) -> None:
    """Import torch_xla for one client of XLA; a process can have only one."""
    chosen = os.environ.get("PJRT_DEVICE")
    if chosen not in (None, client) and "torch_xla" in sys.modules:
        raise DeviceError(
            f"Expected XLA to be free for {client}. Received: this process already runs it on "
            f"{chosen}. Use a new process."
        )
    os.environ["PJRT_DEVICE"] = client
    try:
        with _logging_untouched():
            import torch_xla  # noqa: F401
    except ImportError as error:
        raise DeviceError(
            f"Expected torch_xla beside the torch it was built for. Received: {error}. "
            "Install gelkit's extra 'xla' (on a TPU host 'tpu')."
        ) from error
    _compute_float32_in_full()


def _compute_float32_in_full() -> None:
    """Have products of float32 computed as such: a TPU otherwise rounds the factors to bfloat16."""
    from torch_xla import backends

    if backends.get_mat_mul_precision() == "highest":
        return
    logger = logging.getLogger(backends.__name__)  # it warns of a second choice at the first
    level = logger.level
    logger.setLevel(logging.ERROR)
    backends.set_mat_mul_precision("highest")
    logger.setLevel(level)


@contextmanager
def _logging_untouched() -> Iterator[None]:
    """Undo what importing torch_xla does to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _rounded(model: nn.Sequential, precision: str) -> nn.Sequential:
    """Round a frozen model's weights, but not its normalisation, which greys must pass exactly."""
    import torch

    model[1].to(getattr(torch, precision))
    return model


def _embedded(model: nn.Sequential, greys: torch.Tensor, precision: str) -> torch.Tensor:
    import torch

    normalised = model[0](greys.unsqueeze(1).float())
    embedded: torch.Tensor = model[1](normalised.to(getattr(torch, precision)))
    return embedded


def _padded(views: npt.NDArray[np.uint8], batch_size: int) -> npt.NDArray[np.uint8]:
    missing = batch_size - len(views)
    if missing < 0:
        raise ValueError(f"Expected at most {batch_size} views. Received: {len(views)}.")
    return np.pad(views, ((0, missing), (0, 0), (0, 0)))


def _numpy(embedded: torch.Tensor, count: int) -> npt.NDArray[np.float32]:
    """Return the first rows; cut after the transfer, since cutting on XLA compiles again."""
    values: npt.NDArray[np.float32] = embedded.cpu().float().numpy()[:count].copy()
    return values


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def _processor() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
