"""The first layer: three equal channels of grey become one, where that is exact."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx, nn

from gelkit.features.backbones import Preprocessing

_TOLERANCE = 1e-4
"""Of the largest value: what changing the order of sums may change."""


def fold_grey(network: nn.Module, shown: Preprocessing) -> Preprocessing:
    """Have a network take one channel of normalised grey instead of three, where that is exact.

    The sum over equal channels is done once, on the weights of the first convolution. Where
    channels have each their own mean and deviation, what is left of these goes into its weights
    and bias, which is exact only if it does not pad: padding is not grey.

    :param network: the one to change, in evaluation mode.
    :param shown: how three channels are normalised.
    :returns: how what the network takes now is normalised: of one channel, or as given.
    """
    name = _first_convolution(network, shown)
    if name is None:
        return shown
    convolution = network.get_submodule(name)
    assert isinstance(convolution, nn.Conv2d)
    if not _is_exact(convolution, shown):
        return shown
    single = replace(shown, mean=(_average(shown.mean),), std=(_average(shown.std),))
    before = _output(network, shown)
    network.set_submodule(name, _folded(convolution, shown, single))
    if not _agrees(network, single, before):
        network.set_submodule(name, convolution)
        return shown
    return single


def _average(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _is_exact(convolution: nn.Conv2d, shown: Preprocessing) -> bool:
    is_plain = convolution.groups == 1 and convolution.in_channels == len(shown.mean) > 1
    is_even = len(set(shown.mean)) == len(set(shown.std)) == 1
    pads = convolution.padding not in ((0, 0), "valid")
    return is_plain and type(convolution) is nn.Conv2d and (is_even or not pads)


def _folded(convolution: nn.Conv2d, shown: Preprocessing, single: Preprocessing) -> nn.Conv2d:
    """Return the convolution of one channel that does the same, computed in float64.

    A channel is (grey - mean) / std, and the single one (grey - m) / s: the first is the second
    times s / std, plus (m - mean) / std.
    """
    weight = convolution.weight.detach().double()
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (shown.mean, shown.std))
    (m,), (s,) = single.mean, single.std
    summed = (weight * (s / std).reshape(1, -1, 1, 1)).sum(1, keepdim=True)
    shift = (weight * ((m - mean) / std).reshape(1, -1, 1, 1)).sum((1, 2, 3))
    bias = shift if convolution.bias is None else convolution.bias.detach().double() + shift
    folded = nn.Conv2d(
        1,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        convolution.dilation,  # type: ignore[arg-type]
        padding_mode=convolution.padding_mode,
    )
    folded.load_state_dict({"weight": summed, "bias": bias})
    return folded.eval()


def _first_convolution(network: nn.Module, shown: Preprocessing) -> str | None:
    """Return the name of the one module that is given the pictures, if it is a convolution."""
    if isinstance(network, fx.GraphModule):
        return _first_of_graph(network)
    return _first_called(network, shown)


def _first_of_graph(network: fx.GraphModule) -> str | None:
    node = next(node for node in network.graph.nodes if node.op == "placeholder")
    while True:
        users = [user for user in node.users if not _asks_for_the_shape(user)]
        if len(users) != 1 or users[0].op != "call_module":
            return None
        (node,) = users
        module = network.get_submodule(str(node.target))
        if isinstance(module, nn.Conv2d):
            return str(node.target)
        if not isinstance(module, nn.ZeroPad2d):
            return None


def _asks_for_the_shape(node: fx.Node) -> bool:
    return node.target == "size" or (node.target is getattr and node.args[1] == "shape")


def _first_called(network: nn.Module, shown: Preprocessing) -> str | None:
    """Find it by running the network: the convolutions whose input is the very pictures."""
    pictures = _pictures(shown)
    found: list[str] = []

    def note(name: str) -> object:
        def look(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if inputs and inputs[0].data_ptr() == pictures.data_ptr():
                found.append(name)

        return look

    hooks = [
        module.register_forward_pre_hook(note(name))  # type: ignore[arg-type]
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(pictures)
    for hook in hooks:
        hook.remove()
    return found[0] if len(found) == 1 else None


def _pictures(shown: Preprocessing) -> torch.Tensor:
    """Return one picture of random greys, normalised: (1 x channels x height x width)."""
    random = torch.Generator().manual_seed(0)
    grey = torch.rand(1, 1, shown.input_size, shown.input_size, generator=random)
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (shown.mean, shown.std))
    return (grey - mean) / std


def _output(network: nn.Module, shown: Preprocessing) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = network(_pictures(shown))
    return result


def _agrees(network: nn.Module, single: Preprocessing, before: torch.Tensor) -> bool:
    """Whether a network still gives what it gave: it may look at pictures in other ways."""
    try:
        after = _output(network, single)
    except Exception:  # it wants three channels, and says so in its own way
        return False
    return bool((after - before).abs().max() <= _TOLERANCE * before.abs().max())
