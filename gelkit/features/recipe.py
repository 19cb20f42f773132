"""The recipe: everything that decides an embedding, given the image's bytes and the view."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gelkit.errors import UnknownNameError, UsageError
from gelkit.features.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    Preprocessing,
    get_backbone,
)
from gelkit.features.libraries import resized
from gelkit.features.weights import identify_weights, with_weights
from gelkit.features.weights_files import PRETRAINED, WeightsIdentity
from gelkit.images.augmentations import DEFAULT_AUGMENTATIONS, require_augmentations
from gelkit.images.formats import DECODE_VERSION, DecodeOptions
from gelkit.images.views import VIEW_VERSION, require_view_options
from gelkit.systems import SYSTEM

HARDWARE = ("cpu", "tpu", "cuda")
"""The hardware that can be asked for."""

PRECISIONS = {
    "float32": "32 bits throughout",
    "bfloat16": "8 significant bits for weights and products",
}


@dataclass(frozen=True)
class Kernel:
    """What can compute the forward pass on the CPU; a row of :data:`CPU_KERNELS`."""

    about: str
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    """Names of :data:`PRECISIONS`."""
    package: str = "torch"
    """What has to be installed."""


CPU_KERNELS = {
    "torch": Kernel("torch itself, batch norm folded, channels last"),
    "winograd": Kernel(
        "torch with what follows a convolution fused into it, and Winograd's algorithm for those "
        "of 3 x 3",
        precisions=("float32",),  # its sums of large terms leave little of 8 bits
    ),
    "openvino": Kernel("OpenVINO, from gelkit's extra 'fast'", package="openvino"),
}
"""The kernels by name."""

_KERNEL_ELSEWHERE = {"tpu": "torch-xla-highest", "tpu-emulated": "torch-xla-highest"}
"""``highest`` is XLA's precision of products; on CUDA it is ``torch``."""


@dataclass(frozen=True)
class RecipeOptions:
    """What a user may choose of a recipe, apart from backbone and hardware."""

    weights: str = PRETRAINED[0]
    """``pretrained`` (``imagenet`` is the older word for that), ``random``, ``auto``, the name of
    torchvision weights, or a file's path."""
    weights_seed: int = 0
    """Seed of ``random`` weights."""
    weights_dir: Path | None = None
    """A folder that holds downloaded weights files; None: torch's own download folder."""
    geometry: str = "stretch"
    """A name of :data:`gelkit.images.views.GEOMETRIES`."""
    window: str = "percentile"
    """A name of :data:`gelkit.images.views.WINDOWS`."""
    polarity: str = "keep"
    """A name of :data:`gelkit.images.formats.POLARITIES`."""
    guess_polarity: bool = False
    """Guess the background of images whose file does not tell it."""
    page: int | None = None
    """From 1: of files with several pages or frames; None: the one that is clearly the picture.
    Where the catalog names an image's page, that one is taken."""
    channel: int | None = None
    """From 1: of files with several channels."""
    augmentations: tuple[str, ...] = DEFAULT_AUGMENTATIONS
    """Names of :data:`gelkit.images.augmentations.AUGMENTATIONS`, for views other than view 0."""
    precision: str = "float32"
    """A name of :data:`PRECISIONS`."""
    kernel: str = "torch"
    """A name of :data:`CPU_KERNELS`: what computes on ``cpu``."""
    input_size: int | None = None
    """Pixels along each side of what the backbone is shown; None: what its weights want."""
    emulate_tpu: bool = False
    """Run ``tpu`` on XLA's CPU client."""

    def __post_init__(self) -> None:
        if self.weights in PRETRAINED:  # one word for it, so that options compare equal
            object.__setattr__(self, "weights", PRETRAINED[0])

    @property
    def decoding(self) -> DecodeOptions:
        """What concerns the reading of image files.

        :raises UsageError: an unknown polarity, or a page or channel below 1.
        """
        return DecodeOptions(self.polarity, self.guess_polarity, self.page, self.channel)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an embedding. Two recipes are the same if all fields are."""

    backbone: str
    weights: str
    """torchvision's name of the weights, ``random`` or ``file``."""
    weights_sha256: str
    """SHA-256 of the weights file (of torchvision's files the 8 digits it publishes), or empty."""
    weights_seed: int | None
    weights_scheme: str
    """How ``random`` weights are made, or empty."""
    layer: str
    """The embedding is what enters this layer."""
    view_size: int
    view_version: int
    geometry: str
    window: str
    augmentations: str
    """Of augmented views, names joined by commas; empty for view 0, whose cache is another."""
    polarity: str
    guess_polarity: bool
    page: int | None
    channel: int | None
    decode_version: int
    precision: str
    kernel: str
    hardware: str
    """``cpu``, ``tpu``, ``tpu-emulated`` or ``cuda``."""
    interpolation: str = "bilinear"
    """A name of :data:`gelkit.images.views.INTERPOLATIONS`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Of each channel, of values of 0 to 1."""
    std: tuple[float, ...] = IMAGENET_STD
    """The standard deviation of each channel, likewise."""
    weights_revision: str = ""
    """For weights from the Hugging Face hub: repository, commit and file."""
    backbone_version: str = ""
    """For a network of the user's own: the version that its owner gave it."""

    @property
    def network(self) -> Backbone:
        """The backbone, as this recipe shows it pictures.

        :raises UsageError: there is none of that name here.
        """
        shown = Preprocessing(self.view_size, self.interpolation, self.mean, self.std)
        return replace(get_backbone(self.backbone), preprocessing=shown)

    @property
    def decoding(self) -> DecodeOptions:
        """What concerns the reading of image files."""
        return DecodeOptions(self.polarity, self.guess_polarity, self.page, self.channel)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the recipe's canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """What the cache's folder is called: for people, and the first 8 digits for truth."""
        weights = self.weights.rpartition(".")[2].lower()
        augmented = "-augmented" if self.augmentations else ""
        name = self.backbone.replace("/", "-")
        digits = self.sha256[:8]
        return SYSTEM.allowed(f"{name}-{weights}-{self.hardware}{augmented}-{digits}")

    def to_json(self) -> str:
        """Return the recipe as canonical JSON.

        A field that older versions had not is left out while it says what they meant, so that
        their caches keep their names.
        """
        values = asdict(self)
        implied = {name for name, value in _IMPLIED.items() if values[name] == value}
        return json.dumps({name: values[name] for name in values.keys() - implied}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what :meth:`to_json` wrote.

        :raises ValueError: it is no recipe of this version.
        """
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Recipe:
        """Make a recipe of its fields' values, which may come from JSON, or an older version.

        :raises ValueError: it is no recipe of this version.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not names - _IMPLIED.keys() <= set(values) <= names:
            raise ValueError(f"expected a recipe with the fields {', '.join(sorted(names))}")
        typed: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**typed)

    def differences(self, other: Recipe) -> str:
        """Name the fields in which two recipes differ, with both values."""
        mine, others = asdict(self), asdict(other)
        return "; ".join(
            f"{name}: {mine[name]!r} here, {others[name]!r} there"
            for name in mine
            if mine[name] != others[name]
        )


_IMPLIED = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
"""Fields that recipes of older versions had not, and what those meant."""


def make_recipe(
    backbone: str,
    hardware: str,
    options: RecipeOptions | None = None,
    *,
    augmented: bool = False,
) -> Recipe:
    """Put together the recipe of a backbone on a hardware type. Imports no torch.

    :param hardware: as asked for: ``cpu``, ``tpu`` or ``cuda``.
    :param augmented: of the views other than view 0, which no augmentation touches.
    :raises UsageError: a name is not known, or the weights are still ``auto``.
    :raises WeightsError: the weights are a file that cannot be read.
    """
    options = options or RecipeOptions()
    require_view_options(options.geometry, options.window)
    for kind, given, known in (
        ("hardware", hardware, HARDWARE),
        ("precision", options.precision, PRECISIONS),
        ("kernel", options.kernel, CPU_KERNELS),
    ):
        if given not in known:
            raise UnknownNameError(kind, given, known)
    if hardware == "cpu":
        _require_precision(CPU_KERNELS[options.kernel], options)
    row = choose_backbone(backbone, options)
    weights = identify_weights(row, options.weights, options.weights_seed, options.weights_dir)
    resolved = "tpu-emulated" if hardware == "tpu" and options.emulate_tpu else hardware
    names = require_augmentations(options.augmentations)
    recipe = _recipe(row, weights, options, resolved)
    return replace(recipe, augmentations=",".join(names)) if augmented else recipe


def choose_backbone(name: str, options: RecipeOptions) -> Backbone:
    """Return a backbone that shows pictures as the options' weights and input size want it.

    :raises UsageError: there is none of that name, or it takes no pictures of that size.
    """
    row = with_weights(get_backbone(name), options.weights)
    return row if options.input_size is None else resized(row, options.input_size)


def _require_precision(kernel: Kernel, options: RecipeOptions) -> None:
    if options.precision not in kernel.precisions:
        raise UsageError(
            f"Expected the precision {' or '.join(kernel.precisions)} with the kernel "
            f"{options.kernel!r}. Received: {options.precision!r}. Choose another --kernel, or "
            "leave --precision out."
        )


def _recipe(
    backbone: Backbone, weights: WeightsIdentity, options: RecipeOptions, hardware: str
) -> Recipe:
    shown = backbone.preprocessing
    return Recipe(
        backbone=backbone.name,
        weights=weights.name,
        weights_sha256=weights.sha256,
        weights_seed=weights.seed,
        weights_scheme=weights.scheme,
        layer=backbone.layer,
        view_size=shown.input_size,
        view_version=VIEW_VERSION,
        geometry=options.geometry,
        window=options.window,
        augmentations="",
        **asdict(options.decoding),
        decode_version=DECODE_VERSION,
        precision=options.precision,
        kernel=options.kernel if hardware == "cpu" else _KERNEL_ELSEWHERE.get(hardware, "torch"),
        hardware=hardware,
        interpolation=shown.interpolation,
        mean=shown.mean,
        std=shown.std,
        weights_revision=weights.revision,
        backbone_version="" if backbone.own is None else backbone.own.version,
    )
