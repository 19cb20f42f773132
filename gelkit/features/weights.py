"""Weights: named, found, verified before they are opened, or made at random."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone
from gelkit.features.hub_weights import describe_hub, find_hub, identify_hub, require_hub
from gelkit.features.libraries import build_model
from gelkit.features.own_networks import AS_BUILT, build_own, hash_state
from gelkit.features.packaged_weights import (
    describe_packaged,
    find_packaged,
    identify_packaged,
    require_packaged,
)
from gelkit.features.timm_models import build_with_weights_of_timm
from gelkit.features.torchvision_models import registered_weights, without_auxiliary_heads
from gelkit.features.torchvision_weights import (
    describe_registered,
    find_registered,
    identify_registered,
    registered,
    require_registered,
)
from gelkit.features.weights_files import (
    PRETRAINED,
    WeightsError,
    WeightsIdentity,
    hash_file,
    is_path,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

_UNREADABLE = (
    AssertionError,
    AttributeError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What torch and timm raise for a file that holds no weights, or those of another model."""
_CALIBRATION_IMAGES = 32
_USUAL = (*PRETRAINED, "random", "auto")
"""Words for weights that are not the name of any."""


@dataclass(frozen=True)
class Source:
    """Where weights come from that have a name: a row of those below.

    Each takes the backbone, the name of the weights, and the folder of weights files or None.
    """

    identify: Callable[[Backbone, str, Path | None], WeightsIdentity]
    find: Callable[[Backbone, str, Path | None], Path | None]
    """Return a file's path, fetched if need be; None where the network brings its weights."""
    require: Callable[[Backbone, str, Path, str, Path | None], None]
    """Check a file that was found, with its SHA-256, before it is opened."""
    describe: Callable[[Backbone, Path | None], str]
    """Say whether the default weights are here, or where they come from; asks no network."""


_PACKAGE = Source(identify_packaged, find_packaged, require_packaged, describe_packaged)
_REGISTRY = Source(identify_registered, find_registered, require_registered, describe_registered)
_HUB = Source(identify_hub, find_hub, require_hub, describe_hub)


def _source(backbone: Backbone) -> Source:
    if backbone.packaged is not None:
        return _PACKAGE
    return _HUB if backbone.library == "timm" else _REGISTRY


def describe_availability(backbone: Backbone, weights_dir: Path | None = None) -> str:
    """Say whether a backbone's default weights are here, or where they come from.

    Nothing is downloaded, opened or verified.
    """
    if backbone.own is not None:
        return "its own"
    return _source(backbone).describe(backbone, weights_dir)


def _as_built(backbone: Backbone, weights: str) -> WeightsIdentity:
    if weights not in (*PRETRAINED, "auto", AS_BUILT):
        raise UsageError(
            f"Expected the weights pretrained, or the path of a file, for {backbone.name}: a "
            f"network of one's own brings its weights. Received: {weights!r}."
        )
    return WeightsIdentity(AS_BUILT)


def random_scheme(library: str) -> str:
    """Name how random weights are made: as the library does, then batch norm is calibrated."""
    return f"{library}-init-calibrated-1"


def with_weights(backbone: Backbone, weights: str) -> Backbone:
    """Return a backbone that is shown what other weights of it were trained on.

    :raises UsageError: torchvision registers no such weights.
    """
    if weights in _USUAL or is_path(weights) or backbone.library != "torchvision":
        return backbone
    name, url = registered(backbone, weights)
    if name == backbone.weights:
        return backbone
    shown = registered_weights(backbone.model)[name.rpartition(".")[2]][1]
    return replace(backbone, weights=name, weights_url=url, preprocessing=shown)


def identify_weights(
    backbone: Backbone, weights: str, seed: int = 0, weights_dir: Path | None = None
) -> WeightsIdentity:
    """Tell the identity of weights without opening them.

    Of torchvision's and packaged files it is known without having them.

    :param weights: ``pretrained`` (the backbone's default), ``random``, torchvision's name of
        weights (``IMAGENET1K_V2`` or in full), or a path.
    :raises UsageError: not such a thing.
    :raises WeightsError: a path that cannot be read, or weights that nothing here says anything of.
    """
    if backbone.own is not None and not is_path(weights):
        return _as_built(backbone, weights)
    if weights == "random":
        return WeightsIdentity("random", seed=seed, scheme=random_scheme(backbone.library))
    if is_path(weights):
        return WeightsIdentity("file", sha256=hash_file(Path(weights)))
    return _source(backbone).identify(backbone, weights, weights_dir)


def load_weights(
    backbone: Backbone, weights: str, seed: int = 0, weights_dir: Path | None = None
) -> tuple[nn.Module, str]:
    """Build the whole model with its weights.

    :returns: the model on the CPU, and the full SHA-256 of the weights file (empty if random); of a
        network of the user's own that of its state.
    :raises WeightsError: the weights cannot be had, or are not what they are called.
    """
    if backbone.own is not None and not is_path(weights):
        model = build_own(backbone, seed)
        return model, hash_state(model)
    if weights == "random":
        return _random_model(backbone, seed), ""
    path = find_weights(backbone, weights, weights_dir)
    assert path is not None
    sha256 = hash_file(path)
    if not is_path(weights):
        _source(backbone).require(backbone, weights, path, sha256, weights_dir)
    return _loaded(backbone, path, in_order=_is_packaged(backbone, sha256)), sha256


def find_weights(backbone: Backbone, weights: str, weights_dir: Path | None = None) -> Path | None:
    """Return the path of a weights file, downloaded if need be.

    None: there is no file, as the network is the user's own and brings its weights.

    :param weights_dir: look in this folder (and among installed packages), and never download.
    :raises WeightsError: it cannot be had.
    """
    if is_path(weights):
        return Path(weights)
    if backbone.own is not None:
        return None
    return _source(backbone).find(backbone, weights, weights_dir)


def verify_weights(backbone: Backbone, folder: Path) -> Path:
    """Return where a folder has a backbone's default weights, without opening them.

    :raises WeightsError: they are not there, or are not what they are called.
    """
    path = find_weights(backbone, PRETRAINED[0], folder)
    assert path is not None
    _source(backbone).require(backbone, PRETRAINED[0], path, hash_file(path), folder)
    return path


def _is_packaged(backbone: Backbone, sha256: str) -> bool:
    return backbone.packaged is not None and backbone.packaged.sha256 == sha256


def _loaded(backbone: Backbone, path: Path, *, in_order: bool) -> nn.Module:
    """Build a model from a verified file; unpickling is restricted to tensors all the same.

    :param in_order: the file's tensors have other names than the model's, but the same order.
    """
    try:
        if path.suffix == ".safetensors":
            _require_safetensors(path)
        if backbone.library == "timm" and not in_order:
            return build_with_weights_of_timm(backbone, str(path))
        model = build_model(backbone)
        state = without_auxiliary_heads(backbone.model, _read_state(path))
        if in_order:
            state = dict(zip(model.state_dict(), state.values(), strict=True))
        model.load_state_dict(state)
    except _UNREADABLE as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(
            f"Expected the weights of {backbone.name}, as torch or safetensors save them. "
            f"Received: {path}, {reason} Give a file that matches the backbone."
        ) from error
    return model


def _require_safetensors(path: Path) -> None:
    """Check that a file's header is whole, with an error of Python's own if it is not."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise WeightsError(
            f"Expected the package safetensors, to read {path}. Received: it is not installed. "
            'Install it with pip install "gelkit[timm]".'
        ) from error
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_state(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _random_model(backbone: Backbone, seed: int) -> nn.Module:
    """Initialise as torchvision does, then let batch norm see generated images.

    Without this calibration the embeddings of an untrained mobilenet-v3 all but vanish.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build_model(backbone)
        _calibrate_batch_norm(model, backbone.preprocessing.input_size)
    return model


def _calibrate_batch_norm(model: nn.Module, input_size: int) -> None:
    from torch import nn

    model.eval()
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    norms = [module for module in model.modules() if isinstance(module, kinds)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain average of what is seen
        norm.train()  # alone: dropout and dropped layers would be no part of what is frozen
    model(_generated_images(input_size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _generated_images(size: int) -> torch.Tensor:
    """Return smooth noise, normalised like views are: float32 (images x 3 x size x size)."""
    import torch
    from torch.nn.functional import interpolate

    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(_CALIBRATION_IMAGES, 1, 14, 14, generator=generator)
    fine = torch.randn(_CALIBRATION_IMAGES, 1, size, size, generator=generator)
    smooth = interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return (smooth + 0.1 * fine).expand(-1, 3, -1, -1)
