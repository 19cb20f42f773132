"""The catalog: which images there are, with label, group, source and split."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gelkit.errors import UsageError
from gelkit.files import write_atomically

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".gel", ".1sc", ".scn"}
)
"""File endings (lower case) that are taken for images; whether they decode is seen later."""

MANIFEST_COLUMNS = ("path", "label", "group", "source", "split")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class CatalogImage:
    """One image file and what is known of it before it is opened."""

    path: Path
    name: str
    """The path below the catalog's root, with ``/``: how results and messages call the image."""
    label: str | None = None
    group: str | None = None
    """Images of one group are never separated by a split."""
    source: str | None = None
    """Instrument, laboratory or date."""
    split: str = "train"
    """``train``, or ``test`` for images that no head may train on."""


@dataclass(frozen=True)
class Catalog:
    """The images of one data set, in a fixed order (sorted by name, or the manifest's)."""

    name: str
    images: tuple[CatalogImage, ...]
    skipped: tuple[str, ...] = ()
    """Names of files that are no images, and of things that are no regular files."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted as strings."""
        return tuple(sorted({image.label for image in self.images if image.label is not None}))

    def only(self, split: str) -> Catalog:
        """Return the catalog of the images of one split, ``train`` or ``test``."""
        return replace(self, images=tuple(i for i in self.images if i.split == split))


def read_catalog(*data: str | os.PathLike[str], allow_outside: bool = False) -> Catalog:
    """List the images of folders, files and CSV manifests.

    A folder's first level of sub-folders names the classes; a manifest is a CSV file with the
    column ``path`` (relative to the manifest's folder) and any of ``label``, ``group``,
    ``source`` and ``split``. Several pieces of data become one catalog, named after the first.

    :param allow_outside: let a manifest name files outside its own folder.
    :raises UsageError: data that does not exist, no image at all, or a manifest that cannot be
        understood.
    """
    if not data:
        raise UsageError("Expected a folder of images or a CSV manifest. Received: nothing.")
    pieces = [_readable_piece(Path(piece), allow_outside) for piece in data]
    catalog = Catalog(
        name=pieces[0].name,
        images=tuple(image for piece in pieces for image in piece.images),
        skipped=tuple(name for piece in pieces for name in piece.skipped),
    )
    if not catalog.images:
        raise UsageError(
            f"Expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {_listed(data)}. "
            f"Received: no image and {len(catalog.skipped)} other files. "
            "Give a folder with a sub-folder of images for each class, or a CSV manifest."
        )
    return catalog


def require_classes(catalog: Catalog) -> None:
    """Check that every image has a label and that there are at least two classes.

    :raises UsageError: otherwise, naming the images or the one class.
    """
    unlabelled = [image.name for image in catalog.images if image.label is None]
    if unlabelled:
        raise UsageError(
            f"Expected a label for every image of {catalog.name!r}. "
            f"Received: {len(unlabelled)} without one ({_listed(unlabelled)}). "
            "Move them into a class folder, or fill the manifest's column 'label'."
        )
    if len(catalog.classes) < 2:
        raise UsageError(
            f"Expected at least two classes in {catalog.name!r}. "
            f"Received: {len(catalog.classes)} ({_listed(catalog.classes)}). "
            "Make a sub-folder of images for each class, or give the manifest another label."
        )


def write_manifest(catalog: Catalog, path: Path) -> None:
    """Write a catalog as a CSV manifest with absolute paths, for ``allow_outside``.

    File names that are no UTF-8 keep their bytes, and are read back by :func:`read_catalog`.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(MANIFEST_COLUMNS)
    for image in catalog.images:
        where = image.path.resolve()
        writer.writerow([where, image.label, image.group, image.source, image.split])
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))


def _readable_piece(path: Path, allow_outside: bool) -> Catalog:
    try:
        return _read_piece(path, allow_outside)
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        where = getattr(error, "filename", None) or path
        raise UsageError(
            f"Expected to read {str(where)!r}. Received: {reason}. Check the path and its "
            "permissions."
        ) from error


def _raise(error: OSError) -> None:
    raise error


def _read_piece(path: Path, allow_outside: bool) -> Catalog:
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _read_manifest(path, allow_outside)
    if path.is_file():
        return Catalog(path.stem, (CatalogImage(path, path.name),))
    raise UsageError(
        f"Expected a folder, an image or a CSV manifest. Received: {str(path)!r}, "
        f"which {'is no regular file' if path.exists() else 'does not exist'}. Check the path."
    )


def _read_folder(root: Path) -> Catalog:
    images, skipped = [], []
    for path in _files_below(root):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            images.append(CatalogImage(path, name, label=_class_folder(name)))
        else:
            skipped.append(name)
    return Catalog(_folder_name(root), tuple(images), tuple(skipped))


def _files_below(root: Path) -> Iterator[Path]:
    """Yield everything below ``root`` that is no folder, sorted; a linked folder is seen once."""
    seen = set()
    found = []
    for folder, subfolders, files in os.walk(root, onerror=_raise, followlinks=True):
        identity = os.stat(folder)
        if (identity.st_dev, identity.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((identity.st_dev, identity.st_ino))
        subfolders.sort()
        found += [Path(folder, file) for file in files]
    return iter(sorted(found, key=lambda path: path.relative_to(root).as_posix()))


def _class_folder(name: str) -> str | None:
    first, _, rest = name.partition("/")
    return first if rest else None


def _folder_name(folder: Path) -> str:
    return folder.name or folder.resolve().name or "data"


def _read_manifest(path: Path, allow_outside: bool) -> Catalog:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        columns = tuple(reader.fieldnames or ())
        _require_columns(path, columns)
        images = {
            line: _manifest_image(path, line, row, allow_outside)
            for line, row in ((reader.line_num, row) for row in reader)
        }
    _require_distinct(path, images)
    return Catalog(path.stem, tuple(images.values()))


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in MANIFEST_COLUMNS]
    if "path" not in columns or unknown:
        raise UsageError(
            f"Expected the manifest {str(path)!r} to have the column 'path' and any of "
            f"{', '.join(MANIFEST_COLUMNS[1:])}. Received: {', '.join(columns) or 'no columns'}. "
            "Rename or remove columns in its first line."
        )


def _manifest_image(
    manifest: Path, line: int, row: dict[str, str | None], allow_outside: bool
) -> CatalogImage:
    where = f"{manifest}, line {line}"
    given = row.get("path") or ""
    path = manifest.parent / given
    split = row.get("split") or "train"
    if not given or not path.is_file():
        raise UsageError(f"{where}: expected the path of an image. Received: {given!r}, no file.")
    if not allow_outside and not path.resolve().is_relative_to(manifest.parent.resolve()):
        raise UsageError(
            f"{where}: expected a path inside the manifest's folder. Received: {given!r}. "
            "Move the manifest above its images, or allow it with --allow-outside."
        )
    if split not in SPLITS:
        raise UsageError(f"{where}: expected the split 'train' or 'test'. Received: {split!r}.")
    return CatalogImage(
        path=path,
        name=given,
        label=row.get("label") or None,
        group=row.get("group") or None,
        source=row.get("source") or None,
        split=split,
    )


def _require_distinct(manifest: Path, images: Mapping[int, CatalogImage]) -> None:
    lines: dict[Path, int] = {}
    for line, image in images.items():
        first = lines.setdefault(image.path.resolve(), line)
        if first != line:
            raise UsageError(
                f"{manifest}, line {line}: expected each image once. Received: {image.name!r}, "
                f"which is in line {first} too. Remove one of the lines."
            )


def _listed(names: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
