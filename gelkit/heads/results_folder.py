"""The folder of results: of which data they are, and what goes when its heads go."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gelkit.errors import UsageError
from gelkit.files import remove, write_atomically
from gelkit.images.catalog import Catalog
from gelkit.own_output import RESULTS_RECORD, is_own_picture
from gelkit.paths import RemotePath, as_path
from gelkit.systems import SYSTEM

TEST_PREDICTIONS_FILE = "test_predictions.csv"
FINDINGS_FILE = "test_findings.json"
RECHECK_FILE = "recheck.csv"
REPORT_FILE = "report.html"
PLOTS_FOLDER = "plots"


@dataclass(frozen=True)
class _Data:
    """Where data lie: the same data set as long as either stays, whatever images are added."""

    data: list[str]
    """As absolute paths."""
    relative: list[str]
    """As seen from the folder of results: a project that is moved as a whole keeps them."""

    def is_same(self, other: _Data) -> bool:
        return self.data == other.data or self.relative == other.relative


def require_same_data(folder: Path, catalog: Catalog) -> None:
    """Check that a folder of results, if there is one, is of a catalog's data.

    :raises UsageError: it is of other data, or of data that were moved.
    """
    ours, known = _locate(folder, catalog), _read(folder)
    if ours is None or known is None or ours.is_same(known):
        return
    first = as_path(ours.data[0])
    other = SYSTEM.quoted(str(Path("results", SYSTEM.allowed(f"{first.parent.name}-{first.stem}"))))
    raise UsageError(
        f"Expected {str(folder)!r} to be the results of {_named(ours)}. Received: those of "
        f"{_named(known)}. Choose another folder, such as --out {other}. Or, if these are the same "
        f"data, moved: delete {str(folder / RESULTS_RECORD)!r} and run again; no head is trained "
        "twice."
    )


def record_data(folder: Path, catalog: Catalog) -> None:
    """Keep in a folder of results of which data they are; nothing of a catalog that was not read.

    :raises OSError: the disk refused.
    """
    ours = _locate(folder, catalog)
    if ours is not None and ours != _read(folder):
        write_atomically(folder / RESULTS_RECORD, json.dumps(asdict(ours), indent=1).encode())


def remove_outdated(folder: Path) -> list[str]:
    """Remove what was made of heads that are gone; return the names of what that was.

    :raises OSError: the disk refused.
    """
    plots = [path for path in (folder / PLOTS_FOLDER).glob("*.png") if is_own_picture(path)]
    files = [TEST_PREDICTIONS_FILE, FINDINGS_FILE, RECHECK_FILE, REPORT_FILE]
    found = [name for name in files if (folder / name).is_file()] + [PLOTS_FOLDER] * bool(plots)
    remove([folder / name for name in files if name in found])
    remove([path.with_suffix(ending) for path in plots for ending in (".png", ".svg")])
    if plots and not any((folder / PLOTS_FOLDER).iterdir()):
        (folder / PLOTS_FOLDER).rmdir()
    return found


def _locate(folder: Path, catalog: Catalog) -> _Data | None:
    given = [as_path(path) for path in catalog.given if path != "--allow-outside"]
    if not given:
        return None
    paths = [path.resolve() for path in given]
    return _Data(
        [str(path) for path in paths],
        [
            str(path) if isinstance(path, RemotePath) else _relative(path, folder.resolve())
            for path in paths
        ],
    )


def _relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder; from another drive of Windows there is no such path."""
    try:
        return SYSTEM.with_slashes(os.path.relpath(path, folder))
    except ValueError:
        return str(path)


def _read(folder: Path) -> _Data | None:
    try:
        return _Data(**json.loads((folder / RESULTS_RECORD).read_bytes()))
    except (OSError, ValueError, TypeError):  # none, or damaged: whoever runs here says whose it is
        return None


def _named(data: _Data) -> str:
    return ", ".join(map(repr, data.data))
