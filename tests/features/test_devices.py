"""Devices: all give the same embeddings, and one that is not there is an error at once."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rounding import assert_close

import gelkit
import gelkit.features.hardware as hardware_module
from gelkit.errors import UsageError
from gelkit.features.backbones import BACKBONES, Backbone
from gelkit.features.devices import DeviceError
from gelkit.features.diagnosis import smallest_cosine
from gelkit.features.extraction import Workforce
from gelkit.features.freezing import freeze
from gelkit.features.hardware import count_chips, open_device, require_hardware
from gelkit.features.recipe import CPU_KERNELS
from gelkit.features.shards import read
from gelkit.features.weights import load_weights
from gelkit.features.xla import find_tpu_chips
from gelkit.images.formats import decode
from gelkit.images.views import render

VIEWS = np.random.default_rng(0).integers(0, 256, (6, 224, 224), dtype=np.uint8)


def _chip(root: Path, address: str, vendor: str, device: str) -> None:
    (root / address).mkdir(parents=True)
    (root / address / "vendor").write_text(f"{vendor}\n")
    (root / address / "device").write_text(f"{device}\n")


def test_a_tpu_is_found_by_its_chip(tmp_path: Path) -> None:
    """A TPU host would be told that it has none, or a laptop be left hanging."""
    _chip(tmp_path, "0000:00:04.0", "0x1ae0", "0x0063")
    _chip(tmp_path, "0000:00:05.0", "0x1ae0", "0x0063")
    _chip(tmp_path, "0000:00:06.0", "0x1ae0", "0x001f")  # the same maker's disk
    _chip(tmp_path, "0000:00:07.0", "0x10de", "0x0063")
    assert find_tpu_chips(tmp_path) == {"0000:00:04.0": "v5e", "0000:00:05.0": "v5e"}
    assert find_tpu_chips(tmp_path / "nowhere") == {}


@pytest.mark.skipif(bool(find_tpu_chips()), reason="this machine has a TPU")
def test_a_tpu_that_is_not_there_is_an_error() -> None:
    """The CPU would be measured as a TPU."""
    with pytest.raises(DeviceError, match="no TPU chip"):
        require_hardware("tpu")
    with pytest.raises(DeviceError, match="--emulate-tpu"):
        open_device("tpu")


def test_an_unknown_device_names_the_known_ones() -> None:
    """A misspelt device would become the CPU."""
    with pytest.raises(UsageError, match="cpu, tpu, tpu-emulated, cuda"):
        open_device("gpu")


def test_a_batch_that_is_not_full_gives_the_same() -> None:
    """The last images of a data set would get other embeddings."""
    row = BACKBONES["mobilenet-v3"]
    device = open_device("cpu")
    device.prepare(freeze(load_weights(row, "random")[0], row), batch_size=4)
    full, part = device.run(VIEWS[:4]), device.run(VIEWS[:1])
    assert part.shape == (1, row.width)
    assert part.dtype == np.float32
    assert_close(part[0], full[0])
    with pytest.raises(ValueError, match="at most 4 views"):
        device.run(VIEWS[:5])


@pytest.fixture(scope="module")
def gel_views(samples: Path) -> np.ndarray:
    """Return the clean views of eight synthetic images."""
    images = gelkit.read_catalog(samples).images[::2][:8]
    return np.stack([render(decode(image.path.read_bytes())) for image in images])


@cache
def _random_model(backbone: str) -> torch.nn.Module:
    """Draw the weights once: those of vgg16 take as long as embedding with them."""
    return load_weights(BACKBONES[backbone], "random")[0]


def _eager(row: Backbone, views: np.ndarray) -> np.ndarray:
    """Embed the plain way: the library's model without its last layer, normalised as it says."""
    model = copy.deepcopy(_random_model(row.name))
    parent, _, name = row.layer.rpartition(".")
    setattr(model.get_submodule(parent), name, torch.nn.Identity())
    shown = row.preprocessing
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (shown.mean, shown.std))
    pictures = torch.from_numpy(views).unsqueeze(1).expand(-1, 3, -1, -1) / 255
    with torch.no_grad():
        return model.eval()((pictures - mean) / std).numpy()


COSINES = {"resnet18": 0.9998, "vgg16": 0.9998, "mobilenet-v3": 0.995, "efficientnet-lite0": 0.99}
"""With random weights; rounding to 8 bits does most to networks of many layers."""


KEPT = {("resnet18", "torch"), ("resnet18", "winograd"), ("mobilenet-v3", "openvino")}
"""Pairs of a backbone and a kernel that are compared whenever anything is; others are a grid."""


def _kernels() -> list[Any]:
    grid = pytest.mark.exhaustive("exhaustive grids")
    return [
        pytest.param(backbone, kernel, precision, marks=() if (backbone, kernel) in KEPT else grid)
        for backbone, kernel in itertools.product(BACKBONES, CPU_KERNELS)
        for precision in CPU_KERNELS[kernel].precisions
    ]


@pytest.mark.parametrize(("backbone", "kernel", "precision"), _kernels())
def test_every_kernel_gives_what_plain_torch_gives(
    backbone: str, kernel: str, precision: str, gel_views: np.ndarray
) -> None:
    """Speed would be bought with other embeddings than the backbone's."""
    row = BACKBONES[backbone]
    expected = _eager(row, gel_views)
    device = open_device("cpu", kernel, precision)
    device.prepare(freeze(copy.deepcopy(_random_model(backbone)), row), batch_size=5)
    found = np.concatenate([device.run(gel_views[:5]), device.run(gel_views[5:])])
    if precision == "float32":
        assert_close(found, expected)
    assert smallest_cosine(found, expected) > (
        0.999999 if precision == "float32" else COSINES[backbone]
    )


def test_a_kernel_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would compute what OpenVINO was asked for, and the recipe would lie."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="extra 'fast'"):
        open_device("cpu", "openvino")


PREPARING = """
import sys
from gelkit.features.backbones import BACKBONES
from gelkit.features.freezing import freeze
from gelkit.features.hardware import open_device
from gelkit.features.weights import load_weights

row = BACKBONES["mobilenet-v3"]
open_device("cpu", "openvino").prepare(freeze(load_weights(row, "random")[0], row), batch_size=1)
print([name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry"])
"""


@pytest.mark.exhaustive("fault states")
def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Its maker would be told by whom, when and with what a laboratory's gels are analysed."""
    known = {name: value for name, value in os.environ.items() if name != "CI"}
    run = subprocess.run(
        [sys.executable, "-c", PREPARING],
        env=known | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "[]\n"
    assert not (tmp_path / "intel").exists()


needs_xla = pytest.mark.skipif(find_spec("torch_xla") is None, reason="needs the extra xla")

EMBEDDING = """
import sys
import numpy as np
from gelkit.features.backbones import BACKBONES
from gelkit.features.freezing import freeze
from gelkit.features.hardware import open_device
from gelkit.features.weights import load_weights
from gelkit.features.xla import xla_compiles

file, backbone, *kinds = sys.argv[1:]
coarse = np.random.default_rng(0).integers(0, 256, (6, 14, 14), dtype=np.uint8)
views = coarse.repeat(16, axis=1).repeat(16, axis=2)
row = BACKBONES[backbone]
model = freeze(load_weights(row, "random")[0], row)
found = {}
for hardware in kinds:
    device = open_device(hardware)
    device.prepare(model, batch_size=4)
    before = xla_compiles() if hardware != "cpu" else 0
    found[hardware] = np.concatenate([device.run(views[:4]), device.run(views[4:])])
    found["compiles"] = xla_compiles() - before
np.savez(file, **found)
"""
"""Embeds two batches, the second of two views: fewer than four chips."""

BY_BACKBONE = [
    pytest.param(
        name, marks=[] if name == "mobilenet-v3" else pytest.mark.exhaustive("exhaustive grids")
    )
    for name in BACKBONES
]

BY_DEVICES = [1, pytest.param(4, marks=pytest.mark.exhaustive("exhaustive grids"))]

Embedded = Callable[[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """Return what gives a backbone's embeddings by 1 or 4 emulated devices; by 1, the CPU's too."""
    folder = tmp_path_factory.mktemp("emulated")

    @cache
    def run(backbone: str, devices: int) -> dict[str, Any]:
        """Start a process of its own; the compiler leaves its notes."""
        place = folder / f"{backbone}-{devices}"
        kinds = ["cpu", "tpu-emulated"] if devices == 1 else ["tpu-emulated"]
        done = subprocess.run(
            [sys.executable, "-c", EMBEDDING, f"{place}.npz", backbone, *kinds],
            env=os.environ
            | {
                "CPU_NUM_DEVICES": str(devices),
                "XLA_FLAGS": f"--xla_dump_to={place} --xla_dump_hlo_as_text",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        with np.load(f"{place}.npz") as data:
            return dict(data) | {"notes": place}

    return run


@needs_xla
@pytest.mark.parametrize("other", ["cpu", "tpu-emulated"])
@pytest.mark.parametrize("devices", BY_DEVICES)
@pytest.mark.parametrize("backbone", BY_BACKBONE)
def test_the_emulated_tpu_agrees(
    backbone: str, devices: int, other: str, embedded: Embedded
) -> None:
    """Embeddings would depend on the hardware, or on how many chips share a batch."""
    found, expected = embedded(backbone, devices)["tpu-emulated"], embedded(backbone, 1)[other]
    assert found.shape == (6, BACKBONES[backbone].width)
    assert_close(found, expected)


@needs_xla
@pytest.mark.parametrize("devices", BY_DEVICES)
@pytest.mark.parametrize("backbone", BY_BACKBONE)
def test_each_backbone_compiles_once(backbone: str, devices: int, embedded: Embedded) -> None:
    """Every batch would wait for the compiler, for minutes on a TPU."""
    assert embedded(backbone, devices)["compiles"] == 1


@pytest.mark.exhaustive("exhaustive grids")
@needs_xla
@pytest.mark.parametrize(("devices", "share"), [(1, "4"), (4, "1")], ids=["1", "4"])
@pytest.mark.parametrize("backbone", BY_BACKBONE)
def test_devices_share_a_batch(backbone: str, devices: int, share: str, embedded: Embedded) -> None:
    """Four chips would each embed all images, as slow as one."""
    programs = sorted(embedded(backbone, devices)["notes"].glob("*after_optimizations.txt"))
    batches = [set(re.findall(r"u8\[(\d+),224,224\]", file.read_text())) for file in programs]
    assert batches == [{share}]


ENDING_IN_A_VIEW = """
import numpy as np, torch
from torch import nn
from gelkit.features.backbones import Backbone
from gelkit.features.freezing import freeze
from gelkit.features.hardware import open_device
from gelkit.features.xla import xla_compiles

body = nn.Sequential(nn.Conv2d(3, 8, 7, stride=32), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 9, 1),
                     nn.ReLU(inplace=True), nn.Flatten(), nn.Identity())
device = open_device("tpu-emulated")
device.prepare(freeze(body, Backbone("a", "torchvision", "a", "5", 9, 0, 0.0, "")), batch_size=4)
before = xla_compiles()
for count in (4, 2):
    device.run(np.zeros((count, 224, 224), np.uint8))
print(xla_compiles() - before)
"""


@needs_xla
@pytest.mark.exhaustive("exhaustive grids")
def test_a_network_that_ends_in_a_view_compiles_once() -> None:
    """MobileNetV4's embeddings are a view of its last layer, and fetching them compiled again."""
    run = subprocess.run(
        [sys.executable, "-c", ENDING_IN_A_VIEW], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "1"


@pytest.mark.exhaustive("exhaustive grids")
@needs_xla
def test_results_say_how_many_devices_were_emulated(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What four chips embed would be padded with as much emptiness, or be told as of one chip."""
    catalog = gelkit.read_catalog(samples)
    catalog = replace(catalog, images=catalog.images[:6])
    options = gelkit.RecipeOptions(weights="random", emulate_tpu=True)
    monkeypatch.setenv("CPU_NUM_DEVICES", "4")
    found = gelkit.extract(
        catalog,
        hardware="tpu",
        options=options,
        cache=tmp_path,
        workforce=Workforce(batch_size=2),
    )
    assert found.device == "XLA:CPU (emulated, 4 devices)"
    plain = gelkit.extract(catalog, options=replace(options, emulate_tpu=False), cache=tmp_path)
    assert_close(found.values, plain.values)
    (folder,) = tmp_path.glob("*emulated*")
    (shard,) = folder.glob("shard-*.h5")
    assert read(shard, found.recipe).provenance[0]["batch_size"] == 8


CHIPS = {
    "a CPU": ("cpu", {"torch_xla"}, 1),
    "a GPU": ("cuda", set(), 1),
    "virtual devices": ("tpu-emulated", {"torch_xla"}, 3),
    "torch_xla": ("tpu", {"torch_xla"}, 2),
    "torch_tpu": ("tpu", {"torch_tpu"}, 1),
    "both": ("tpu", {"torch_xla", "torch_tpu"}, 2),
}
"""Hardware, what is installed beside torch, and how many of 2 chips, or 3 virtual ones, it uses."""


@pytest.mark.parametrize(("hardware", "installed", "chips"), CHIPS.values(), ids=CHIPS)
def test_each_chip_gets_a_batch(
    hardware: str, installed: set[str], chips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four chips would share what fills one, or one be given what fills four."""
    monkeypatch.setenv("CPU_NUM_DEVICES", "3")
    monkeypatch.setattr(hardware_module, "find_tpu_chips", lambda: {"4": "v4", "5": "v4"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    require_hardware(hardware)
    assert count_chips(hardware) == chips


WITHOUT = {
    "a TPU without any package": ("tpu", set()),
    "emulation without any package": ("tpu-emulated", set()),
    "emulation by torch_tpu": ("tpu-emulated", {"torch_tpu"}),
}


@pytest.mark.parametrize(("hardware", "installed"), WITHOUT.values(), ids=WITHOUT)
def test_a_tpu_without_its_package_is_an_error(
    hardware: str, installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights would be loaded and images decoded, before somebody is told what to install."""
    monkeypatch.setattr(hardware_module, "find_tpu_chips", lambda: {"4": "v4"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    with pytest.raises(DeviceError, match=r"Expected torch_xla.*Install gelkit's extra 'xla'"):
        require_hardware(hardware)


ONE_OF_TWO_HOSTS = """
import os
os.environ["PJRT_DEVICE"] = "CPU"
from torch_xla import runtime
runtime.process_count = lambda: 2
from gelkit.features.hardware import open_device
open_device("tpu-emulated")
"""


@pytest.mark.exhaustive("clusters")
@needs_xla
def test_one_of_several_hosts_is_refused() -> None:
    """Each host would wait for the others, or give embeddings of images that it never had."""
    run = subprocess.run([sys.executable, "-c", ONE_OF_TWO_HOSTS], capture_output=True, text=True)
    assert "DeviceError: Expected a TPU of one host. Received: one of 2 hosts." in run.stderr
    assert "--shard" in run.stderr
