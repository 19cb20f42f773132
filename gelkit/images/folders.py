"""Folders: what lies below one, and what of it no person put there as an image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gelkit.images.reading import irregular, read_beginning
from gelkit.images.signatures import FIRST_BYTES, begins_as_image
from gelkit.own_output import is_own_picture, own_folder
from gelkit.paths import RemotePath

IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jp2",
        ".j2k",
        ".jpf",
        ".jpx",
        ".j2c",
        ".jpc",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".webp",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
        ".gel",
        ".1sc",
        ".scn",
    }
)
"""File endings (lower case) that are taken for images; whether they decode is seen later."""

OWN_PICTURE = "a picture that gelkit drew"

_LEFT_FOLDERS: Mapping[str, str] = {
    "__macosx": "left by macOS",
    "@eadir": "thumbnails of a Synology store",
    "#recycle": "a recycle bin",
    "@recycle": "a recycle bin",
    "$recycle.bin": "a recycle bin",
    "recycler": "a recycle bin",
    "#snapshot": "older states of a store",
    "@recently-snapshot": "older states of a store",
    "system volume information": "left by Windows",
    "lost+found": "left by a check of the disk",
}
"""What systems leave in folders, by its name in lower case."""


@dataclass(frozen=True)
class Below:
    """What lies below a folder, all sorted by the path below it."""

    images: list[Path] = field(default_factory=list)
    """Files that are called like images, or have no ending and begin as images do."""
    others: list[Path] = field(default_factory=list)
    """All other files."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """What is called like an image, or may hold some, and why it cannot be read."""
    leftovers: list[tuple[Path, str]] = field(default_factory=list)
    """What no person put there as an image, and what it is; of a folder, all that is in it."""


def look_below(root: Path) -> Below:
    """List what lies below a folder, on this machine or in a store.

    Linked folders are followed, each folder is seen once, and under its own name if it has one
    below ``root``.

    :raises OSError: the folder cannot be listed.
    """
    below = Below()
    if isinstance(root, RemotePath):
        _look_in_store(root, below)
    else:
        _look_on_disk(root, below)
    for paths in (below.images, below.others):
        paths.sort(key=lambda path: path.relative_to(root).as_posix())
    for pairs in (below.unreadable, below.leftovers):
        pairs.sort(key=lambda pair: pair[0].relative_to(root).as_posix())
    return below


def _look_on_disk(root: Path, below: Below) -> None:
    seen: dict[tuple[int, int | str], Path] = {}
    starts = [root]
    for start in starts:  # grows by the linked folders that are found
        for folder, subfolders, files in os.walk(
            start, onerror=lambda e: _unlisted(e, root, below)
        ):
            path = Path(folder)
            status = os.stat(folder)
            number = status.st_ino or os.path.realpath(folder)  # some of Windows' have none
            first = seen.setdefault((status.st_dev, number), path)
            kind = own_folder([*subfolders, *files]) if path != root else None
            if first != path:
                kind = f"the same folder as {first.relative_to(root).as_posix()!r}"
            if kind is not None:
                below.leftovers.append((path, kind))
                subfolders.clear()
                continue
            subfolders[:] = [name for name in sorted(subfolders) if _is_kept(path / name, below)]
            starts += [path / name for name in subfolders if os.path.islink(path / name)]
            if path != root:
                files += [name for name in subfolders if _is_called_image(name)]
            for name in files:
                _sort_in(path / name, below)


def _unlisted(error: OSError, root: Path, below: Below) -> None:
    if Path(error.filename) == root:
        raise error
    below.unreadable.append((Path(error.filename), f"cannot be listed: {error.strerror}"))


def _is_kept(folder: Path, below: Below) -> bool:
    kind = _left_folder(folder.name)
    if kind is not None:
        below.leftovers.append((folder, kind))
    return kind is None


def _sort_in(path: Path, below: Below) -> None:
    """Put what is no folder of a class where it belongs.

    Only files without an ending are opened to see what they are: a folder may hold many.
    """
    if not _is_called_image(path.name):
        (below.images if _is_unnamed_image(path) else below.others).append(path)
    elif (kind := _left_file(path.name)) is not None:
        below.leftovers.append((path, kind))
    elif (trouble := _trouble(path)) is not None:
        below.unreadable.append((path, trouble))
    elif is_own_picture(path):
        below.leftovers.append((path, OWN_PICTURE))
    else:
        below.images.append(path)


def _trouble(path: Path) -> str | None:
    """Say why something that is called like an image cannot be one; None if it is a file."""
    try:
        kind = irregular(os.stat(path).st_mode)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return kind and f"expected a regular file. Received: {kind}"


def _look_in_store(root: RemotePath, below: Below) -> None:
    """List objects without opening any: those that gelkit drew are taken for images.

    Those without an ending are not, whatever they hold.
    """
    objects = list(root.walk_objects())
    names: dict[Path, set[str]] = {}
    for path in objects:
        for part, folder in zip(path.parts[::-1], path.parents, strict=False):
            if folder == root or part in names.setdefault(folder, set()):
                break
            names[folder].add(part)
    folders = {
        folder: own_folder(its) or _left_folder(folder.name) for folder, its in names.items()
    }
    left: dict[Path, str] = {}
    for path in objects:
        above = [its for its in path.parents if folders.get(its)]
        if above:
            left[above[-1]] = str(folders[above[-1]])
        else:
            _sort_object_in(path, below)
    below.leftovers.extend(left.items())


def _sort_object_in(path: RemotePath, below: Below) -> None:
    if not _is_called_image(path.name):
        below.others.append(path)
    elif not path.is_true:
        named = path.listed.url if path.listed else str(path)
        trouble = f"expected a name that a path can have. Received: {named!r}. Copy the object to "
        below.unreadable.append((path, f"{trouble}another"))
    elif (kind := _left_file(path.name)) is not None:
        below.leftovers.append((path, kind))
    else:
        below.images.append(path)


def _is_unnamed_image(path: Path) -> bool:
    """Tell whether a file of this machine has no ending, and begins as an image does."""
    if "." in path.name:
        return False
    try:
        return begins_as_image(read_beginning(path, FIRST_BYTES))
    except OSError:  # a pipe, or what may not be read: nothing says that it is an image
        return False


def _is_called_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _left_folder(name: str) -> str | None:
    return _LEFT_FOLDERS.get(name.lower()) or _hidden(name)


def _left_file(name: str) -> str | None:
    return "left by an office program" if name.startswith("~$") else _hidden(name)


def _hidden(name: str) -> str | None:
    return "hidden" if name.startswith(".") and name not in (".", "..") else None
