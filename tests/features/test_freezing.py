"""Freezing: what is folded or rewritten changes an embedding by rounding alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import fx, nn

from gelkit.features.backbones import Backbone, Preprocessing
from gelkit.features.devices import DeviceError
from gelkit.features.freezing import freeze
from gelkit.features.hardware import open_device

SIZE = 32
EQUAL = Preprocessing(SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
IMAGENET = Preprocessing(SIZE)
VIEWS = torch.randint(0, 256, (4, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0))


class _Network(nn.Module):
    """A little network, which may look at its pictures in a way that cannot be traced."""

    def __init__(self, first: nn.Module, *, looks: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.first, self.looks = first, looks
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean.normal_()
        self.last = nn.Linear(8, 2)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.looks(pictures)
        values = self.norm(self.first(pictures)).relu().mean((2, 3))
        result: torch.Tensor = self.last(values)
        return result


def _unpadded() -> nn.Module:
    return nn.Conv2d(3, 8, 4, stride=4)


def _padded() -> nn.Module:
    return nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)


def _in_groups() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1))


LOOKS: dict[str, Callable[[torch.Tensor], object]] = {
    "nothing": lambda pictures: None,
    "the shape": lambda pictures: pictures.shape[-1],
    "values, and cannot be traced": lambda pictures: bool(pictures.sum() > 0),
    "channels": lambda pictures: pictures[:, 2].sum() and None,
    "channels, and cannot be traced": lambda pictures: bool(pictures[0, 2].sum() > 0),
}

CASES = {
    "equal channels": (_padded, EQUAL, "nothing", 1),
    "each its own, no padding": (_unpadded, IMAGENET, "nothing", 1),
    "each its own, padding": (_padded, IMAGENET, "nothing", 3),
    "groups": (_in_groups, EQUAL, "nothing", 3),
    "asks for the shape": (_unpadded, IMAGENET, "the shape", 1),
    "untraced": (_unpadded, IMAGENET, "values, and cannot be traced", 1),
    "untraced and padded": (_padded, IMAGENET, "values, and cannot be traced", 3),
    "looks at channels": (_unpadded, EQUAL, "channels", 3),
    "looks at channels, untraced": (_unpadded, EQUAL, "channels, and cannot be traced", 3),
}


def _row(shown: Preprocessing) -> Backbone:
    return Backbone("little", "torchvision", "little", "last", 8, 0, 0.0, "", preprocessing=shown)


@pytest.mark.parametrize(("first", "shown", "looks", "channels"), CASES.values(), ids=CASES)
def test_grey_is_folded_where_that_is_exact(
    first: Callable[[], nn.Module], shown: Preprocessing, looks: str, channels: int
) -> None:
    """Embeddings would differ from the network's own at the borders, or all over."""
    torch.manual_seed(0)
    model = _Network(first(), looks=LOOKS[looks]).eval()
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (shown.mean, shown.std))
    pictures = (VIEWS.expand(-1, 3, -1, -1) / 255 - mean) / std
    with torch.no_grad():
        values = model.norm(model.first(pictures)).relu().mean((2, 3))
        frozen = freeze(model, _row(shown))
        found = frozen(VIEWS.float())
    np.testing.assert_allclose(found, values, atol=1e-5 * float(values.abs().max()))
    assert frozen.channels == channels
    assert frozen.example(2).shape == (2, channels, SIZE, SIZE)


def test_what_cannot_be_traced_runs_untraced_and_winograd_says_so() -> None:
    """A network with a condition in it could not be used, or a kernel fail with an assertion."""
    torch.manual_seed(0)
    model = _Network(_padded(), looks=LOOKS["values, and cannot be traced"])
    frozen = freeze(model, _row(IMAGENET))
    assert not frozen.is_traced
    device = open_device("cpu")
    device.prepare(frozen, 4)
    found = device.run(VIEWS[:, 0].byte().numpy())
    np.testing.assert_allclose(found, frozen(VIEWS.float()), atol=1e-5)
    with pytest.raises(DeviceError, match=r"--kernel winograd\. Received: little, .* --kernel out"):
        open_device("cpu", "winograd").prepare(frozen, 4)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")
@pytest.mark.parametrize(("kernel", "size"), [(3, 33), (3, 32), (5, 20), (4, 32)])
def test_layers_of_timm_become_torchs_own(kernel: int, size: int) -> None:
    """Padding would be a pixel off, or an activation be lost, in all networks of TensorFlow's."""
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d

    torch.manual_seed(0)
    body = nn.Sequential(
        Conv2dSame(3, 8, kernel, stride=2),
        BatchNormAct2d(8, act_layer=nn.SiLU),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    body[1].running_mean.normal_()
    model = nn.Sequential()
    model.add_module("body", body.eval())
    model.add_module("last", nn.Linear(32, 2))
    shown = Preprocessing(size)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (shown.mean, shown.std))
    views = torch.randint(0, 256, (2, 1, size, size)).float()
    with torch.no_grad():
        expected = body((views.expand(-1, 3, -1, -1) / 255 - mean) / std)
        row = Backbone("of timm", "timm", "", "last", 32, 0, 0.0, "", preprocessing=shown)
        frozen = freeze(model, row)
        np.testing.assert_allclose(frozen(views), expected, atol=1e-5)
    assert isinstance(frozen[1], fx.GraphModule)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
