"""Agreement: a kernel that is wrong on this machine embeds no image, and is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import gelkit
from gelkit.cli import main
from gelkit.features.agreement import (
    FACTORS,
    PlainTorch,
    Trial,
    compare,
    draw_views,
    read_outcomes,
    require_agreement,
)
from gelkit.features.backbones import BACKBONES
from gelkit.features.devices import Device, DeviceError, TorchDevice
from gelkit.features.freezing import freeze
from gelkit.features.frozen import FrozenBackbone
from gelkit.features.hardware import open_device
from gelkit.features.recipe import CPU_KERNELS
from gelkit.features.shards import read
from gelkit.features.weights import load_weights

QUICK = ("resnet18", "mobilenet-v3")
TRIAL = Trial("mobilenet-v3", "random", "cpu", "winograd", "float32")


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is remembered in a folder of the test's own."""
    monkeypatch.setenv("GELKIT_NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes" / "agreement"


@pytest.fixture(scope="module")
def plain() -> dict[str, PlainTorch]:
    """Return what plain torch gives of two backbones with random weights."""
    return {name: PlainTorch(_frozen(name)) for name in QUICK}


def _frozen(name: str) -> FrozenBackbone:
    return freeze(load_weights(BACKBONES[name], "random")[0], BACKBONES[name])


def _prepared(device: Device, model: FrozenBackbone) -> Device:
    device.prepare(model, batch_size=4)
    return device


@pytest.mark.parametrize("kernel", [kernel for kernel in CPU_KERNELS if kernel != "openvino"])
@pytest.mark.parametrize(
    "backbone",
    [pytest.param("resnet18", marks=pytest.mark.exhaustive("exhaustive grids")), "mobilenet-v3"],
)
def test_a_kernel_that_is_right_is_used(
    backbone: str, kernel: str, plain: dict[str, PlainTorch]
) -> None:
    """Rounding would be taken for a fault, and everybody be kept from a fast kernel."""
    for precision in CPU_KERNELS[kernel].precisions:
        device = _prepared(open_device("cpu", kernel, precision), _frozen(backbone))
        found = compare(device, plain[backbone], precision)
        assert 0 < found.difference <= found.allowed / 2


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra fast")
@pytest.mark.parametrize("precision", CPU_KERNELS["openvino"].precisions)
def test_openvino_is_right_or_says_that_it_cannot(
    precision: str, plain: dict[str, PlainTorch]
) -> None:
    """A processor without bfloat16 would get OpenVINO's traceback."""
    device = open_device("cpu", "openvino", precision)
    try:
        device.prepare(_frozen("mobilenet-v3"), 4)
    except DeviceError as error:
        reason = str(error)
    else:
        reason = ""
    if reason:
        assert (precision, reason[:15]) == ("bfloat16", "OpenVINO cannot")
    else:
        assert compare(device, plain["mobilenet-v3"], precision).agrees


def _plant(layer: str, channel: int | slice) -> Callable[[nn.Module, Sequence[int]], nn.Module]:
    """Return a rewriting that negates channels of a layer, as a faulty kernel would."""

    def rewrite(body: nn.Module, shape: Sequence[int]) -> nn.Module:
        planted = body.get_submodule(layer)

        def negate(module: nn.Module, given: object, values: torch.Tensor) -> torch.Tensor:
            wrong = values.clone()
            wrong[:, channel] = -wrong[:, channel]
            return wrong

        planted.register_forward_hook(negate)
        return body

    return rewrite


PLANTED = {
    "first layer": ("resnet18", "conv1"),
    "middle of resnet18": ("resnet18", "layer2.1.conv1"),
    "last of resnet18": ("resnet18", "layer4.1.conv2"),
    "depthwise of mobilenet-v3": ("mobilenet-v3", "features.6.block.1.0"),
    "last of mobilenet-v3": ("mobilenet-v3", "classifier.0"),
}


GRID = pytest.mark.exhaustive("exhaustive grids")


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        pytest.param(*place, id=name, marks=() if name.startswith("last") else GRID)
        for name, place in PLANTED.items()
    ],
)
@pytest.mark.parametrize("channel", [7, pytest.param(0, marks=GRID)])
def test_a_kernel_that_is_wrong_in_one_channel_is_refused(
    backbone: str, layer: str, channel: int, plain: dict[str, PlainTorch]
) -> None:
    """Embeddings would be silently wrong, and so would all that is told from them."""
    device = TorchDevice("cpu", "a faulty processor", rewrite=_plant(layer, channel))
    _prepared(device, _frozen(backbone))
    found = compare(device, plain[backbone], "float32")
    assert found.difference > 100 * found.allowed
    with pytest.raises(DeviceError, match=r"'winograd'.* is wrong on this machine .*--kernel out"):
        require_agreement(device, plain[backbone], replace(TRIAL, backbone=backbone))


def test_bfloat16_has_a_bound_of_its_own(plain: dict[str, PlainTorch]) -> None:
    """A wrong channel would pass as rounding, or rounding to 8 bits be taken for a fault."""
    right = _prepared(TorchDevice("cpu", "right", "bfloat16"), _frozen("resnet18"))
    found = compare(right, plain["resnet18"], "bfloat16")
    assert found.agrees
    assert found.difference > compare(right, plain["resnet18"], "float32").allowed
    rewrite = _plant("layer4.1.conv2", 7)
    wrong = TorchDevice("cpu", "wrong", "bfloat16", rewrite)
    assert not compare(_prepared(wrong, _frozen("resnet18")), plain["resnet18"], "bfloat16").agrees


class _Broken:
    """A device that gives no numbers."""

    name = "broken"
    batch_size = 4

    def prepare(self, model: FrozenBackbone, batch_size: int) -> None:
        """Take nothing."""

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Give no numbers."""
        return np.full((len(views), 1280), np.nan, np.float32)

    def versions(self) -> dict[str, str]:
        """Tell nothing."""
        return {}


def test_what_is_no_number_does_not_agree(plain: dict[str, PlainTorch]) -> None:
    """NaN is not greater than any bound."""
    assert not compare(_Broken(), plain["mobilenet-v3"], "float32").agrees


def test_plain_torch_is_compared_with_nothing(notes: Path, plain: dict[str, PlainTorch]) -> None:
    """Everybody's first run would take seconds longer."""
    trial = replace(TRIAL, kernel="torch")
    assert require_agreement(_Broken(), plain["mobilenet-v3"], trial) is None
    assert not notes.exists()


def test_a_network_that_amplifies_rounding_is_not_judged() -> None:
    """A bound that allows everything would let a wrong kernel pass."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([1e6, -2e6, 1e6]).reshape(1, 3, 1, 1)  # cancels
    body = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    normalise = nn.Conv2d(1, 3, 1, bias=False)
    model = FrozenBackbone(normalise, body, "unstable", 224).requires_grad_(False)
    model[0].weight.fill_(1 / 255)
    with pytest.raises(DeviceError, match="amplifies rounding"):
        compare(_Broken(), PlainTorch(model), "float32")


def test_what_agreed_is_not_compared_again(notes: Path, plain: dict[str, PlainTorch]) -> None:
    """Each worker of each run would spend seconds on the same comparison."""
    model = _frozen("mobilenet-v3")
    device = _prepared(TorchDevice("cpu", "a processor"), model)
    found = require_agreement(device, plain["mobilenet-v3"], TRIAL)
    (note,) = notes.iterdir()
    written = note.stat().st_mtime_ns
    assert require_agreement(device, plain["mobilenet-v3"], TRIAL) == found
    assert note.stat().st_mtime_ns == written


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], tuple[str, int, Trial]]] = {
    "network": lambda patch: ("a processor", 4, replace(TRIAL, backbone="vgg16")),
    "weights": lambda patch: ("a processor", 4, replace(TRIAL, weights="f37072fd")),
    "kernel": lambda patch: ("a processor", 4, replace(TRIAL, kernel="openvino")),
    "precision": lambda patch: ("a processor", 4, replace(TRIAL, precision="bfloat16")),
    "device": lambda patch: ("another", 4, TRIAL),
    "batch size": lambda patch: ("a processor", 5, TRIAL),
    "instructions": lambda patch: (
        patch.setenv("MKL_CBWR", "COMPATIBLE") or ("a processor", 4, TRIAL)
    ),
}


@pytest.mark.parametrize(
    "change",
    [pytest.param(name, marks=() if name == "instructions" else GRID) for name in CHANGES],
)
def test_anything_that_may_decide_is_compared_anew(
    change: str, plain: dict[str, PlainTorch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel would be trusted for what it did elsewhere."""
    model = _frozen("mobilenet-v3")
    require_agreement(
        _prepared(TorchDevice("cpu", "a processor"), model), plain["mobilenet-v3"], TRIAL
    )
    name, batch_size, trial = CHANGES[change](monkeypatch)
    wrong = TorchDevice("cpu", name, rewrite=_plant("classifier.0", slice(None)))
    wrong.prepare(model, batch_size)
    with pytest.raises(DeviceError, match="is wrong on this machine"):
        require_agreement(wrong, plain["mobilenet-v3"], trial)
    agreed = [outcome.agreement.agrees for outcome in read_outcomes()]
    assert sorted(agreed) == [False, True]


PLANTED_IN_WORKERS = """
import torch
from gelkit.features import hardware
from gelkit.features.devices import TorchDevice

def plant(body, shape):
    body.get_submodule("classifier.0").register_forward_hook(
        lambda module, given, values: values * torch.tensor([-1] + [1] * 1279)
    )
    return body

def open_planted(precision):
    return TorchDevice("cpu", "planted", precision, plant)

hardware._CPU_OPENERS["winograd"] = open_planted
"""
"""Run by each worker when it starts: the kernel 'winograd' negates the first channel."""


@pytest.mark.exhaustive("fault states")
def test_no_image_is_embedded_by_a_wrong_kernel(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache would fill with wrong embeddings on the one machine where the kernel is wrong."""
    options = gelkit.RecipeOptions(weights="random", kernel="winograd")
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(PLANTED_IN_WORKERS)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "planted")
        with pytest.raises(DeviceError, match=r"'winograd'.*of mobilenet-v3 differ .*rounding"):
            gelkit.extract(samples, backbone="mobilenet-v3", cache=tmp_path / "c", options=options)
    assert not list((tmp_path / "c").rglob("shard-*.h5"))
    shown = CliRunner().invoke(main, ["doctor", "--no-measure"]).output
    assert "WRONG: refused" in shown
    assert "winograd" in shown
    found = gelkit.extract(samples, backbone="mobilenet-v3", cache=tmp_path / "c", options=options)
    (shard,) = (tmp_path / "c").rglob("shard-*.h5")
    kept = read(shard, found.recipe).provenance[0]["agreement"]
    assert 0 < kept["difference"] <= kept["allowed"]


def test_the_batch_is_the_same_everywhere_and_shows_both_polarities() -> None:
    """A comparison on one machine would say nothing of another, or miss half of the values."""
    views = draw_views(4, 224)
    assert views.shape == (4, 224, 224)
    assert views.dtype == np.uint8
    assert np.array_equal(views, draw_views(4, 224))
    assert np.array_equal(views[:2], draw_views(2, 224))
    assert draw_views(1, 518).shape == (1, 518, 518)
    means = views.mean(axis=(1, 2))
    assert (means[::2] < 100).all()
    assert (means[1::2] > 155).all()
    assert FACTORS["float32"] > FACTORS["bfloat16"] >= 2
    assert os.environ["GELKIT_NOTES"]
