"""Devices: all give the same embeddings, and one that is not there is an error at once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_weight

import gelkit
from gelkit.errors import UsageError
from gelkit.features.backbones import BACKBONES, Backbone, freeze
from gelkit.features.devices import DeviceError
from gelkit.features.diagnosis import smallest_cosine
from gelkit.features.hardware import open_device, require_hardware
from gelkit.features.recipe import CPU_KERNELS
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
    assert find_tpu_chips(tmp_path) == ["0000:00:04.0", "0000:00:05.0"]
    assert find_tpu_chips(tmp_path / "nowhere") == []


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
    np.testing.assert_allclose(part[0], full[0], rtol=1e-5, atol=1e-5 * np.abs(full).max())
    with pytest.raises(ValueError, match="at most 4 views"):
        device.run(VIEWS[:5])


@pytest.fixture(scope="module")
def gel_views(samples: Path) -> np.ndarray:
    """Return the clean views of eight synthetic images."""
    images = gelkit.read_catalog(samples).images[::2][:8]
    return np.stack([render(decode(image.path.read_bytes())) for image in images])


def _eager(row: Backbone, views: np.ndarray) -> np.ndarray:
    """Embed the plain way: torchvision's model without its last layer, normalised by its preset."""
    model, _ = load_weights(row, "random")
    parent, _, name = row.last_layer.rpartition(".")
    setattr(model.get_submodule(parent), name, torch.nn.Identity())
    preset = get_weight(row.weights).transforms()
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (preset.mean, preset.std))
    pictures = torch.from_numpy(views).unsqueeze(1).expand(-1, 3, -1, -1) / 255
    with torch.no_grad():
        return model.eval()((pictures - mean) / std).numpy()


COSINES = {"resnet18": 0.9998, "vgg16": 0.9998, "mobilenet-v3": 0.995}
"""With random weights; rounding to 8 bits does most to the many layers of mobilenet-v3."""


@pytest.mark.parametrize("kernel", CPU_KERNELS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_kernel_gives_what_plain_torch_gives(
    backbone: str, kernel: str, gel_views: np.ndarray
) -> None:
    """Speed would be bought with other embeddings than the backbone's."""
    row = BACKBONES[backbone]
    expected = _eager(row, gel_views)
    for precision in CPU_KERNELS[kernel].precisions:
        device = open_device("cpu", kernel, precision)
        device.prepare(freeze(load_weights(row, "random")[0], row), batch_size=5)
        found = np.concatenate([device.run(gel_views[:5]), device.run(gel_views[5:])])
        if precision == "float32":
            assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        assert smallest_cosine(found, expected) > (
            0.999999 if precision == "float32" else COSINES[backbone]
        )
        del device


def test_a_kernel_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would compute what OpenVINO was asked for, and the recipe would lie."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="extra 'fast'"):
        open_device("cpu", "openvino")


COMPARISON = """
import numpy as np
from gelkit.features.backbones import BACKBONES, freeze
from gelkit.features.hardware import open_device
from gelkit.features.weights import load_weights
from gelkit.features.xla import EMULATED, xla_compiles

coarse = np.random.default_rng(0).integers(0, 256, (6, 14, 14), dtype=np.uint8)
views = coarse.repeat(16, axis=1).repeat(16, axis=2)
for row in BACKBONES.values():
    embeddings = []
    for hardware in ("cpu", "tpu-emulated"):
        device = open_device(hardware)
        before = xla_compiles() if hardware != "cpu" else 0
        device.prepare(freeze(load_weights(row, "random")[0], row), batch_size=4)
        embeddings.append(np.concatenate([device.run(views[:4]), device.run(views[4:])]))
    assert device.name == EMULATED
    cpu, tpu = embeddings
    print(row.name, xla_compiles() - before, np.abs(cpu - tpu).max() / np.abs(cpu).max())
"""


@pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="needs the extra xla")
def test_the_emulated_tpu_agrees_and_compiles_once() -> None:
    """Embeddings would depend on the hardware, or minutes be lost in compiling."""
    run = subprocess.run(
        [sys.executable, "-c", COMPARISON], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == list(BACKBONES)
    assert [int(compiles) for _, compiles, _ in rows] == [1, 1, 1]
    assert max(float(difference) for _, _, difference in rows) < 1e-5
