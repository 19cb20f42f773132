"""Freezing: a whole model becomes one from grey views to embeddings, ready for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gelkit.features.backbones import POOLED, Backbone, Preprocessing
from gelkit.features.plain_layers import use_plain_layers

if TYPE_CHECKING:
    from torch import nn

    from gelkit.features.frozen import FrozenBackbone


def freeze(model: nn.Module, backbone: Backbone) -> FrozenBackbone:
    """Turn a whole model into one from grey views to embeddings, ready for inference.

    The result takes float32 (images x 1 x height x width) of 0 to 255 and gives float32
    (images x width). It is two modules: one that normalises greys, and the model. The last linear
    layer is replaced by nothing. Where the model can be traced, batch norm becomes part of the
    convolution before it; where grey can be folded into the first layer, that is done. Both change
    the embedding by rounding alone. The model given is changed.
    """
    from gelkit.features.first_layer import fold_grey
    from gelkit.features.frozen import FrozenBackbone

    model.eval()
    _cut(model, backbone)
    if backbone.library == "timm":
        use_plain_layers(model, backbone.preprocessing.input_size)
    network = _traced(model)
    shown = fold_grey(network, backbone.preprocessing)
    frozen = FrozenBackbone(_normalising(shown), network, backbone.name, shown.input_size)
    _forget_counts(frozen)
    frozen.eval().requires_grad_(False)
    return frozen


def _cut(model: nn.Module, backbone: Backbone) -> None:
    """Take away the classifier; a network of the user's own has none."""
    from torch import nn

    if backbone.own is not None:
        return
    if backbone.layer == POOLED:
        model.reset_classifier(0)  # type: ignore[operator]
        return
    parent, _, name = backbone.layer.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def _forget_counts(model: nn.Module) -> None:
    """Have batch norm count no batches: inference needs no count, and XLA would compile it."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.num_batches_tracked = None


def _traced(model: nn.Module) -> nn.Module:
    """Merge each batch norm whose input is one convolution's, and no other's, into that.

    A model that cannot be traced stays as it is.
    """
    from torch import fx, nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    try:
        traced = fx.symbolic_trace(model)
    except Exception:  # models run whatever they like, and tracing fails as variously
        return model
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        convolution = modules.get(before.target) if before.op == "call_module" else None
        if isinstance(convolution, nn.Conv2d) and len(before.users) == 1:
            fused = fuse_conv_bn_eval(convolution, modules[node.target])
            traced.set_submodule(before.target, fused)
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _normalising(shown: Preprocessing) -> nn.Conv2d:
    """Copy grey to the channels, scale to 0 to 1 and normalise, as a 1 x 1 convolution.

    The constants are those of the weights' own preset: (grey / 255 - mean) / std.
    """
    import torch
    from torch import nn

    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (shown.mean, shown.std))
    layer = nn.Conv2d(1, len(mean), kernel_size=1)
    weight, bias = (1 / (255 * std)).reshape(-1, 1, 1, 1), -mean / std
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
