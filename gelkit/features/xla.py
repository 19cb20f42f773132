"""XLA: torch_xla's devices, a TPU or in its place XLA's CPU client."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gelkit.features.devices import (
    Device,
    DeviceError,
    embedded,
    package_versions,
    padded,
    rounded,
    to_numpy,
)

if TYPE_CHECKING:
    from torch import nn

EMULATED = "XLA:CPU (emulated)"

_GOOGLE = "0x1ae0"
_TPU_CHIPS = frozenset({"0x0027", "0x005e", "0x0063", "0x006f", "0x0056", "0x0062", "0x0076"})
"""PCI device ids of TPUs, as torch_xla and libtpu look for them."""

_TPU_START_SECS = 180


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

        self._model = rounded(model, self._precision).to(torch_xla.device())
        torch_xla.sync()
        self._batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch; the first one compiles."""
        import torch
        import torch_xla

        assert self._model is not None, "prepare() comes first"
        with torch.no_grad():  # under inference_mode a linear layer fails on XLA
            batch = torch.from_numpy(padded(views, self._batch_size)).to(torch_xla.device())
            values = embedded(self._model, batch, self._precision)
            torch_xla.sync()
            return to_numpy(values, len(views))

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch, torchvision and torch_xla."""
        return package_versions("torch", "torchvision", "torch_xla")


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


def open_tpu(precision: str) -> Device:
    """Open the TPU, having tried in another process that it starts."""
    _require_tpu_starts()
    _start_xla("TPU")
    return XLADevice(f"tpu ({len(find_tpu_chips())} chips)", precision)


def open_emulated_tpu(precision: str) -> Device:
    """Open XLA's CPU client."""
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


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
