"""Hardware as a seam: a device prepares a frozen model once, then runs batches of views.

Between a device and the rest of gelkit travel NumPy arrays alone. Batches are padded to one fixed
shape, so that a device that compiles does so once for each backbone.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError, UsageError

if TYPE_CHECKING:
    import torch
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

    def prepare(self, model: nn.Module, batch_size: int) -> None:
        """Take a frozen model; all batches will have ``batch_size`` views."""

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed at most ``batch_size`` views: (views x height x width) to (views x width)."""

    def versions(self) -> dict[str, str]:
        """Tell the versions of the packages that compute."""


class TorchDevice:
    """A device of torch's own: the CPU or a CUDA GPU."""

    def __init__(self, device: str, name: str) -> None:
        self.name = name
        self._device = device
        self._model: nn.Module | None = None
        self._batch_size = 0

    def prepare(self, model: nn.Module, batch_size: int) -> None:
        """Move the model to the device."""
        self._model = model.to(self._device)
        self._batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch, eagerly."""
        import torch

        assert self._model is not None, "prepare() comes first"
        with torch.inference_mode():
            batch = torch.from_numpy(_padded(views, self._batch_size)).to(self._device)
            embedded = self._model(batch.unsqueeze(1).float())
            return _numpy(embedded, len(views))

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch and torchvision."""
        return _versions("torch", "torchvision")


class XLADevice:
    """A device of torch_xla: a TPU, or XLA's CPU client in its place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._model: nn.Module | None = None
        self._batch_size = 0

    def prepare(self, model: nn.Module, batch_size: int) -> None:
        """Move the model to the device."""
        import torch_xla

        self._model = model.to(torch_xla.device())
        torch_xla.sync()
        self._batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch; the first one compiles."""
        import torch
        import torch_xla

        assert self._model is not None, "prepare() comes first"
        with torch.no_grad():  # under inference_mode a linear layer fails on XLA
            batch = torch.from_numpy(_padded(views, self._batch_size)).to(torch_xla.device())
            embedded = self._model(batch.unsqueeze(1).float())
            torch_xla.sync()
            return _numpy(embedded, len(views))

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch, torchvision and torch_xla."""
        return _versions("torch", "torchvision", "torch_xla")


def open_device(hardware: str) -> Device:
    """Open the device for a recipe's hardware.

    :param hardware: ``cpu``, ``tpu``, ``tpu-emulated`` or ``cuda``.
    :raises DeviceError: it is not there, or does not start.
    """
    openers = {
        "cpu": _open_cpu,
        "tpu": _open_tpu,
        "tpu-emulated": _open_emulated_tpu,
        "cuda": _open_cuda,
    }
    if hardware not in openers:
        raise UsageError(f"Expected the hardware {', '.join(openers)}. Received: {hardware!r}.")
    require_hardware(hardware)
    return openers[hardware]()


def require_hardware(hardware: str) -> None:
    """Check at once, without starting anything, that a recipe's hardware can be there.

    :raises DeviceError: a TPU without a TPU chip, or XLA without torch_xla.
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


def _open_cpu() -> Device:
    import torch

    return TorchDevice("cpu", f"cpu ({_processor()}, {torch.get_num_threads()} threads)")


def _open_cuda() -> Device:
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            "Expected a CUDA GPU. Received: torch finds none. Use --hardware cpu, or install the "
            "driver and a CUDA build of torch."
        )
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 in the recipe means float32
    torch.backends.cudnn.allow_tf32 = False
    return TorchDevice("cuda", f"cuda ({torch.cuda.get_device_name()})")


def _open_tpu() -> Device:
    _require_tpu_starts()
    _start_xla("TPU")
    return XLADevice(f"tpu ({len(find_tpu_chips())} chips)")


def _open_emulated_tpu() -> Device:
    _start_xla("CPU")
    return XLADevice(EMULATED)


def _require_tpu_starts() -> None:
    """Start the TPU in another process first: a start that fails can hang for many minutes."""
    program = "import torch_xla; print(torch_xla.device())"
    environment = os.environ | {"PJRT_DEVICE": "TPU"}
    try:
        subprocess.run(
            [sys.executable, "-c", program],
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


def _padded(views: npt.NDArray[np.uint8], batch_size: int) -> npt.NDArray[np.uint8]:
    missing = batch_size - len(views)
    if missing < 0:
        raise ValueError(f"Expected at most {batch_size} views. Received: {len(views)}.")
    return np.pad(views, ((0, missing), (0, 0), (0, 0)))


def _numpy(embedded: torch.Tensor, count: int) -> npt.NDArray[np.float32]:
    """Return the first rows; cut after the transfer, since cutting on XLA compiles again."""
    values: npt.NDArray[np.float32] = embedded.cpu().numpy()[:count].copy()
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
