"""timm's layers in terms of torch's own, so that its networks can be traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from timm.layers.norm_act import BatchNormAct2d
    from torch import nn


def use_plain_layers(model: nn.Module, input_size: int) -> None:
    """Replace, in a model in evaluation mode, two layers of timm's that cannot be traced.

    Batch norm that applies an activation becomes a batch norm and an activation, and padding that
    depends on the size of a picture that of the pictures to come. Results stay the same.

    :param input_size: pixels along each side.
    """
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d

    margins = dict(_margins(model, Conv2dSame, input_size))
    for name, module in list(model.named_modules()):
        if type(module) is BatchNormAct2d:
            model.set_submodule(name, _separated(module))
        elif type(module) is Conv2dSame:
            model.set_submodule(name, _padded(module, margins[name]))


def _separated(norm: BatchNormAct2d) -> nn.Module:
    """Return the batch norm and the activation of a ``BatchNormAct2d``, one after the other."""
    from torch import nn

    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine)
    plain.load_state_dict(norm.state_dict(), strict=False)
    return nn.Sequential(plain, norm.act).eval()


def _padded(convolution: nn.Conv2d, margins: tuple[int, int, int, int]) -> nn.Module:
    """Return a convolution that pads by fixed margins: left, right, top, bottom."""
    from torch import nn

    left, right, top, bottom = margins
    is_even = left == right and top == bottom
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        (top, left) if is_even else 0,
        convolution.dilation,  # type: ignore[arg-type]
        convolution.groups,
        convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    return plain.eval() if is_even else nn.Sequential(nn.ZeroPad2d(margins), plain).eval()


def _margins(
    model: nn.Module, kind: type[nn.Conv2d], input_size: int
) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Yield what convolutions of a kind pad pictures of a size by: left, right, top, bottom."""
    import torch

    sizes: dict[str, torch.Size] = {}
    convolutions = {name: its for name, its in model.named_modules() if type(its) is kind}
    if not convolutions:
        return
    with _watched(convolutions, sizes), torch.no_grad():
        model(torch.zeros(1, 3, input_size, input_size))
    for name, its in convolutions.items():
        height, width = (
            max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, stride, kernel, dilation in zip(
                sizes[name][-2:], its.stride, its.kernel_size, its.dilation, strict=True
            )
        )
        yield name, (width // 2, width - width // 2, height // 2, height - height // 2)


@contextmanager
def _watched(modules: dict[str, nn.Conv2d], sizes: dict[str, torch.Size]) -> Iterator[None]:
    """Note the shapes of what modules are given."""

    def note(name: str, _: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        sizes[name] = inputs[0].shape

    hooks = [its.register_forward_pre_hook(partial(note, name)) for name, its in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
