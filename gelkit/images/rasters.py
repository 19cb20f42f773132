"""Rasters: PNG, JPEG, BMP, GIF and WebP, which Pillow reads."""

from __future__ import annotations

import codecs
import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from gelkit.images.luminance import is_coloured, known_orientation, upright
from gelkit.images.pictures import (
    DecodeOptions,
    ImageError,
    Limits,
    Samples,
    StoredPicture,
    chosen,
    imported_codecs,
    one_channel,
    require_pages,
    require_size,
)
from gelkit.images.wholeness import require_all_rows, require_sound

PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP")
"""What is given to Pillow, which reads more: its EPS, for one, would run another program."""

_TAG_ORIENTATION = 274
_GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L")
_COLOUR_MODES = ("LA", "P", "PA", "RGB", "RGBA")
_COLOUR_PLACES = (64, 64)
"""Columns and rows in which colour is looked for, as :func:`is_coloured` does in larger arrays."""
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
"""Signatures that nothing else begins with."""
COLOUR_TOLERANCE = 16
"""Of 255: JPEG's rounding tints grey by a few values, and a tint within this loses nothing."""


def read(data: bytes, options: DecodeOptions, limits: Limits) -> StoredPicture:
    """Read a picture through Pillow.

    :raises ImageError: another format, several frames of which none is chosen, a kind of pixel
        that cannot be read with all its bits. Damage raises whatever Pillow raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damage: what matters raises
        try:
            with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
                return _read_opened(image, data, options, limits)
        except UnidentifiedImageError:
            raise ImageError(
                "expected PNG, JPEG, TIFF, BMP, GIF or WebP, or a .gel, .1sc or .scn file. "
                f"Received: {_unidentified(data)}"
            ) from None


def _unidentified(data: bytes) -> str:
    """Say what bytes are that are no picture, and what to do about that."""
    if not data:
        return "an empty file. Copy or export the image again."
    if data.startswith(_BEGINNINGS):
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


def _read_opened(
    image: Image.Image, data: bytes, options: DecodeOptions, limits: Limits
) -> StoredPicture:
    require_size(image.height, image.width, 2 * len(image.getbands()), limits)
    page, pages, flags = _sought_frame(image, options, limits)
    orientation = known_orientation(image.getexif().get(_TAG_ORIENTATION))
    mode = image.mode
    if image.format == "PNG" and data[24] == 16 and mode not in _GREY_MODES:
        samples, alpha = _deep_png(data, pages)
        coloured = samples.ndim == 3 and is_coloured(samples, 257 * COLOUR_TOLERANCE)
    else:
        require_sound(image, data)
        image.load()
        if page == 1:
            require_all_rows(image, data)
        samples, alpha = _samples(image, options.channel)
        coloured = _looks_coloured(image)
    channels = 3 if samples.ndim == 3 and options.channel is not None else 1
    return StoredPicture(
        samples=upright(one_channel(samples, options.channel), orientation),
        container=image.format or "unknown",
        mode=mode,
        bits=1 if mode == "1" else 8 * samples.dtype.itemsize,
        alpha=None if alpha is None else upright(alpha, orientation),
        orientation=orientation,
        page=page,
        pages=pages,
        channel=options.channel or 1,
        channels=channels,
        flags=flags.union(
            {"colour"} if coloured else (),
            {"palette"} if mode in ("P", "PA") else (),
            {"channel-chosen"} if channels > 1 else (),
        ),
    )


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


def _deep_png(data: bytes, pages: int) -> tuple[Samples, Samples | None]:
    """Return colour or grey of a 16-bit PNG, and its alpha, which Pillow would cut to 8 bits.

    Without imagecodecs it is refused rather than reduced: what the same bytes decode to must not
    depend on what is installed.
    """
    if pages > 1:
        raise ImageError(
            "expected one picture. Received: an animated PNG of 16-bit colour. "
            "Export the frame that is the gel."
        )
    imagecodecs = imported_codecs("PNG of 16-bit colour")
    stored: Samples = imagecodecs.png_decode(data)
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[-1] not in (2, 3, 4):
        raise ImageError(
            f"expected 16-bit colour. Received: {stored.dtype} of shape {stored.shape}. "
            "Save it as an 8-bit or a grey PNG."
        )
    opacity = stored[..., -1]
    transparent = stored.shape[-1] != 3 and opacity.min() < 65535
    colour = stored[..., 0] if stored.shape[-1] == 2 else stored[..., :3]
    return colour, opacity if transparent else None


def _looks_coloured(image: Image.Image) -> bool:
    if image.mode not in ("P", "PA", "RGB", "RGBA"):
        return False
    places = image.resize(_COLOUR_PLACES, Image.Resampling.NEAREST)
    return is_coloured(np.asarray(places.convert("RGB")), COLOUR_TOLERANCE)
