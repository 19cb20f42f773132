"""Rasters: PNG, JPEG, JPEG 2000, BMP, GIF, WebP and AVIF, which Pillow reads."""

from __future__ import annotations

import codecs
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from gelkit.images.heif import avif_bits, is_avif
from gelkit.images.inks import without_inks
from gelkit.images.jpeg2000 import read_components
from gelkit.images.luminance import is_coloured, known_orientation, upright
from gelkit.images.pictures import (
    COLOUR_TOLERANCE,
    READ_FORMATS,
    DecodeOptions,
    ImageError,
    Limits,
    Samples,
    StoredPicture,
    chosen,
    full_opacity,
    imported_codecs,
    one_channel,
    require_pages,
    require_size,
)
from gelkit.images.wholeness import require_all_rows, require_sound

PILLOW_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "DIB", "GIF", "WEBP", "AVIF")
"""What is given to Pillow, which reads more: its EPS, for one, would run another program."""

_TAG_ORIENTATION = 274
_PNG_BITS = 24
"""Where a PNG says how many bits its samples have."""
_GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L")
_COLOUR_MODES = ("LA", "P", "PA", "RGB", "RGBA")
_COLOUR_PLACES = (64, 64)
"""Columns and rows in which colour is looked for, as :func:`is_coloured` does in larger arrays."""
_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP  ",
)
"""Signatures that nothing else begins with."""


def read(data: bytes, options: DecodeOptions, limits: Limits) -> StoredPicture:
    """Read a picture through Pillow.

    :raises ImageError: another format, several frames of which none is chosen, a kind of pixel
        that cannot be read with all its bits. Damage raises whatever Pillow raises.
    """
    if is_avif(data) and not features.check("avif"):
        raise ImageError(
            "expected a Pillow that reads AVIF. Received: one that was built without it. "
            "Install Pillow from its wheel: pip install --force-reinstall Pillow"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damage: what matters raises
        try:
            with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
                return _read_opened(image, data, options, limits)
        except UnidentifiedImageError:
            raise ImageError(f"expected {READ_FORMATS}. Received: {_unidentified(data)}") from None


def _unidentified(data: bytes) -> str:
    """Say what bytes are that are no picture, and what to do about that."""
    if not data:
        return "an empty file. Copy or export the image again."
    if data.startswith(_BEGINNINGS) or is_avif(data):
        return "one that is cut off or damaged. Copy or export the image again."
    text = _beginning_of_text(data)
    if text is not None:
        is_page = text.lstrip().lower().startswith(("<!doctype html", "<html"))
        return f"{'a web page (HTML)' if is_page else 'a text file'}. Give the image itself."
    return (
        "something else. The own formats of LI-COR Odyssey, iBright and Amersham imagers are not "
        "read: export a 16-bit TIFF from the imager's program."
    )


def _beginning_of_text(data: bytes) -> str | None:
    """Return what the first 4096 bytes say in UTF-8; None if they are not text alone."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:4096])
    except UnicodeDecodeError:
        return None
    is_text = all(character.isprintable() or character.isspace() for character in text)
    return text if is_text else None


@dataclass(frozen=True)
class _Found:
    """Samples as stored, and what is said of them."""

    samples: Samples
    """Grey, or colour of which a channel is wanted."""
    alpha: Samples | None
    """None if nothing is transparent."""
    coloured: bool
    bits: int = 8
    maximum: int | None = None
    """The value that means 1, if it is not the largest of the samples' type."""
    flags: frozenset[str] = frozenset()


def _read_opened(
    image: Image.Image, data: bytes, options: DecodeOptions, limits: Limits
) -> StoredPicture:
    require_size(image.height, image.width, 2 * len(image.getbands()), limits)
    page, pages, flags = _sought_frame(image, options, limits)
    orientation = known_orientation(image.getexif().get(_TAG_ORIENTATION))
    container, mode = image.format or "unknown", image.mode
    bits = _stored_bits(image, data)
    if bits > 8 and (mode not in _GREY_MODES or container == "AVIF"):
        found = _deep(container, data, pages, bits)
    else:
        found = _through_pillow(image, data, page, options, bits)
    channels = 3 if found.samples.ndim == 3 and options.channel is not None else 1
    return StoredPicture(
        samples=upright(one_channel(found.samples, options.channel), orientation),
        container=container,
        mode=mode,
        bits=found.bits,
        maximum=found.maximum,
        alpha=None if found.alpha is None else upright(found.alpha, orientation),
        orientation=orientation,
        page=page,
        pages=pages,
        channel=options.channel or 1,
        channels=channels,
        flags=(flags | found.flags).union(
            {"colour"} if found.coloured else (),
            {"palette"} if mode in ("P", "PA") else (),
            {"channel-chosen"} if channels > 1 else (),
        ),
    )


def _stored_bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of a sample: of some formats Pillow hands out fewer."""
    if image.format == "PNG":
        return data[_PNG_BITS]
    if image.format == "AVIF":
        return avif_bits(data)
    return _jpeg_2000_bits(image, data) if image.format == "JPEG2000" else 8


def _jpeg_2000_bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of a sample, after the size that is decoded was found to be the declared."""
    components = read_components(data)
    size = (components.width, components.height)
    if image.size != size:
        raise ImageError(
            f"expected {size[0]} x {size[1]} pixels, which are stored. Received: a header that "
            f"says {image.width} x {image.height}. Save it again from the program that wrote it."
        )
    return components.bits


def _through_pillow(
    image: Image.Image, data: bytes, page: int, options: DecodeOptions, bits: int
) -> _Found:
    is_jpeg_2000 = image.format == "JPEG2000"
    require_sound(image, data)
    image.load()
    if page == 1:
        require_all_rows(image, data)
    flags: frozenset[str] = frozenset()
    if image.mode == "CMYK" and image.format == "JPEG":
        image, flags = without_inks(image)
    samples, alpha = _samples(image, options.channel)
    maximum = None
    if is_jpeg_2000 and bits < 8:
        samples = _widened(samples, bits)
    elif is_jpeg_2000 and bits > 8:
        samples, maximum = samples >> (16 - bits), 2**bits - 1
    else:
        bits = 1 if image.mode == "1" else 8 * samples.dtype.itemsize
    return _Found(samples, alpha, _looks_coloured(image), bits, maximum, flags)


def _widened(shifted: Samples, bits: int) -> Samples:
    """Stretch samples of fewer than 8 bits, which Pillow shifts to the top of 8, to all of 8."""
    widened: Samples = np.rint(shifted * (255 / ((2**bits - 1) << (8 - bits)))).astype(np.uint8)
    return widened


def _sought_frame(
    image: Image.Image, options: DecodeOptions, limits: Limits
) -> tuple[int, int, frozenset[str]]:
    """Go to the frame that is asked for, and return its number, how many there are, and flags."""
    frames = getattr(image, "n_frames", 1)
    require_pages(frames, limits)
    if image.format == "MPO" and options.page is None:
        return 1, frames, frozenset({"first-of-several-pictures"})
    index = chosen(options.page, frames, "page")
    if index > 0:
        image.seek(index)
    return index + 1, frames, frozenset()


def _samples(image: Image.Image, channel: int | None) -> tuple[Samples, Samples | None]:
    """Return grey, or colour of which a channel is wanted, and the alpha if it matters.

    Colour becomes luminance within Pillow: by way of an array of colour it takes twice as long.
    """
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ImageError(
            f"expected grey, or red, green and blue. Received: Pillow's mode {image.mode!r}, "
            "which cannot be turned into grey truthfully without its colour profile. "
            "Export it as grey or RGB."
        )
    if image.mode.startswith("I;16"):
        return _deep_grey(image)
    target = "L" if image.mode == "LA" or channel is None else "RGB"
    alpha = None
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A"))
        alpha = opacity if opacity.min() < 255 else None
    if image.mode == "P":
        image = image.convert("RGB")  # from a palette to grey Pillow rounds otherwise
    if image.mode in ("RGB", "RGBA"):
        image = image if image.mode == target else image.convert(target)
    return np.asarray(image), alpha


def _deep_grey(image: Image.Image) -> tuple[Samples, Samples | None]:
    """Return 16-bit grey, and as alpha where it has the value that PNG may call transparent."""
    grey = np.asarray(image)
    value = image.info.get("transparency")
    if value is None or not (grey == value).any():
        return grey, None
    return grey, np.where(grey == value, 0, 65535).astype(np.uint16)


_DECODERS_OF_DEEP = {"PNG": "png_decode", "JPEG2000": "jpeg2k_decode", "AVIF": "avif_decode"}
"""What of imagecodecs keeps the bits that Pillow cuts to 8, by Pillow's name of the format."""


def _deep(container: str, data: bytes, pages: int, bits: int) -> _Found:
    """Return the samples of a file of more than 8 bits, and its alpha, which Pillow would cut.

    Without imagecodecs it is refused rather than reduced: what the same bytes decode to must not
    depend on what is installed.
    """
    if pages > 1:
        raise ImageError(
            f"expected one picture. Received: an animated {container} of more than 8 bits. "
            "Export the frame that is the gel."
        )
    if container == "JPEG2000" and not read_components(data).is_rgb:
        raise ImageError(
            f"expected red, green and blue, or grey. Received: a JPEG 2000 of {bits} bits in "
            "another colour space. Export it as TIFF or PNG."
        )
    imagecodecs = imported_codecs(f"{container} of {bits}-bit samples")
    stored: Samples = getattr(imagecodecs, _DECODERS_OF_DEEP[container])(data)
    depth = 1 if stored.ndim == 2 else stored.shape[-1]
    if stored.dtype != np.uint16 or stored.ndim not in (2, 3) or depth > 4:
        raise ImageError(
            f"expected samples of {bits} bits. Received: {stored.dtype} of shape {stored.shape}. "
            "Save it as an 8-bit or a grey PNG."
        )
    maximum = 2**bits - 1
    stored = stored.reshape(*stored.shape[:2], depth)
    alpha = stored[..., -1] if depth in (2, 4) and stored[..., -1].min() < maximum else None
    samples = stored[..., :3] if depth > 2 else stored[..., 0]
    coloured = samples.ndim == 3 and is_coloured(samples, COLOUR_TOLERANCE / 255 * maximum)
    alpha = None if alpha is None else full_opacity(alpha, maximum)
    return _Found(samples, alpha, coloured, bits, maximum)


def _looks_coloured(image: Image.Image) -> bool:
    if image.mode not in ("P", "PA", "RGB", "RGBA"):
        return False
    places = image.resize(_COLOUR_PLACES, Image.Resampling.NEAREST)
    return is_coloured(np.asarray(places.convert("RGB")), COLOUR_TOLERANCE)
