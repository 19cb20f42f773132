"""Devices: what each of them promises, those that are here and those that are yet to come.

To put a device under the contract, add a row to DEVICES.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import MARGIN, sensitivity
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from gelkit.features.backbones import Backbone
from gelkit.features.devices import Device, package_versions, padded
from gelkit.features.freezing import freeze
from gelkit.features.frozen import FrozenBackbone
from gelkit.features.hardware import open_device
from gelkit.features.xla import find_tpu_chips

WIDTH = 24
BATCH_SIZE = 5
"""A multiple of no number of chips but one."""

_ONLY = "GELKIT_CONTRACT_DEVICE"


def tiny_model() -> FrozenBackbone:
    """Return a frozen model of the backbones' layers, which compiles in no time."""
    torch.manual_seed(0)
    layers = OrderedDict(
        stem=nn.Conv2d(3, 32, 7, stride=4, padding=3, bias=False),
        norm=nn.BatchNorm2d(32),
        rectify=nn.ReLU(),
        narrow=nn.MaxPool2d(2),
        mix=nn.Conv2d(32, 32, 3, padding=1),
        bend=nn.Hardswish(),
        pool=nn.AdaptiveAvgPool2d(2),
        flatten=nn.Flatten(),
        embed=nn.Linear(128, WIDTH),
        last=nn.Linear(WIDTH, 2),
    )
    return freeze(nn.Sequential(layers), _row("convolutional", "last"))


def tiny_transformer() -> FrozenBackbone:
    """Return a frozen vision transformer, of torchvision's layers."""
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=224,
        patch_size=32,
        num_layers=2,
        num_heads=2,
        hidden_dim=WIDTH,
        mlp_dim=32,
        num_classes=2,
    )
    nn.init.normal_(model.class_token)
    return freeze(model, _row("vision transformer", "heads.head"))


def tiny_convnext() -> FrozenBackbone:
    """Return a frozen ConvNeXt, of torchvision's layers."""
    torch.manual_seed(0)
    blocks = [CNBlockConfig(16, WIDTH, 1), CNBlockConfig(WIDTH, None, 1)]
    model = ConvNeXt(blocks, num_classes=2, layer_scale=1.0)
    return freeze(model, _row("ConvNeXt", "classifier.2"))


def _row(name: str, last_layer: str) -> Backbone:
    return Backbone(
        name=name,
        library="torchvision",
        model="",
        layer=last_layer,
        width=WIDTH,
        parameters=0,
        giga_operations=0.0,
        weights="",
    )


NETWORKS: Mapping[str, Callable[[], FrozenBackbone]] = {
    "convolutional": tiny_model,
    "vision transformer": tiny_transformer,
    "ConvNeXt": tiny_convnext,
}


def draw_views(count: int) -> npt.NDArray[np.uint8]:
    """Return coarse patterns, each of its own brightness, so that embeddings differ."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, random.integers(40, 256, (count, 1, 1)), (count, 7, 7))
    return coarse.astype(np.uint8).repeat(32, axis=1).repeat(32, axis=2)


VIEWS = draw_views(40)
EAGER = {
    name: build()(torch.from_numpy(VIEWS).unsqueeze(1).float()).numpy()
    for name, build in NETWORKS.items()
}
"""What torch gives on the CPU, all views at once."""

ROUNDING = MARGIN * max(
    sensitivity(build(), torch.from_numpy(VIEWS[:8]).unsqueeze(1).float())
    for build in NETWORKS.values()
)
"""How far two computations of an embedding may be apart, as a share of the largest value."""

Layer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def _convolution(layer: nn.Conv2d) -> Layer:
    weight, bias = layer.weight.numpy().copy(), layer.bias.numpy()[:, None, None].copy()
    (margin, _), (stride, _), size = layer.padding, layer.stride, layer.kernel_size

    def convolve(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        wide = np.pad(picture, ((0, 0), (margin, margin), (margin, margin)))
        windows = np.lib.stride_tricks.sliding_window_view(wide, size, axis=(1, 2))
        return np.tensordot(weight, windows[:, ::stride, ::stride], ([1, 2, 3], [0, 3, 4])) + bias

    return convolve


def _linear(layer: nn.Linear) -> Layer:
    weight, bias = layer.weight.numpy().copy(), layer.bias.numpy().copy()
    return lambda values: weight @ values + bias


def _pool(parts: int, reduce: Any) -> Layer:
    def pool(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        channels, height, width = picture.shape
        shape = (channels, parts, height // parts, parts, width // parts)
        return reduce(picture.reshape(shape), axis=(2, 4))

    return pool


LAYERS: Mapping[type[nn.Module], Callable[[Any], Layer]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.ReLU: lambda _: lambda values: np.maximum(values, 0),
    nn.Hardswish: lambda _: lambda values: values * np.clip(values + 3, 0, 6) / 6,
    nn.MaxPool2d: lambda _: _pool(28, np.max),
    nn.AdaptiveAvgPool2d: lambda layer: _pool(layer.output_size, np.mean),
    nn.Flatten: lambda _: np.ravel,
    nn.Identity: lambda _: lambda values: values,
}


class NumPyDevice:
    """A device that is none of torch's: it reads a model's layers and computes by itself."""

    name = "NumPy, one view at a time"

    def __init__(self) -> None:
        self.batch_size = 0
        self._layers: list[Layer] = []

    def prepare(self, model: FrozenBackbone, batch_size: int) -> None:
        """Read the layers in their order."""
        body: Any = model[1]
        targets = [str(node.target) for node in body.graph.nodes if node.op == "call_module"]
        modules = [model[0], *(body.get_submodule(target) for target in targets)]
        self._layers = [LAYERS[type(module)](module) for module in modules]
        self.batch_size = batch_size

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed a batch."""
        assert self._layers, "prepare() comes first"
        batch = padded(views, self.batch_size)[: len(views)]
        return np.stack([self._embed(view) for view in batch])

    def _embed(self, view: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        values = view[None].astype(np.float32)
        for layer in self._layers:
            values = layer(values)
        return values

    def versions(self) -> dict[str, str]:
        """Tell the version of NumPy."""
        return package_versions("numpy")


@dataclass(frozen=True)
class Case:
    """How a device is opened, and what it needs."""

    open: Callable[[], Device]
    is_here: bool = True
    tolerance: float = ROUNDING
    """The largest difference from torch on the CPU, as a share of the largest value."""
    by_place: float = 0.0
    """The same for an image in another place of a batch, with other neighbours."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that have to be set before its packages are imported: it has its own process."""
    chips: int = 1
    """How many share a batch, each the same number of views."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """Those that it can do."""


_HAS_XLA = find_spec("torch_xla") is not None
_CHIPS = find_tpu_chips()

DEVICES = {
    "cpu torch": Case(partial(open_device, "cpu")),
    "cpu torch bfloat16": Case(partial(open_device, "cpu", precision="bfloat16"), tolerance=0.02),
    "cpu winograd": Case(partial(open_device, "cpu", "winograd")),
    "cpu openvino": Case(
        partial(open_device, "cpu", "openvino"), find_spec("openvino") is not None
    ),
    "numpy": Case(NumPyDevice, networks=("convolutional",)),
    "cuda": Case(partial(open_device, "cuda"), torch.cuda.is_available(), by_place=ROUNDING),
    "tpu": Case(partial(open_device, "tpu"), bool(_CHIPS), by_place=ROUNDING, chips=len(_CHIPS)),
    "tpu-emulated of 1": Case(
        partial(open_device, "tpu-emulated"),
        _HAS_XLA,
        by_place=ROUNDING,
        environment={"CPU_NUM_DEVICES": "1"},
    ),
    "tpu-emulated of 4": Case(
        partial(open_device, "tpu-emulated"),
        _HAS_XLA,
        by_place=ROUNDING,
        chips=4,
        environment={"CPU_NUM_DEVICES": "4"},
    ),
}
APART = [name for name, case in DEVICES.items() if case.environment]
TOGETHER = [name for name in DEVICES if name not in APART]


@pytest.fixture(
    scope="module", params=os.environ.get(_ONLY, "").split(",") if _ONLY in os.environ else TOGETHER
)
def case(request: pytest.FixtureRequest) -> Case:
    """Return one row after another, of those that this process can open."""
    found = DEVICES[request.param]
    if not found.is_here:
        pytest.skip(f"this machine has no {request.param}")
    return found


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest, case: Case) -> str:
    """Return the name of one network after another, of those that the device can do."""
    if request.param not in case.networks:
        pytest.skip(f"it does no {request.param}")
    return str(request.param)


@pytest.fixture(scope="module")
def device(case: Case, network: str) -> Device:
    """Return a device that has the network."""
    opened = case.open()
    opened.prepare(NETWORKS[network](), BATCH_SIZE)
    return opened


class TestContract:
    """What stage one relies on, whatever the device."""

    def test_embeddings_have_a_shape_and_a_type(self, case: Case, device: Device) -> None:
        """A cache would get rows of another width, or of padding, or a chip be left idle."""
        assert device.batch_size == -(-BATCH_SIZE // case.chips) * case.chips
        for count in (1, BATCH_SIZE, device.batch_size):
            found = device.run(VIEWS[:count])
            assert found.shape == (count, WIDTH)
            assert found.dtype == np.float32

    def test_embeddings_are_those_of_torch(self, case: Case, device: Device, network: str) -> None:
        """A head that was trained on one device could not be used on another."""
        found = device.run(VIEWS[:BATCH_SIZE])
        expected = EAGER[network][:BATCH_SIZE]
        assert np.abs(found - expected).max() <= case.tolerance * np.abs(expected).max()
        assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()  # unlike each other

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(order=st.permutations(range(len(VIEWS))))
    def test_neighbours_do_not_matter(self, case: Case, device: Device, order: list[int]) -> None:
        """An embedding would depend on which images happen to come with it, and in what order.

        A compiler may add up in another order for another place: then by rounding alone.
        """
        first = VIEWS[: device.batch_size]
        alone = {number: device.run(first[[number]])[0] for number in range(len(first))}
        chosen = order[: device.batch_size]
        for number, row in zip(chosen, device.run(VIEWS[chosen]), strict=True):
            if number in alone:
                limit = case.by_place * np.abs(alone[number]).max()
                np.testing.assert_allclose(row, alone[number], rtol=0, atol=limit)

    def test_what_is_returned_stays(self, device: Device) -> None:
        """The next batch would write over the embeddings of the one before."""
        first = device.run(VIEWS[:2])
        kept = first.copy()
        device.run(VIEWS[2:4])
        np.testing.assert_array_equal(first, kept)

    def test_the_views_stay(self, device: Device) -> None:
        """What is stored of an image would be what a device has made of it."""
        views = VIEWS[:BATCH_SIZE].copy()
        device.run(views)
        np.testing.assert_array_equal(views, VIEWS[:BATCH_SIZE])

    def test_too_many_views_are_refused(self, device: Device) -> None:
        """A device that compiles would silently compile again for every other shape."""
        with pytest.raises(ValueError, match=f"at most {device.batch_size} views"):
            device.run(VIEWS[: device.batch_size + 1])

    def test_the_source_model_stays(self, case: Case, network: str) -> None:
        """A second device, or a check, would be given weights that the first has rounded."""
        model = NETWORKS[network]()
        before = copy.deepcopy(model)
        device = case.open()
        device.prepare(model, BATCH_SIZE)
        device.run(VIEWS[:1])
        after = model.state_dict()
        assert list(after) == list(before.state_dict())
        for name, weights in before.state_dict().items():
            assert after[name].dtype == weights.dtype
            assert after[name].device == weights.device
            assert torch.equal(after[name], weights)
        pictures = torch.from_numpy(VIEWS[:2]).unsqueeze(1).float()
        assert torch.equal(model(pictures), before(pictures))

    def test_opened_again_it_gives_the_same(self, case: Case, device: Device, network: str) -> None:
        """A run that was resumed would give other embeddings than one in a single piece."""
        again = case.open()
        again.prepare(NETWORKS[network](), BATCH_SIZE)
        assert again.name == device.name
        assert again.batch_size == device.batch_size
        np.testing.assert_array_equal(again.run(VIEWS[:3]), device.run(VIEWS[:3]))

    def test_it_has_to_be_prepared(self, case: Case, network: str) -> None:
        """Embeddings of the backbone before would be taken for this one's."""
        with pytest.raises(AssertionError, match="prepare"):
            case.open().run(VIEWS[:1])

    def test_it_says_what_it_is(self, device: Device) -> None:
        """Nobody could tell afterwards what has computed a cache."""
        assert device.name.strip() == device.name != ""
        assert "object at" not in device.name
        assert device.versions() == {name: version(name) for name in device.versions()} != {}


@pytest.mark.exhaustive("exhaustive grids")
@pytest.mark.parametrize("name", APART)
def test_the_contract_holds_in_a_process_of_its_own(name: str) -> None:
    """As above, for a device that must be chosen before its packages are imported."""
    if not DEVICES[name].is_here:
        pytest.skip(f"this machine has no {name}")
    promises = [promise for promise in vars(TestContract) if promise.startswith("test_")]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"{__file__}::TestContract",
        ],
        env=os.environ | DEVICES[name].environment | {_ONLY: name},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert f"{len(promises) * len(NETWORKS)} passed" in run.stdout
