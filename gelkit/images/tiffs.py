"""TIFF: of every depth, several pages or channels, OME-TIFF, and Molecular Dynamics' .gel."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from gelkit.images.luminance import is_coloured, known_orientation, upright
from gelkit.images.pictures import (
    COLOUR_TOLERANCE,
    UNKNOWN,
    DecodeOptions,
    ImageError,
    LimitError,
    Limits,
    Samples,
    StoredPicture,
    chosen,
    imported_codecs,
    one_channel,
    require_pages,
    require_size,
    type_maximum,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MOST_TAGS = 4096
"""Of a page; tifffile reads no more either."""
_SUBFILE_TYPE = 255
_ORIENTATION = 274
_MAX_SAMPLE_VALUES = (341, 281)
"""SMaxSampleValue, which has the samples' own type, before MaxSampleValue."""
_MEASURES = frozenset(
    {254, 255, 256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 32997, 32998}
)
"""The tags by which sizes and the meaning of numbers are reckoned, each a single number."""
_STRIPS = 273
_TILE_TAGS = frozenset({322, 323, 324, 325})
_DECIDING = _MEASURES | _TILE_TAGS | {258, _STRIPS, 279, 281, 320, 338, 339, 341, 33445}
"""Those tags, and all others that have a say in what the pixels are."""
_WHOLE_NUMBERS = frozenset({3, 4, 16})
"""Types of tags: of 16, 32 and 64 bits, unsigned; tifffile makes text of 8 bits."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_UNSPECIFIED, _PREMULTIPLIED_ALPHA, _ALPHA = 0, 1, 2
"""What an extra sample may be, by tag 338."""
_OPACITIES = frozenset({_PREMULTIPLIED_ALPHA, _ALPHA})

_PLAIN = frozenset({1, 8, 32773, 32946})
"""Compressions that need no further package: none, deflate by its two numbers, PackBits."""
_DEFLATE = frozenset({8, 32946})
_UNPREDICTED = frozenset({1, 32773})
"""Compressions that no predictor goes with: none, and PackBits."""
_LARGEST_DEFLATE_RATIO = 1032
_PILLOW_COMPRESSIONS = _PLAIN | {2, 3, 4, 5, 7}
"""Those that Pillow reads: the fax ones, LZW and JPEG besides."""
_CODECS = _PLAIN | {5, 34925, 34926, 50000}
"""Those that imagecodecs reads within the size the page declares: LZW, LZMA, Zstandard.

JPEG and its like have sizes of their own within, which may be made to exhaust the memory.
"""
_PILLOW_DEPTHS = {
    (_WHITE_IS_ZERO, 1): (1, 2, 4, 8, 16),
    (_BLACK_IS_ZERO, 1): (1, 2, 4, 8, 12, 16),
    (_RGB, 3): (8,),
    (_RGB, 4): (8,),
    (_YCBCR, 3): (8,),
}
"""Bits of a sample that Pillow reads exactly, by photometric interpretation and samples."""

_CLEARLY_LARGER = 4
"""How many times the pixels of the second page the largest has if it is taken unasked."""
_LEICA = "http://www.leica-microsystems.com/scn"
_MD_ENCODINGS = {2: True, 128: False}
"""By the tag of Molecular Dynamics' file: whether samples are square roots."""


def is_tiff(data: bytes) -> bool:
    """Tell whether bytes begin as TIFF or BigTIFF do."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(data: bytes, options: DecodeOptions, limits: Limits) -> StoredPicture:
    """Read one page, or one channel of it.

    :raises ImageError: several pages or channels of which none is chosen, damage, more than the
        limits, or a kind of pixel that cannot be read truthfully. Damage may also raise what
        tifffile, Pillow and the compressions raise.
    """
    from tifffile import TiffFile

    count = _count_directories(data, limits)
    with _quiet(), TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != count:
            raise ImageError(
                f"expected {count} pages, which the file lists. Received: {len(file.pages)} that "
                "can be read. Save it again from the program that wrote it."
            )
        place = _place(file, options)
        page = cast("TiffPage", file.pages[place.index])
        return _read_page(data, file, page, place, options, limits)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's and Pillow's remarks on damage off the screen: what matters is refused."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class _Layout:
    """Where TIFF and BigTIFF keep what; codes of :mod:`struct` without the byte order."""

    first_offset: int
    count: str
    tag: str
    tag_size: int
    offset: str


_LAYOUTS = {42: _Layout(4, "H", "HHI", 12, "I"), 43: _Layout(8, "Q", "HHQ", 20, "Q")}


def _count_directories(data: bytes, limits: Limits) -> int:
    """Count the pages by following their offsets, within the file, the limit, and no circle."""
    order = "<" if data[:2] == b"II" else ">"
    layout = _LAYOUTS[struct.unpack_from(order + "H", data, 2)[0]]
    (offset,) = struct.unpack_from(order + layout.offset, data, layout.first_offset)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ImageError("expected pages one after another. Received: a circle of them.")
        seen.add(offset)
        require_pages(len(seen), limits)
        (tags,) = struct.unpack_from(order + layout.count, data, offset)
        if tags > _MOST_TAGS:
            raise ImageError(
                f"expected at most {_MOST_TAGS:,} tags of a page. Received: {tags:,}. "
                "Save the image again from the program that wrote it."
            )
        first = offset + struct.calcsize(order + layout.count)
        end = first + tags * layout.tag_size
        (offset,) = struct.unpack_from(order + layout.offset, data, end)
        places = range(first, end, layout.tag_size)
        _require_measures([struct.unpack_from(order + layout.tag, data, p) for p in places])
    return len(seen)


def _require_measures(tags: list[tuple[int, int, int]]) -> None:
    """Check the tags of a page that measure the picture, given their code, type and count.

    Each must be a number: a text or a list in its place, times another number, would fill the
    memory. None may be there twice, nor say that the page has both strips and tiles: of these
    tifffile takes one, and Pillow another.
    """
    codes = [code for code, _, _ in tags]
    for code, kind, count in tags:
        if code in _MEASURES and (kind not in _WHOLE_NUMBERS or count != 1):
            raise ImageError(
                f"expected one whole number in tag {code}. Received: {count} of type {kind}. "
                "Save the image again from the program that wrote it."
            )
        if code in _DECIDING and codes.count(code) > 1:
            raise ImageError(
                f"expected tag {code} once. Received: it several times in one page. "
                "Save the image again from the program that wrote it."
            )
    if _STRIPS in codes and _TILE_TAGS.intersection(codes):
        raise ImageError(
            "expected strips or tiles. Received: a page of both. "
            "Save the image again from the program that wrote it."
        )


@dataclass(frozen=True)
class _Place:
    """Which page is read, and what it is one of; numbers from 1."""

    index: int
    page: int
    pages: int
    channel: int | None = None
    channels: int = 1
    flags: frozenset[str] = frozenset()


def _place(file: TiffFile, options: DecodeOptions) -> _Place:
    first = file.pages.first
    _require_readable(first)
    count = len(file.pages)
    if count == 1:
        return _Place(chosen(options.page, 1, "page"), 1, 1)
    if _pages_are_channels(first, count) and options.page is None:
        index = chosen(options.channel, count, "channel")
        flags = frozenset({"channel-chosen"})
        return _Place(index, index + 1, count, index + 1, count, flags)
    if options.page is not None:
        return _Place(chosen(options.page, count, "page"), options.page, count)
    index = _largest_page(file)
    return _Place(index, index + 1, count, flags=frozenset({"page-chosen"}))


def _require_readable(first: TiffPage) -> None:
    if _LEICA in first.description:
        raise ImageError(
            "expected a gel. Received: a Leica .scn file, which is a slide. "
            "Export the region as a TIFF."
        )
    images = re.search(r"^images=(\d+)", first.description, re.MULTILINE)
    if first.imagej_description and images and 1 < int(images[1]) != len(first.parent.pages):
        raise ImageError(
            f"expected a directory for each picture. Received: an ImageJ stack of {images[1]} in "
            "one. Save the slice that is the gel as a file of its own."
        )


def _pages_are_channels(first: TiffPage, count: int) -> bool:
    """Tell whether an OME-TIFF or an ImageJ hyperstack has its channels on its pages.

    Pages of colour are none: OME counts their red, green and blue as channels, too.
    """
    stated = None
    if first.samplesperpixel > 1:
        return False
    if first.is_ome:
        stated = re.search(r'\bSizeC="(\d+)"', first.description)
    elif first.imagej_description:
        stated = re.search(r"^channels=(\d+)", first.description, re.MULTILINE)
    return stated is not None and int(stated[1]) == count


def _largest_page(file: TiffFile) -> int:
    """Return the index of the page that is clearly the picture.

    Thumbnails and masks, which say that they are, do not count; of the others one must have at
    least four times the pixels of the next.
    """
    sizes = {
        index: page.imagelength * page.imagewidth
        for index, page in enumerate(cast("Iterable[TiffPage]", file.pages))
        if not _is_accessory(page)
    }
    if not sizes:
        raise ImageError("expected a picture. Received: thumbnails or masks alone.")
    largest, *others = sorted(sizes, key=lambda index: -sizes[index])
    if others and sizes[largest] < _CLEARLY_LARGER * sizes[others[0]]:
        chosen(None, len(file.pages), "page")
    return largest


def _is_accessory(page: TiffPage) -> bool:
    """Tell whether a page says that it is a reduced version of another or a mask."""
    return bool(page.subfiletype & 0b101) or page.tags.valueof(_SUBFILE_TYPE) == 2


def _read_page(
    data: bytes,
    file: TiffFile,
    page: TiffPage,
    place: _Place,
    options: DecodeOptions,
    limits: Limits,
) -> StoredPicture:
    _require_whole(page, data, limits)
    stored, orientation = _upright_samples(data, page, place.index)
    channel = None if place.channel else options.channel
    samples, alpha = _split(page, stored, channel)
    channels = place.channels if channel is None else _count_channels(page, stored)
    square_root = _is_square_root(file)
    return StoredPicture(
        samples=samples,
        container=_container(page, square_root),
        mode=_mode(page),
        bits=page.bitspersample,
        maximum=_stated_maximum(page, samples),
        white_is_zero=page.photometric == _WHITE_IS_ZERO,
        background=_background(page, square_root),
        square_root=bool(square_root),
        alpha=alpha,
        premultiplied=_PREMULTIPLIED_ALPHA in page.extrasamples,
        orientation=orientation,
        page=place.page,
        pages=place.pages,
        channel=place.channel or channel or 1,
        channels=channels,
        flags=_flags(page, samples, channels) | place.flags,
    )


def _background(page: TiffPage, square_root: bool | None) -> str:
    """Return where no signal lies: white where white is zero, black in counts shown as such."""
    if page.photometric == _WHITE_IS_ZERO:
        return "light-background"
    return UNKNOWN if square_root is None else "dark-background"


def _container(page: TiffPage, square_root: bool | None) -> str:
    if square_root is not None:
        return "Molecular Dynamics GEL"
    return "OME-TIFF" if page.is_ome else "TIFF"


def _require_whole(page: TiffPage, data: bytes, limits: Limits) -> None:
    """Check the declared size against the limits, and every strip or tile against the file."""
    depth = max(8, page.bitspersample) // 8 * page.samplesperpixel
    require_size(page.imagelength * page.imagedepth, page.imagewidth, depth, limits)
    if page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "biuf":
        raise ImageError(
            f"expected a flat picture of real numbers. Received: depth {page.imagedepth}, samples "
            f"of {page.bitspersample} bits ({page.dtype}). Export a 16-bit TIFF."
        )
    if page.is_tiled:
        require_size(page.tilelength, page.tilewidth, depth, limits)
    if page.compression in _UNPREDICTED and page.predictor != 1:
        raise ImageError(
            f"expected no predictor of samples that are not compressed by it. Received: "
            f"{_name(page.predictor)}, which some programs undo and others ignore. "
            "Save the image again from the program that wrote it."
        )
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    inside = all(
        start > 0 and count > 0 and start + count <= len(data) for start, count in segments
    )
    uncompressed = ceil(page.imagewidth * page.bitspersample / 8) * page.imagelength
    short = page.compression == 1 and (
        sum(count for _, count in segments) < uncompressed * page.samplesperpixel
    )
    if not inside or short or len(segments) < prod(page.chunked):
        raise ImageError(
            "expected a TIFF that is whole. Received: one whose pixels lie outside the file or "
            "are missing. Copy it again from where it came."
        )
    if page.compression in _DEFLATE:
        _require_bounded(segments, data, limits)


def _require_bounded(segments: list[tuple[int, int]], data: bytes, limits: Limits) -> None:
    """Inflate what could be a bomb without keeping it: zlib alone would not stop."""
    for start, count in segments:
        if count * _LARGEST_DEFLATE_RATIO <= limits.bytes:
            continue
        inflater, inflated, rest = zlib.decompressobj(), 0, data[start : start + count]
        while rest and not inflater.eof:
            inflated += len(inflater.decompress(rest, 2**24))
            rest = inflater.unconsumed_tail
            if inflated > limits.bytes:
                raise LimitError(
                    f"expected at most {limits.bytes:,} bytes. Received: a strip of {count:,} "
                    "bytes that inflates to more. Raise --max-bytes if it is a gel."
                )


def _upright_samples(data: bytes, page: TiffPage, index: int) -> tuple[Samples, int]:
    """Return what is stored, (height, width) or (height, width, samples), and its orientation."""
    orientation = known_orientation(page.tags.valueof(_ORIENTATION))
    if not _is_plain(page) and _pillow_reads(page):
        return _through_pillow(data, page, index), orientation
    if page.photometric == _YCBCR:
        raise ImageError(
            "expected grey or RGB. Received: YCbCr that is not JPEG. Save it again as RGB."
        )
    if page.compression not in _CODECS:
        raise ImageError(
            f"expected a compression of bytes. Received: {_name(page.compression)}, of a kind of "
            "pixel that is not read so. Save it again uncompressed or with LZW."
        )
    if not _is_plain(page):
        imported_codecs(f"TIFF of compression {_name(page.compression)}")
    separate, _, height, width, together = page.shaped
    planes = page.asarray(squeeze=False, maxworkers=1).reshape(separate, height, width, together)
    stored: Samples = np.moveaxis(planes, 0, -2).reshape(height, width, separate * together)
    return upright(stored[..., 0] if stored.shape[-1] == 1 else stored, orientation), orientation


def _is_plain(page: TiffPage) -> bool:
    return (
        page.compression in _PLAIN
        and page.bitspersample in (8, 16, 32, 64)
        and page.predictor in (1, 2)
        and page.fillorder == 1
        and page.photometric != _YCBCR
    )


def _pillow_reads(page: TiffPage) -> bool:
    """Tell whether Pillow reads all that is stored."""
    depths = _PILLOW_DEPTHS.get((int(page.photometric), page.samplesperpixel), ())
    return (
        page.compression in _PILLOW_COMPRESSIONS
        and page.sampleformat == 1
        and page.bitspersample in depths
        and (page.samplesperpixel < 4 or _is_plain_alpha(page))
    )


def _is_plain_alpha(page: TiffPage) -> bool:
    """Tell whether the fourth sample is opacity that no colour has been multiplied by.

    Pillow would divide by it, and takes samples of no known meaning for nothing.
    """
    return tuple(page.extrasamples) == (_ALPHA,) and page.planarconfig == 1


def _through_pillow(data: bytes, page: TiffPage, index: int) -> Samples:
    """Read the page through Pillow, which turns it upright and undoes WhiteIsZero up to 8 bits."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        image.seek(index)
        _require_understood(image, page)
        image.load()
        if page.photometric in (_RGB, _YCBCR):
            return np.asarray(image if image.mode == "RGBA" else image.convert("RGB"))
        samples = np.asarray(image)
        if samples.ndim != 2 or samples.dtype not in (bool, np.uint8, np.uint16):
            raise ImageError(
                f"expected grey of up to 16 bits. Received: Pillow's mode {image.mode!r}. "
                "Save it again as an uncompressed 16-bit TIFF."
            )
        shown = page.photometric == _WHITE_IS_ZERO and samples.dtype in (bool, np.uint8)
        return np.invert(samples) if shown else samples


def _require_understood(image: Image.Image, page: TiffPage) -> None:
    """Check that Pillow read the tags as tifffile did: it stops at the first one that is damaged.

    Without its orientation, which lies behind others, a picture would come out unturned.
    """
    orientation = known_orientation(page.tags.valueof(_ORIENTATION))
    size = sorted((page.imagewidth, page.imagelength))
    seen = known_orientation(image.getexif().get(_ORIENTATION))
    if seen != orientation or sorted(image.size) != size:
        raise ImageError(
            f"expected {page.imagewidth} x {page.imagelength} pixels of orientation {orientation}. "
            f"Received: {image.width} x {image.height} of orientation {seen} from Pillow. "
            "Save it again from the program that wrote it."
        )


def _split(page: TiffPage, stored: Samples, channel: int | None) -> tuple[Samples, Samples | None]:
    """Tell grey, colour and alpha apart from channels, of which one must be chosen."""
    extras = list(page.extrasamples)
    opacity = next((i for i, e in enumerate(extras) if e in _OPACITIES), None)
    alpha = None
    if opacity is not None and stored.ndim == 3:
        alpha = stored[..., stored.shape[-1] - len(extras) + opacity]
        alpha = None if alpha.min() == type_maximum(alpha.dtype) else alpha
    if page.photometric == _RGB and stored.ndim == 3 and stored.shape[-1] >= 3:
        return one_channel(stored[..., :3], channel), alpha
    if page.photometric == _PALETTE and stored.ndim == 2:
        return one_channel(_coloured(page, stored), channel), None
    if page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        if stored.ndim == 3 and opacity is not None and stored.shape[-1] == 2:
            stored = stored[..., 0]
        if stored.ndim == 2:
            chosen(channel, 1, "channel")
            return stored, alpha
        return stored[..., chosen(channel, stored.shape[-1], "channel")], None
    raise ImageError(
        f"expected grey, RGB or a palette. Received: {_name(page.photometric)} of "
        f"{page.samplesperpixel} samples. Export it as grey or RGB."
    )


def _count_channels(page: TiffPage, stored: Samples) -> int:
    """Return among how many channels :func:`_split` chooses one."""
    if page.photometric in (_RGB, _PALETTE):
        return 3
    count = prod(stored.shape[2:])
    return 1 if count == 2 and not _OPACITIES.isdisjoint(page.extrasamples) else count


def _name(value: int) -> str:
    """Return how tifffile calls what a number stands for, or the number."""
    return str(getattr(value, "name", value))


def _coloured(page: TiffPage, indices: Samples) -> Samples:
    """Look indices up in the palette: 8 bits where its 16-bit entries hold no more, else 16.

    Entries that are all below 256 are of 8 bits, as old programs wrote them: libtiff's rule.
    """
    palette, shape = page.colormap, (3, 2**page.bitspersample)
    if palette is None or palette.shape != shape or palette.dtype != np.uint16:
        raise ImageError(
            f"expected a palette of {shape[1]} colours. Received: none, or another. "
            "Save it again as grey or RGB."
        )
    colour = np.moveaxis(palette[:, indices], 0, -1)
    if palette.max() < 256:
        return colour.astype(np.uint8)
    high, low = palette >> 8, palette & 0xFF
    shallow = bool(((low == high) | (low == 0)).all())
    return (colour >> 8).astype(np.uint8) if shallow else colour.astype(np.uint16)


def _stated_maximum(page: TiffPage, samples: Samples) -> float | None:
    """Return the largest value that the file allows, by its tags or its bits."""
    if samples.dtype in (bool, np.uint8):
        return None
    for code in _MAX_SAMPLE_VALUES:
        value = page.tags.valueof(code)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, (int, float)) and 0 < value <= _largest(page, samples):
            return float(value)
    return _largest(page, samples) if samples.dtype.kind == "u" else None


def _largest(page: TiffPage, samples: Samples) -> float:
    if samples.dtype.kind == "f":
        return float(np.finfo(np.float64).max)
    if page.photometric == _PALETTE or page.sampleformat != 1:
        return type_maximum(samples.dtype)
    return float(2**page.bitspersample - 1)


def _is_square_root(file: TiffFile) -> bool | None:
    """Return whether a Molecular Dynamics file holds square roots; None of other files.

    MDFileTag is 2 where samples are square roots of counts, 128 where they are counts. Counts
    are samples (squared) times MDScalePixel, which cancels where 1 means the largest count.
    """
    metadata = file.mdgel_metadata
    if metadata is None:
        return None
    encoding = metadata.get("FileTag")
    if encoding not in _MD_ENCODINGS:
        raise ImageError(
            f"expected square roots (2) or counts (128). Received: the Molecular Dynamics file "
            f"tag {encoding}. Export it as a linear 16-bit TIFF."
        )
    return _MD_ENCODINGS[encoding]


def _flags(page: TiffPage, samples: Samples, channels: int) -> frozenset[str]:
    said = {
        "palette": page.photometric == _PALETTE,
        "channel-chosen": channels > 1,
        "channels-left-out": page.photometric == _RGB and _UNSPECIFIED in page.extrasamples,
        "colour": samples.ndim == 3
        and is_coloured(samples, COLOUR_TOLERANCE / 255 * type_maximum(samples.dtype)),
    }
    return frozenset(flag for flag, true in said.items() if true)


def _mode(page: TiffPage) -> str:
    """Return Pillow's name of how a pixel is stored; where it has none, NumPy's of the sample."""
    kind = page.dtype.name if page.dtype is not None else "unknown"
    samples = page.samplesperpixel
    if page.photometric == _PALETTE:
        return "P"
    if page.photometric in (_RGB, _YCBCR):
        colour = "RGB" if samples == 3 else "RGBA"
        return colour if kind == "uint8" else f"{colour} {kind}"
    name = "1" if page.bitspersample == 1 else {"uint8": "L", "uint16": "I;16"}.get(kind, kind)
    return name if samples == 1 else f"{samples} x {name}"
