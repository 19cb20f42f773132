"""The backbones: a table of torchvision classifiers, frozen and cut before their last layer."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gelkit.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """What gelkit knows of one backbone; a row of :data:`BACKBONES`.

    The embedding is what enters the model's last linear layer. The facts of the weights are
    torchvision's own, recorded so that a cache can be named without importing torch, and tested
    against its registry.
    """

    name: str
    torchvision_model: str
    """The name that ``torchvision.models.get_model`` knows."""
    last_layer: str
    """Dotted name of the last linear layer."""
    width: int
    """Length of an embedding."""
    parameters: int
    """Parameters of the whole model, last layer included."""
    giga_operations: float
    """Multiply-adds of one forward pass at 224 x 224, in 10^9, for rough estimates of time."""
    weights: str
    """torchvision's name of the default weights, never ``DEFAULT``."""
    weights_url: str
    """Where torchvision downloads them; the file's name holds the first digits of its SHA-256."""
    citation: str


BACKBONES: MutableMapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="resnet18",
            torchvision_model="resnet18",
            last_layer="fc",
            width=512,
            parameters=11_689_512,
            giga_operations=1.814,
            weights="ResNet18_Weights.IMAGENET1K_V1",
            weights_url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
            citation="He et al. 2016, doi:10.1109/CVPR.2016.90",
        ),
        Backbone(
            name="vgg16",
            torchvision_model="vgg16",
            last_layer="classifier.6",
            width=4096,
            parameters=138_357_544,
            giga_operations=15.47,
            weights="VGG16_Weights.IMAGENET1K_V1",
            weights_url="https://download.pytorch.org/models/vgg16-397923af.pth",
            citation="Simonyan and Zisserman 2015, arXiv:1409.1556",
        ),
        Backbone(
            name="mobilenet-v3",
            torchvision_model="mobilenet_v3_large",
            last_layer="classifier.3",
            width=1280,
            parameters=5_483_032,
            giga_operations=0.217,
            weights="MobileNet_V3_Large_Weights.IMAGENET1K_V1",
            weights_url="https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth",
            citation="Howard et al. 2019, doi:10.1109/ICCV.2019.00140",
        ),
    )
}
"""The backbones by name. A further row makes a further backbone; nothing else has to change."""


def get_backbone(name: str) -> Backbone:
    """Return a row of :data:`BACKBONES`.

    :raises UsageError: there is none of that name.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", name, BACKBONES)
    return BACKBONES[name]


def build_model(backbone: Backbone) -> nn.Module:
    """Build torchvision's whole model, initialised as torchvision does."""
    from torchvision.models import get_model

    model: nn.Module = get_model(backbone.torchvision_model, weights=None)
    return model


def freeze(model: nn.Module, backbone: Backbone) -> nn.Sequential:
    """Turn a whole model into one from grey views to embeddings, ready for inference.

    The result takes float32 (images x 1 x height x width) of 0 to 255 and gives float32
    (images x width). It is two modules: :func:`_grey_to_normalised` and the model. The last linear
    layer is replaced by nothing, and batch norm becomes part of the convolution before it, which
    changes the embedding by rounding alone. The model given is changed.
    """
    from torch import nn

    model = _with_folded_batch_norm(model.eval())
    parent, _, name = backbone.last_layer.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None  # inference needs no count, and XLA would compile it
    frozen = nn.Sequential(_grey_to_normalised(backbone), model)
    frozen.eval().requires_grad_(False)
    return frozen


def _with_folded_batch_norm(model: nn.Module) -> nn.Module:
    """Merge each batch norm whose input is one convolution's, and no other's, into that."""
    from torch import fx, nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    traced = fx.symbolic_trace(model)
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


def _grey_to_normalised(backbone: Backbone) -> nn.Module:
    """Copy grey to three channels, scale to 0 to 1 and normalise, as a 1 x 1 convolution.

    The constants are those of the weights' own preset: (grey / 255 - mean) / std.
    """
    import torch
    from torch import nn
    from torchvision.models import get_weight

    preset = get_weight(backbone.weights).transforms()
    mean, std = torch.tensor(preset.mean), torch.tensor(preset.std)
    layer = nn.Conv2d(1, 3, kernel_size=1)
    weight, bias = (1 / (255 * std)).reshape(3, 1, 1, 1), -mean / std
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
