"""The catalog: which images there are, with label, group, source and split."""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from gelkit.errors import UsageError
from gelkit.images.folders import IMAGE_SUFFIXES, OWN_PICTURE, look_below
from gelkit.images.foreign import described
from gelkit.images.layouts import find_layout
from gelkit.images.reading import irregular
from gelkit.images.spreadsheets import read_rows, readings
from gelkit.own_output import is_own_picture
from gelkit.paths import RemotePath, as_path, in_the_disks_form
from gelkit.systems import SYSTEM
from gelkit.tables import unguarded, write_table

if TYPE_CHECKING:
    from gelkit.images.pictures import DecodeOptions

logger = logging.getLogger(__name__)

MANIFEST_COLUMNS = ("path", "label", "group", "source", "split", "page", "channel")
SPLITS = ("train", "test")
_PART_NUMBER = re.compile("[1-9][0-9]{0,8}")
_SHOWN_LINES = 20
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class CatalogImage:
    """One image, a file or a part of one, and what is known of it before it is opened."""

    path: Path
    name: str
    """How results and messages call the image: the path below the catalog's root, with ``/``; of
    a page or channel as :func:`part_name` makes of it."""
    label: str | None = None
    group: str | None = None
    """Images of one group are never separated by a split."""
    source: str | None = None
    """Instrument, laboratory or date."""
    split: str = "train"
    """``train``, or ``test`` for images that no head may train on."""
    page: int | None = None
    """From 1: which page of the file the image is; None: the one that the recipe takes."""
    channel: int | None = None
    """The same of the channel."""

    @property
    def full_name(self) -> str:
        """The path, with the page and the channel if they were named."""
        return part_name(self.path.as_posix(), self.page, self.channel)

    @property
    def is_part(self) -> bool:
        """Whether the image is a page or channel that was named, of a file that may have more."""
        return self.page is not None or self.channel is not None

    def identity(self, file_sha256: str) -> str:
        """Return what the image is known by, given the SHA-256 of its file's bytes."""
        return image_identity(file_sha256, self.page, self.channel)

    def chosen_from(self, decoding: DecodeOptions) -> DecodeOptions:
        """Return how the file is read: the image's own page and channel before the recipe's."""
        return own_part(decoding, self.page, self.channel)


@dataclass(frozen=True)
class Unreadable:
    """What has the name of an image, or may hold images, and cannot be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class Leftover:
    """A file or folder that no person put there as data, and with it all that is in it."""

    name: str
    kind: str
    """What it is."""


@dataclass(frozen=True)
class Catalog:
    """The images of one data set, in a fixed order (sorted by name, or the manifest's)."""

    name: str
    images: tuple[CatalogImage, ...]
    skipped: tuple[str, ...] = ()
    """Names of files that are no images."""
    unreadable: tuple[Unreadable, ...] = ()
    """Pipes, folders, dangling links and the like that are called like images."""
    leftovers: tuple[Leftover, ...] = ()
    """What gelkit itself and operating systems leave in folders; never read as images."""
    given: tuple[str, ...] = field(default=(), compare=False)
    """The arguments of a command that reads the same data; empty if it was not read."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted as strings."""
        return tuple(sorted({image.label for image in self.images if image.label is not None}))

    def only(self, split: str) -> Catalog:
        """Return the catalog of the images of one split, ``train`` or ``test``."""
        return replace(self, images=tuple(i for i in self.images if i.split == split))


def image_identity(file_sha256: str, page: int | None, channel: int | None = None) -> str:
    """Return what an image is known by, 64 hexadecimal digits, wherever its file lies.

    That is the SHA-256 of its file's bytes; of a page that was named, the SHA-256 of the text
    ``<SHA-256 of the file> page <number>``; of a channel, too, with `` channel <number>`` at the
    end of that text.
    """
    if page is None and channel is None:
        return file_sha256
    return sha256(" ".join([file_sha256, *_parts(page, channel)]).encode()).hexdigest()


def part_name(name: str, page: int | None, channel: int | None = None) -> str:
    """Return how a page or channel of a file is called, such as ``blot.tif[page 2]``."""
    parts = _parts(page, channel)
    return f"{name}[{', '.join(parts)}]" if parts else name


def own_part(decoding: DecodeOptions, page: int | None, channel: int | None) -> DecodeOptions:
    """Return how a file is read of which an image is a page or channel, or neither."""
    return replace(decoding, page=page or decoding.page, channel=channel or decoding.channel)


def _parts(page: int | None, channel: int | None) -> list[str]:
    numbers = {"page": page, "channel": channel}
    return [f"{kind} {number}" for kind, number in numbers.items() if number is not None]


def read_catalog(*data: str | os.PathLike[str], allow_outside: bool = False) -> Catalog:
    """List the images of folders, files and CSV manifests, on this machine or in a store.

    A folder's first level of sub-folders names the classes; below ``train`` and ``test`` folders it
    is the second, and what is in ``test`` is held out, which is logged as a warning. What gelkit
    itself has written, what is hidden and what systems leave behind is left out and named in the
    catalog's ``leftovers``.

    A manifest is a CSV file with the column ``path`` (relative to the manifest's folder) and any of
    ``label``, ``group``, ``source``, ``split``, ``page`` and ``channel``: several rows may name
    pages and channels, from 1, of the same file, each of which is an image then. Several pieces of
    data become one catalog, named after the first. Of a manifest's cells, ``'=`` and the like at
    the beginning stand for ``=``, as in every table of gelkit, so that one may be made of another;
    all other cells are what they say.

    In a store (``s3://bucket/folder``) a folder is what its objects' names make one. Of images
    there, the catalog keeps what the listing told: it is read anew to see what has changed.

    :param allow_outside: let a manifest name files outside its own folder.
    :raises UsageError: data that does not exist, no image at all, or a manifest that cannot be
        understood.
    :raises StoreError: a store that cannot be reached, or lets nobody in.
    """
    if not data:
        raise UsageError("Expected a folder of images or a CSV manifest. Received: nothing.")
    paths = [as_path(piece) for piece in data]
    pieces = [_readable_piece(path, allow_outside) for path in paths]
    catalog = Catalog(
        name=pieces[0].name,
        images=tuple(image for piece in pieces for image in piece.images),
        skipped=tuple(name for piece in pieces for name in piece.skipped),
        unreadable=tuple(its for piece in pieces for its in piece.unreadable),
        leftovers=tuple(its for piece in pieces for its in piece.leftovers),
        given=(*map(str, paths), *(["--allow-outside"] if allow_outside else [])),
    )
    if not catalog.images:
        raise UsageError(
            f"Expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {_listed(paths)}. "
            f"Received: none{_skipped(catalog)}{_unread(catalog)}. Give a folder with a "
            "sub-folder of images for each class, or a CSV manifest."
        )
    return catalog


def _skipped(catalog: Catalog) -> str:
    return f", but {described(catalog.skipped)}" if catalog.skipped else ""


def _unread(catalog: Catalog) -> str:
    named = [f"{its.name!r}, {its.reason}" for its in catalog.unreadable]
    left = [f"{its.name!r}, {its.kind}" for its in catalog.leftovers]
    return "".join(
        f", and what {is_so}: {_first(its)}"
        for is_so, its in (("cannot be read", named), ("is no data", left))
        if its
    )


def require_classes(catalog: Catalog) -> None:
    """Check that every image has a label and that there are at least two classes.

    :raises UsageError: otherwise, naming the images or the one class.
    """
    unlabelled = [image.name for image in catalog.images if image.label is None]
    if unlabelled:
        raise UsageError(
            f"Expected a label for every image of {catalog.name!r}. "
            f"Received: {len(unlabelled)} without one ({_listed(unlabelled)}). "
            f"{_move_or_go_up(catalog)} a class folder, or fill the manifest's column 'label'."
        )
    if len(catalog.classes) < 2:
        raise UsageError(
            f"Expected at least two classes in {catalog.name!r}. "
            f"Received: {len(catalog.classes)} ({_listed(catalog.classes)}). "
            "Make a sub-folder of images for each class, or give the manifest another label."
        )


def _move_or_go_up(catalog: Catalog) -> str:
    """Say to move images without labels; first, if the data may be a class, what is above it."""
    folder = as_path(catalog.given[0]) if len(catalog.given) == 1 else None
    if folder is None or catalog.classes or not folder.is_dir():
        return "Move them into"
    above = folder.parent if folder.name else folder.resolve().parent
    return (
        f"Is {str(folder)!r} one of the classes? Then give the folder above it: "
        f"{str(above if above != Path() else above.absolute())!r}. Otherwise move them into"
    )


def write_manifest(catalog: Catalog, path: Path) -> None:
    """Write a catalog as a CSV manifest with absolute paths, for ``allow_outside``.

    File names that are no UTF-8 keep their bytes, and are read back by :func:`read_catalog`.
    """
    write_table(
        MANIFEST_COLUMNS,
        (
            (
                image.path.resolve().as_posix(),
                image.label,
                image.group,
                image.source,
                image.split,
                image.page,
                image.channel,
            )
            for image in catalog.images
        ),
        path,
    )


def _readable_piece(path: Path, allow_outside: bool) -> Catalog:
    try:
        return _read_piece(path, allow_outside)
    except OSError as error:
        raise UsageError(
            f"Expected to read {str(error.filename or path)!r}. Received: {error.strerror}. Check "
            "the path and its permissions."
        ) from error


def _read_piece(path: Path, allow_outside: bool) -> Catalog:
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _read_manifest(path, allow_outside)
    if path.is_file() and not isinstance(path, RemotePath) and is_own_picture(path):
        return Catalog(path.stem, (), leftovers=(Leftover(path.name, OWN_PICTURE),))
    if path.is_file():
        return Catalog(path.stem, (CatalogImage(path, path.name),))
    raise UsageError(
        f"Expected a folder, an image or a CSV manifest. Received: {str(path)!r}, "
        f"which {'is no regular file' if path.exists() else 'does not exist'}. Check the path."
    )


def _read_folder(root: Path) -> Catalog:
    below = look_below(root)
    names = [path.relative_to(root).as_posix() for path in below.images]
    layout = find_layout(str(root), names)
    if layout.remark:
        logger.warning(layout.remark)
    return Catalog(
        name=_folder_name(root),
        images=tuple(
            CatalogImage(path, name, label=layout.label(name), split=layout.split(name))
            for path, name in zip(below.images, names, strict=True)
        ),
        skipped=tuple(path.relative_to(root).as_posix() for path in below.others),
        unreadable=tuple(
            Unreadable(path.relative_to(root).as_posix(), trouble)
            for path, trouble in below.unreadable
        ),
        leftovers=tuple(
            Leftover(path.relative_to(root).as_posix(), kind) for path, kind in below.leftovers
        ),
    )


def _folder_name(folder: Path) -> str:
    return folder.name or folder.resolve().name or "data"


def _read_manifest(path: Path, allow_outside: bool) -> Catalog:
    first, *others = readings(path.read_bytes())
    try:
        return _manifest_of(path, first, allow_outside)
    except UsageError:
        for text in others:
            with suppress(UsageError):
                return _manifest_of(path, text, allow_outside)
        raise


def _manifest_of(path: Path, text: str, allow_outside: bool) -> Catalog:
    try:
        (_, columns), *rows = read_rows(text, "path") or [(1, [])]
    except ValueError as error:
        raise UsageError(
            f"Expected the manifest {str(path)!r} to be CSV. Received: {error}. Save it as "
            "'CSV UTF-8'."
        ) from error
    _require_columns(path, columns)
    troubles: dict[int, str] = {}
    images: dict[int, CatalogImage] = {}
    listings = _Listings()
    for line, row in rows:
        try:
            images[line] = _manifest_image(path, columns, row, allow_outside, listings)
        except _RowError as error:
            troubles[line] = str(error)
    troubles |= _doubled(images)
    if troubles:
        raise UsageError(_listed_troubles(path, troubles))
    return Catalog(path.stem, tuple(images.values()))


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in MANIFEST_COLUMNS]
    if "path" not in columns or unknown or len(set(columns)) < len(columns):
        raise UsageError(
            f"Expected the manifest {str(path)!r} to have the column 'path' and any of "
            f"{', '.join(MANIFEST_COLUMNS[1:])}, each once. Received: "
            f"{', '.join(map(_quoted, columns)) or 'no columns'}. Rename or remove columns in its "
            "first line, and separate them by commas, semicolons or tabs."
        )


class _RowError(ValueError):
    """A line of a manifest cannot be understood."""


def _manifest_image(
    manifest: Path,
    columns: Sequence[str],
    cells: Sequence[str],
    allow_outside: bool,
    listings: _Listings,
) -> CatalogImage:
    if len(cells) != len(columns):
        raise _RowError(f"expected {len(columns)} cells, received {len(cells)}")
    row = dict(zip(columns, map(unguarded, cells), strict=True))
    given = SYSTEM.with_slashes(row["path"])
    if not given or "\0" in given:
        raise _RowError(f"expected the path of an image, received {_quoted(given)}")
    path = _joined(manifest.parent, given)
    if "\\" in given and not isinstance(path, RemotePath) and not os.path.lexists(path):
        given = given.replace("\\", "/")  # as Windows separates folders
        path = _joined(manifest.parent, given)
    if not allow_outside and not _is_inside(path, manifest.parent):
        raise _RowError(
            f"expected a path inside the manifest's folder, received {_quoted(given)}: move the "
            "manifest above its images, or say --allow-outside"
        )
    try:
        if isinstance(path, RemotePath):
            path, kind = listings.find(path), None
        else:
            kind = irregular(os.stat(path).st_mode)
    except OSError as error:
        kind = error.strerror
    if kind is not None:
        raise _RowError(f"expected an image, received {_quoted(given)}: {kind}")
    split = row.get("split") or "train"
    if split not in SPLITS:
        raise _RowError(f"expected the split 'train' or 'test', received {_quoted(split)}")
    page, channel = (_part_number(kind, row.get(kind) or None) for kind in ("page", "channel"))
    return CatalogImage(
        path=path,
        name=part_name(given, page, channel),
        label=row.get("label") or None,
        group=row.get("group") or None,
        source=row.get("source") or None,
        split=split,
        page=page,
        channel=channel,
    )


def _part_number(kind: str, cell: str | None) -> int | None:
    if cell is None:
        return None
    if not _PART_NUMBER.fullmatch(cell):
        raise _RowError(f"expected a {kind} from 1 on, or an empty cell, received {_quoted(cell)}")
    return int(cell)


class _Listings:
    """The folders of stores that the rows of a manifest lie in, each listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[Path, RemotePath]] = {}

    def find(self, path: RemotePath) -> RemotePath:
        """Return a path with what its folder's listing says of it.

        :raises FileNotFoundError: it is not listed.
        """
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = {its: its for its in folder.list_objects() if its.is_true}
        try:
            return self._folders[folder][path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None


def _joined(folder: Path, given: str) -> Path:
    """Return the path that a manifest in a folder names; in a store, without ``..``."""
    path = as_path(given)
    if not path.is_absolute():
        path = folder / given
    if not isinstance(path, RemotePath):
        return path if os.path.lexists(path) else in_the_disks_form(path)
    store, bucket, *names = path.parts
    return RemotePath(store, bucket, posixpath.normpath("/".join(["", *names])).lstrip("/"))


def _is_inside(path: Path, folder: Path) -> bool:
    """Tell whether a path leads into a folder, wherever links on its way point."""
    if isinstance(path, RemotePath) or isinstance(folder, RemotePath):
        return path.is_relative_to(folder)
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]!r}..."


def _doubled(images: Mapping[int, CatalogImage]) -> dict[int, str]:
    """Return what is wrong with the lines whose image stands in an earlier line too."""
    lines: dict[tuple[Path, int | None, int | None], int] = {}
    troubles = {}
    for line, image in images.items():
        first = lines.setdefault((image.path.resolve(), image.page, image.channel), line)
        if first != line:
            given = _quoted(image.name)
            troubles[line] = f"expected each image once, received {given} of line {first}"
    return troubles


def _listed_troubles(manifest: Path, troubles: Mapping[int, str]) -> str:
    shown = [f"  line {line}: {troubles[line]}" for line in sorted(troubles)[:_SHOWN_LINES]]
    more = len(troubles) - len(shown)
    return "\n".join(
        [
            f"Expected every line of {str(manifest)!r} to name an image. Received {len(troubles)} "
            "that do not; nothing was read:",
            *shown,
            *([f"  and {more} more"] if more > 0 else []),
        ]
    )


def _listed(names: Sequence[object]) -> str:
    return _first([repr(str(name)) for name in names])


def _first(words: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(words[:most])
    return shown + (f" and {len(words) - most} more" if len(words) > most else "")
