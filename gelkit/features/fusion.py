"""Fusion: convolutions that add and rectify what they compute before it leaves the cache."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from gelkit.features.winograd import WinogradConvolution, pays

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Hardswish: "hardswish",
    nn.SiLU: "swish",
}
"""Activations by what torch's oneDNN operators call them."""

_SUMS = (operator.add, operator.iadd, torch.add)


class FusedConvolution(nn.Module):
    """A convolution by oneDNN with its weights laid out beforehand and what follows fused in.

    :param shape: of the pictures to come, (images, channels, height, width).
    :param activation: a name of oneDNN's, or ``none``.
    """

    def __init__(self, convolution: nn.Conv2d, shape: Sequence[int], activation: str) -> None:
        super().__init__()
        assert not isinstance(convolution.padding, str)
        self._form = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        weight = convolution.weight.detach()
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._form, shape)
        self._bias = convolution.bias
        self._activation = activation

    def forward(self, pictures: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Convolve; ``added`` is added before the activation, and its memory takes the result.

        :param added: shares no memory with ``pictures``, which would be overwritten while it is
            read.
        """
        if added is None:
            convolved: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
                pictures, self._weight, self._bias, *self._form, self._activation, [], ""
            )
            return convolved
        activation = None if self._activation == "none" else self._activation
        torch.ops.mkldnn._convolution_pointwise_(
            added, pictures, self._weight, self._bias, *self._form, "add", 1.0, activation, [], ""
        )
        return added


_OWN_MEMORY = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, FusedConvolution, WinogradConvolution)
"""Modules whose result shares no memory with what they are given."""


@dataclass(frozen=True)
class _Followers:
    """What can be computed together with a convolution: a sum, then an activation."""

    last: fx.Node
    added: fx.Node | None = None
    activation: str = "none"


def fuse(body: nn.Module, shape: Sequence[int]) -> nn.Module:
    """Replace the convolutions of a traced model by fused ones, by Winograd's where that pays.

    The result gives the same in float32 to about 1e-5 of the largest value. The model given is
    changed.

    :param shape: of the batches to come, (images, channels, height, width).
    """
    assert isinstance(body, fx.GraphModule)
    with torch.inference_mode():
        ShapeProp(body).propagate(torch.zeros(*shape))  # type: ignore[no-untyped-call]
    for node in list(body.graph.nodes):
        convolution = _module(body, node)
        if isinstance(convolution, nn.Conv2d) and _is_plain(convolution):
            _replace(body, node, convolution)
    body.delete_all_unused_submodules()
    body.recompile()
    return body


def _replace(body: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d) -> None:
    """Put one fused convolution in the place of a convolution and of what follows it."""
    found = _followers(body, node)
    fused: nn.Module
    if pays(convolution) and found.activation in ("none", "relu"):
        fused = WinogradConvolution(convolution, rectify=found.activation == "relu")
    else:
        fused = FusedConvolution(convolution, _shape_of_input(node), found.activation)
    name = f"{node.name}_fused"
    body.add_submodule(name, fused)
    inputs = (node.args[0],) if found.added is None else (node.args[0], found.added)
    with body.graph.inserting_before(found.last):
        replacement = body.graph.call_module(name, inputs)
    replacement.meta = found.last.meta
    found.last.replace_all_uses_with(replacement)
    body.graph.eliminate_dead_code()


def _followers(body: fx.GraphModule, node: fx.Node) -> _Followers:
    found = _Followers(node)
    user = _only_user(node)
    if user is not None and user.target in _SUMS and _may_be_overwritten(body, user, node):
        other = next(argument for argument in user.args if argument is not node)
        assert isinstance(other, fx.Node)
        found, user = _Followers(user, other), _only_user(user)
    module = None if user is None else _module(body, user)
    activation = None if module is None else _ACTIVATIONS.get(type(module))
    if user is None or activation is None or (found.added is not None and activation != "relu"):
        return found  # after a sum oneDNN knows ReLU alone
    return _Followers(user, found.added, activation)


def _may_be_overwritten(body: fx.GraphModule, total: fx.Node, node: fx.Node) -> bool:
    """Whether what a sum adds to a convolution is read by nothing else once that begins.

    oneDNN writes the sum into the memory of what is added while it convolves. Where that is what
    the convolution reads, it reads what it has written, and what comes out is wrong.
    """
    others = [argument for argument in total.args if argument is not node]
    if len(others) != 1 or not isinstance(others[0], fx.Node):
        return False
    other = others[0]
    same_shape = other.meta["tensor_meta"].shape == node.meta["tensor_meta"].shape
    order = list(body.graph.nodes)
    readers = [user for user in other.users if user is not total]
    return (
        _has_own_memory(body, other)
        and same_shape
        and all(_has_own_memory(body, user) for user in readers)  # no second name for it
        and all(user is not node and order.index(user) < order.index(total) for user in readers)
    )


def _has_own_memory(body: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node's result shares no memory with anything that the node is given."""
    return isinstance(_module(body, node), _OWN_MEMORY)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _module(body: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return body.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_plain(convolution: nn.Conv2d) -> bool:
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _shape_of_input(node: fx.Node) -> list[int]:
    (source, *_) = node.args
    assert isinstance(source, fx.Node)
    return list(source.meta["tensor_meta"].shape)
