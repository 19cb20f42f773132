"""torchvision's weights: by its registry, from torch.hub, verified by their file's name."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone
from gelkit.features.torchvision_models import registered_weights
from gelkit.features.weights_files import PRETRAINED, WeightsError, WeightsIdentity

_DOWNLOAD_TIMEOUT_SECS = 30.0


def registered(backbone: Backbone, weights: str) -> tuple[str, str]:
    """Return torchvision's full name of registered weights, and their URL.

    :raises UsageError: torchvision registers no such weights.
    """
    enum, _, default = backbone.weights.partition(".")
    member = weights.rpartition(".")[2]
    if weights in PRETRAINED or member == default:
        return backbone.weights, backbone.weights_url
    known = registered_weights(backbone.model)
    if member not in known:
        raise UsageError(
            f"Expected the weights pretrained, random, auto, a path to a .pth or .safetensors "
            f"file, or for {backbone.name} one of {', '.join(known)}. Received: {weights!r}."
        )
    return f"{enum}.{member}", known[member][0]


def identify_registered(
    backbone: Backbone, weights: str, weights_dir: Path | None
) -> WeightsIdentity:
    """Tell the identity of registered weights, whether or not they are here."""
    name, url = registered(backbone, weights)
    return WeightsIdentity(name, sha256=_published_digits(url))


def find_registered(backbone: Backbone, weights: str, weights_dir: Path | None) -> Path:
    """Return the path of registered weights, downloaded with torch.hub if need be."""
    url = registered(backbone, weights)[1]
    file = url.rpartition("/")[2]
    if weights_dir is None:
        return _downloaded(url, file)
    if not (weights_dir / file).is_file():
        raise WeightsError(
            f"Expected the weights file {file} in {str(weights_dir)!r}. Received: no such "
            f"file. Download {url} on a machine with a network and put it there."
        )
    return weights_dir / file


def describe_registered(backbone: Backbone, weights_dir: Path | None) -> str:
    """Say whether registered weights are here."""
    folder = download_folder() if weights_dir is None else weights_dir
    is_here = (folder / backbone.weights_url.rpartition("/")[2]).is_file()
    return "here" if is_here else "downloaded at first use"


def require_registered(
    backbone: Backbone, weights: str, path: Path, sha256: str, weights_dir: Path | None
) -> None:
    """Check that a file's SHA-256 begins with the digits in its name."""
    url = registered(backbone, weights)[1]
    digits = _published_digits(url)
    if not sha256.startswith(digits):
        remedy = (
            "Delete it, and run again to download" if weights_dir is None else "Copy it anew from"
        )
        raise WeightsError(
            f"Expected a weights file whose SHA-256 begins with {digits}. Received: {path} with "
            f"{sha256}: damaged, or not what its name says. It was not opened. {remedy} {url}"
        )


def _published_digits(url: str) -> str:
    """Return the digits of the SHA-256 that torchvision writes into its files' names."""
    match = re.search(r"-([0-9a-f]{8,64})\.pth$", url)
    if match is None:
        raise WeightsError(
            f"Expected a weights file whose name ends in the first digits of its SHA-256. "
            f"Received: {url!r}. Download it, and give its path instead."
        )
    return match[1]


def download_folder() -> Path:
    """Return where torch keeps the weights files that it downloads."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints")


def _downloaded(url: str, file: str) -> Path:
    import torch

    path = download_folder() / file
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
