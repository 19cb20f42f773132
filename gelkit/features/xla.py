"""XLA: torch_xla's devices, a TPU or in its place XLA's CPU client.

A host may have several devices: a TPU's chips (on v2, v3 and v7 each is two), or virtual ones of
the CPU client, as many as ``CPU_NUM_DEVICES`` says. One program then runs on all of them (SPMD):
the weights are on each, a batch is divided among them.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    import torch
    from torch import nn

    from gelkit.features.frozen import FrozenBackbone

EMULATED = "XLA:CPU (emulated)"

_GOOGLE = "0x1ae0"
_TPU_CHIPS = {
    "0x0027": "v2 or v3",
    "0x0056": "of no public name",
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "v7",
}
"""TPUs by their PCI device ids, those that torch_xla and libtpu look for."""

_TPU_START_SECS = 180


class XLADevice:
    """The devices of torch_xla's client: those of a TPU, or of XLA's CPU client in its place.

    :param devices: how many there are; with one, nothing is divided.
    """

    def __init__(self, name: str, precision: str = "float32", devices: int = 1) -> None:
        self.name = name
        self.batch_size = 0
        self._precision = precision
        self._devices = devices
        self._mesh = _mesh(devices) if devices > 1 else None
        self._model: nn.Sequential | None = None

    def prepare(self, model: FrozenBackbone, batch_size: int) -> None:
        """Copy the model to every device."""
        import torch_xla

        self._model = rounded(model, self._precision).to(torch_xla.device())
        torch_xla.sync()
        self.batch_size = -(-batch_size // self._devices) * self._devices

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch; the first one compiles."""
        import torch
        import torch_xla

        assert self._model is not None, "prepare() comes first"
        with torch.no_grad():  # under inference_mode a linear layer fails on XLA
            batch = torch.from_numpy(padded(views, self.batch_size)).to(torch_xla.device())
            self._lay_out(batch, "data", None, None)
            # a copy: of a view, fetching would compile once more
            values = embedded(self._model, batch, self._precision).clone()
            self._lay_out(values, None, None)  # whole on each: gathering it later compiles again
            torch_xla.sync()
            return to_numpy(values, len(views))

    def _lay_out(self, tensor: torch.Tensor, *axes: str | None) -> None:
        """Say along which axis the devices share a tensor; None: all have all of it."""
        if self._mesh is not None:
            from torch_xla.distributed import spmd

            spmd.mark_sharding(tensor, self._mesh, axes)

    def versions(self) -> dict[str, str]:
        """Tell the versions of torch, torchvision and torch_xla."""
        return package_versions("torch", "torchvision", "torch_xla")


def find_tpu_chips(root: Path = Path("/sys/bus/pci/devices")) -> dict[str, str]:
    """Return this host's TPU chips: the generation of each, by PCI address.

    It takes under a millisecond and imports nothing.
    """
    return {
        device.name: _TPU_CHIPS[identity]
        for device in sorted(root.glob("*"))
        if _read(device / "vendor") == _GOOGLE
        and (identity := _read(device / "device")) in _TPU_CHIPS
    }


def xla_compiles() -> int:
    """Count the programs that XLA has compiled in this process."""
    from torch_xla.debug import metrics

    data = metrics.metric_data("CompileTime")
    return 0 if data is None else int(data[0])


def open_tpu(precision: str) -> Device:
    """Open the TPU, all chips of this host, having tried in another process that it starts.

    :raises DeviceError: it does not start, or is one with the TPUs of other hosts.
    """
    require_tpu_starts("import torch_xla; print(torch_xla.device())")
    devices = _start_xla("TPU")
    generation = " and ".join(sorted(set(find_tpu_chips().values())))
    return XLADevice(f"tpu {generation} ({_counted(devices)})", precision, devices)


def open_emulated_tpu(precision: str) -> Device:
    """Open XLA's CPU client, with as many virtual devices as CPU_NUM_DEVICES says."""
    devices = _start_xla("CPU")
    several = f"{EMULATED.removesuffix(')')}, {_counted(devices)})"
    return XLADevice(EMULATED if devices == 1 else several, precision, devices)


def require_tpu_starts(program: str) -> None:
    """Start the TPU in another process first: a start that fails can hang for many minutes.

    :param program: what starts it, in Python.
    :raises DeviceError: it does not start, or not in time.
    """
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
            "Another process may hold it: end that and run again. Or this host is one of several "
            "that wait for each other: see 'Several hosts' in the documentation of TPUs."
        ) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DeviceError(
            f"Expected the TPU to start. Received: {' '.join(reason)} Install the extra 'tpu'."
        ) from error


def _start_xla(client: str) -> int:
    """Import torch_xla for one client of XLA, of which a process can have only one.

    :returns: how many devices it has.
    """
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
    return _join_devices()


def _join_devices() -> int:
    """Have one program run on all devices of this host, if there are several; return how many."""
    from torch_xla import runtime

    if runtime.process_count() > 1:
        raise DeviceError(
            f"Expected a TPU of one host. Received: one of {runtime.process_count()} hosts. Start "
            "each host's chips alone, with a part of the images (--shard): see 'Several hosts' in "
            "the documentation of TPUs."
        )
    devices: int = runtime.global_runtime_device_count()
    if devices > 1 and not runtime.is_spmd():
        runtime.use_spmd()  # before the first tensor
    return devices


def _mesh(devices: int) -> Any:
    from torch_xla.distributed import spmd

    return spmd.Mesh(np.arange(devices), (devices,), ("data",))


def _counted(devices: int) -> str:
    return "1 device" if devices == 1 else f"{devices} devices"


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
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
