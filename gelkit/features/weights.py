"""Weights: named, fetched, verified before they are opened, or made at random."""

from __future__ import annotations

import pickle
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone
from gelkit.features.libraries import build_model
from gelkit.features.packaged_weights import find_packaged, require_packaged
from gelkit.features.torchvision_models import registered_weights
from gelkit.features.weights_files import WeightsError, hash_file, is_path

if TYPE_CHECKING:
    import torch
    from torch import nn

_RANDOM_SCHEME = "{library}-init-calibrated-1"
"""The library's own initialisation, then batch norm calibrated on generated images."""

_DOWNLOAD_TIMEOUT_SECS = 30.0
_UNREADABLE = (
    AttributeError,
    EOFError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What torch raises for a file that holds no weights, or those of another model."""
_CALIBRATION_IMAGES = 32
_USUAL = ("imagenet", "random", "auto")
"""Words for weights that are not the name of any."""


@dataclass(frozen=True)
class WeightsIdentity:
    """What a recipe says of weights."""

    name: str
    """torchvision's name, ``random`` or ``file``."""
    sha256: str = ""
    """Of a file: its SHA-256; of torchvision's files: the 8 digits that torchvision publishes."""
    seed: int | None = None
    scheme: str = ""


def with_weights(backbone: Backbone, weights: str) -> Backbone:
    """Return a backbone that is shown what other weights of it were trained on.

    :raises UsageError: torchvision registers no such weights.
    """
    if weights in _USUAL or is_path(weights) or backbone.library != "torchvision":
        return backbone
    name, url = _registered(backbone, weights)
    if name == backbone.weights:
        return backbone
    shown = registered_weights(backbone.model)[name.rpartition(".")[2]][1]
    return replace(backbone, weights=name, weights_url=url, preprocessing=shown)


def identify_weights(backbone: Backbone, weights: str, seed: int = 0) -> WeightsIdentity:
    """Tell the identity of weights without opening, or needing, torchvision's files.

    :param weights: ``imagenet`` (the backbone's default), ``random``, torchvision's name of
        weights (``IMAGENET1K_V2`` or in full), or a path.
    :raises UsageError: not such a thing.
    :raises WeightsError: a path that cannot be read.
    """
    if weights == "random":
        scheme = _RANDOM_SCHEME.format(library=backbone.library)
        return WeightsIdentity("random", seed=seed, scheme=scheme)
    if is_path(weights):
        return WeightsIdentity("file", sha256=hash_file(Path(weights)))
    if backbone.packaged is not None:
        _require_default(backbone, weights)
        return WeightsIdentity(backbone.weights, sha256=backbone.packaged.sha256)
    name, url = _registered(backbone, weights)
    return WeightsIdentity(name, sha256=_published_digits(url))


def load_weights(
    backbone: Backbone, weights: str, seed: int = 0, weights_dir: Path | None = None
) -> tuple[nn.Module, str]:
    """Build the whole model with its weights.

    :returns: the model on the CPU, and the full SHA-256 of the weights file (empty if random).
    :raises WeightsError: the weights cannot be had, or are not what they are called.
    """
    if weights == "random":
        return _random_model(backbone, seed), ""
    path = find_weights(backbone, weights, weights_dir)
    sha256 = hash_file(path)
    if not is_path(weights):
        _require_published(backbone, weights, path, sha256, is_downloaded=weights_dir is None)
    model = build_model(backbone)
    _load_state(model, path, in_order=_is_packaged(backbone, sha256))
    return model, sha256


def find_weights(backbone: Backbone, weights: str, weights_dir: Path | None = None) -> Path:
    """Return the path of a weights file, downloaded with torch.hub if need be.

    :param weights_dir: look in this folder only, and never download.
    :raises WeightsError: it cannot be had.
    """
    if is_path(weights):
        return Path(weights)
    if backbone.packaged is not None:
        _require_default(backbone, weights)
        return find_packaged(backbone.packaged, weights_dir)
    url = _registered(backbone, weights)[1]
    file = url.rpartition("/")[2]
    if weights_dir is not None:
        if not (weights_dir / file).is_file():
            raise WeightsError(
                f"Expected the weights file {file} in {str(weights_dir)!r}. Received: no such "
                f"file. Download {url} on a machine with a network and put it there."
            )
        return weights_dir / file
    return _downloaded(url, file)


def verify_weights(backbone: Backbone, folder: Path) -> Path:
    """Return where a folder has a backbone's default weights, without opening them.

    :raises WeightsError: they are not there, or are not what they are called.
    """
    path = find_weights(backbone, "imagenet", folder)
    _require_published(backbone, "imagenet", path, hash_file(path), is_downloaded=False)
    return path


def _is_packaged(backbone: Backbone, sha256: str) -> bool:
    return backbone.packaged is not None and backbone.packaged.sha256 == sha256


def _require_default(backbone: Backbone, weights: str) -> None:
    if weights not in ("imagenet", backbone.weights):
        raise UsageError(
            f"Expected the weights imagenet, random, auto, or a path to a .pth file for "
            f"{backbone.name}. Received: {weights!r}."
        )


def _require_published(
    backbone: Backbone, weights: str, path: Path, sha256: str, *, is_downloaded: bool
) -> None:
    """Check the SHA-256 of a file of weights that have a name."""
    if backbone.packaged is not None:
        require_packaged(backbone.packaged, path, sha256)
    else:
        url = _registered(backbone, weights)[1]
        _require_digits(path, sha256, url, is_downloaded=is_downloaded)


def _registered(backbone: Backbone, weights: str) -> tuple[str, str]:
    """Return torchvision's full name of registered weights, and their URL."""
    enum, _, default = backbone.weights.partition(".")
    member = weights.rpartition(".")[2]
    if weights == "imagenet" or member == default:
        return backbone.weights, backbone.weights_url
    known = {name: url for name, (url, _) in registered_weights(backbone.model).items()}
    if member not in known:
        raise UsageError(
            f"Expected the weights imagenet, random, auto, a path to a .pth file, or for "
            f"{backbone.name} one of {', '.join(known)}. Received: {weights!r}."
        )
    return f"{enum}.{member}", known[member]


def _published_digits(url: str) -> str:
    """Return the digits of the SHA-256 that torchvision writes into its files' names."""
    match = re.search(r"-([0-9a-f]{8,64})\.pth$", url)
    if match is None:
        raise WeightsError(
            f"Expected a weights file whose name ends in the first digits of its SHA-256. "
            f"Received: {url!r}. Download it, and give its path instead."
        )
    return match[1]


def _require_digits(path: Path, sha256: str, url: str, *, is_downloaded: bool) -> None:
    digits = _published_digits(url)
    if not sha256.startswith(digits):
        remedy = "Delete it, and run again to download" if is_downloaded else "Copy it anew from"
        raise WeightsError(
            f"Expected a weights file whose SHA-256 begins with {digits}. Received: {path} with "
            f"{sha256}: damaged, or not what its name says. It was not opened. {remedy} {url}"
        )


def _downloaded(url: str, file: str) -> Path:
    import torch

    path = Path(torch.hub.get_dir(), "checkpoints", file)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(_DOWNLOAD_TIMEOUT_SECS):
            torch.hub.download_url_to_file(
                url, str(path), hash_prefix=_published_digits(url), progress=False
            )
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"Expected to download {url}. Received: {error}. Without a network, put the file "
            f"{file} into a folder and name that with --weights-dir (gelkit doctor --no-measure "
            "lists all files), or use --weights random."
        ) from error
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound each wait for the network: torch.hub's download has no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _load_state(model: nn.Module, path: Path, *, in_order: bool = False) -> None:
    """Load a verified file; unpickling is restricted to tensors all the same.

    :param in_order: its tensors have other names than the model's, but the same order.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if in_order:
            state = dict(zip(model.state_dict(), state.values(), strict=True))
        model.load_state_dict(state)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"Expected the weights of a {type(model).__name__} as torch saves them. Received: "
            f"{path}, {reason} Give a file that matches the backbone."
        ) from error


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
