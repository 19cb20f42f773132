"""Hardware: what can be asked for, whether it can be there, and which device it opens."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
from collections.abc import Callable, Mapping

from gelkit.errors import UsageError
from gelkit.features.devices import (
    Device,
    DeviceError,
    OpenVINODevice,
    TorchDevice,
    TorchTPUDevice,
)
from gelkit.features.xla import (
    find_tpu_chips,
    open_emulated_tpu,
    open_tpu,
    require_tpu_starts,
)
from gelkit.systems import SYSTEM


def open_device(hardware: str, kernel: str = "torch", precision: str = "float32") -> Device:
    """Open the device for a recipe's hardware.

    :param hardware: ``cpu``, ``tpu``, ``tpu-emulated`` or ``cuda``.
    :param kernel: on the CPU a name of :data:`gelkit.features.recipe.CPU_KERNELS`; elsewhere there
        is one.
    :param precision: ``float32`` or ``bfloat16``: of weights and products.
    :raises DeviceError: it is not there, or does not start.
    """
    openers = {**_OPENERS, "cpu": _CPU_OPENERS[kernel]} if hardware == "cpu" else _OPENERS
    if hardware not in openers:
        known = ", ".join(("cpu", *_OPENERS))
        raise UsageError(f"Expected the hardware {known}. Received: {hardware!r}.")
    require_hardware(hardware, kernel)
    return openers[hardware](precision)


def require_hardware(hardware: str, kernel: str = "torch") -> None:
    """Check at once, without starting anything, that a recipe's hardware and kernel can be there.

    :raises DeviceError: a TPU without a TPU chip, XLA without Linux or torch_xla, OpenVINO that is
        not installed.
    """
    if hardware.startswith("tpu") and not SYSTEM.is_linux:
        raise DeviceError(
            f"Expected Linux, for --hardware tpu. Received: {SYSTEM.name}, which torch_xla is not "
            "made for. Leave the hardware out, which means cpu, or run on Linux."
        )
    if hardware == "tpu" and not find_tpu_chips():
        raise DeviceError(
            "Expected a TPU. Received: no TPU chip among this machine's PCI devices. Run on a TPU "
            "host, or add --emulate-tpu to run the same torch_xla program on XLA's CPU client."
        )
    if hardware.startswith("tpu") and not _tpu_packages(hardware):
        raise DeviceError(
            "Expected torch_xla. Received: it is not installed. Install gelkit's extra 'xla' (on "
            "a TPU host 'tpu', or torch_tpu in its place)."
        )
    if kernel == "openvino" and not _is_installed("openvino"):
        raise DeviceError(
            "Expected OpenVINO, for --kernel openvino. Received: it is not installed. Install "
            "gelkit's extra 'fast', or leave --kernel out."
        )


def count_chips(hardware: str) -> int:
    """Tell, without starting anything, how many chips share what a device embeds at once.

    A guess that may be wrong where chips are hidden from a process; a device that has other chips
    than that still gives each as much as the others.
    """
    if hardware == "tpu" and _tpu_packages(hardware)[:1] == ["torch_xla"]:
        return max(1, len(find_tpu_chips()))
    if hardware == "tpu-emulated":
        return int(os.environ.get("CPU_NUM_DEVICES") or 1)
    return 1


def _tpu_packages(hardware: str) -> list[str]:
    """Return which installed packages could be the hardware, the one to take first."""
    known = _TPU_OPENERS if hardware == "tpu" else ("torch_xla",)
    return [package for package in known if _is_installed(package)]


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _open_any_tpu(precision: str) -> Device:
    (package, *_) = _tpu_packages("tpu")
    return _TPU_OPENERS[package](precision)


def _open_torch_tpu(precision: str) -> Device:
    require_tpu_starts("import torch, torch_tpu; print(torch.zeros(1, device='tpu').cpu())")
    importlib.import_module("torch_tpu")
    (generation, *_) = find_tpu_chips().values()
    return TorchTPUDevice("tpu", f"tpu {generation} (1 chip, torch_tpu)", precision)


def _open_torch(precision: str) -> Device:
    return TorchDevice("cpu", f"cpu ({_processor()})", precision)


def _open_winograd(precision: str) -> Device:
    import torch

    from gelkit.features.fusion import fuse

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise DeviceError(
            "Expected a torch built with oneDNN, for --kernel winograd. Received: one without it. "
            "Leave --kernel out."
        )
    return TorchDevice("cpu", f"cpu ({_processor()})", precision, fuse)


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


def describe_processor() -> str:
    """Tell this machine's processor such that those which run other instructions differ.

    Makers use one name for several generations; family, model, stepping and flags tell them apart.
    """
    facts = SYSTEM.processor_facts()
    flags = " ".join(sorted(facts.get("flags", facts.get("Features", "")).split()))
    numbers = [facts[name] for name in ("cpu family", "model", "stepping") if name in facts]
    digits = hashlib.sha256(flags.encode()).hexdigest()[:8]
    return f"{_processor()} ({'/'.join([*numbers, digits])})"


def _processor() -> str:
    return SYSTEM.processor_facts().get("model name") or platform.processor() or platform.machine()


_CPU_OPENERS: Mapping[str, Callable[[str], Device]] = {
    "torch": _open_torch,
    "winograd": _open_winograd,
    "openvino": _open_openvino,
}
_TPU_OPENERS: Mapping[str, Callable[[str], Device]] = {
    "torch_xla": open_tpu,
    "torch_tpu": _open_torch_tpu,
}
"""Ways to a TPU, by the package that goes it; the two need different versions of torch."""
_OPENERS: Mapping[str, Callable[[str], Device]] = {
    "tpu": _open_any_tpu,
    "tpu-emulated": open_emulated_tpu,
    "cuda": _open_cuda,
}
