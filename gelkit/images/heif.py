"""HEIF: photographs of phones and cameras, HEIC, through libheif; and the depth of AVIF."""

from __future__ import annotations

from typing import Any

import numpy as np

from gelkit.images.boxes import boxes_along
from gelkit.images.luminance import is_coloured
from gelkit.images.pictures import (
    COLOUR_TOLERANCE,
    DecodeOptions,
    ImageError,
    Limits,
    Samples,
    StoredPicture,
    chosen,
    full_opacity,
    one_channel,
    require_pages,
    require_size,
)

_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AV1 = frozenset({b"avif", b"avis"})
_ANY = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
"""Brands of files by their compression, and those of all (ISO/IEC 23008-12, annex B)."""


def is_heif(data: bytes) -> bool:
    """Tell whether bytes begin as HEIF does; AVIF, which Pillow reads, is none."""
    brands = _brands(data)
    return not brands & _AV1 and bool(brands & (_HEVC | _ANY))


def is_avif(data: bytes) -> bool:
    """Tell whether bytes begin as AVIF does."""
    return bool(_brands(data) & _AV1)


def _brands(data: bytes) -> frozenset[bytes]:
    """Return the brands that a file names at its beginning."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), len(data), 1024)
    return frozenset({data[8:12], *(data[place : place + 4] for place in range(16, end, 4))})


def avif_bits(data: bytes) -> int:
    """Return the bits of an AVIF's samples: 8, 10 or 12, the most of all pictures in it.

    :raises ImageError: the file does not say.
    """
    described = list(boxes_along(data, b"meta", b"iprp", b"ipco", b"av1C"))
    described += boxes_along(
        data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01", b"av1C"
    )
    if not described:
        raise ImageError(
            "expected an AVIF that says how many bits its samples have. Received: none that does. "
            "Export it as TIFF or PNG."
        )
    depths = [data[box.start + 2] for box in described if box.end - box.start > 2]
    return max((12 if depth & 0x20 else 10) if depth & 0x40 else 8 for depth in depths)


def read(data: bytes, options: DecodeOptions, limits: Limits) -> StoredPicture:
    """Read a HEIC: its primary picture, or the one that is asked for.

    libheif turns it upright by the file's own properties. The orientation in its EXIF says the
    same once more, and is to be ignored (ISO/IEC 23008-12, 6.5.10 and annex A.2.4).

    :raises ImageError: the package pillow-heif is missing, no HEVC, or grey whose range is not
        stated. Damage raises what libheif raises.
    """
    if not _brands(data) & _HEVC:
        raise ImageError(
            "expected a HEIC or an AVIF. Received: HEIF of another compression. "
            "Export it as TIFF or PNG."
        )
    file = _imported().open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    require_pages(len(file), limits)
    asked = options.page is not None
    index = chosen(options.page, len(file), "page") if asked else file.primary_index
    image = file[index]
    width, height = image.size
    require_size(height, width, 8, limits)
    samples, alpha = _samples(image)
    bits = int(image.info["bit_depth"])
    maximum = 2**bits - 1
    colour = samples.ndim == 3
    is_first = len(file) > 1 and not asked
    channels = 3 if colour and options.channel is not None else 1
    said = {
        "first-of-several-pictures": is_first,
        "colour": colour and is_coloured(samples, COLOUR_TOLERANCE / 255 * maximum),
        "channel-chosen": channels > 1,
    }
    return StoredPicture(
        samples=one_channel(samples, options.channel),
        container="HEIC",
        mode=image.mode,
        bits=bits,
        maximum=maximum,
        alpha=None if alpha is None else full_opacity(alpha, maximum),
        premultiplied=image.premultiplied_alpha,
        page=index + 1,
        pages=len(file),
        channel=options.channel or 1,
        channels=channels,
        flags=frozenset(flag for flag, true in said.items() if true),
    )


def _samples(image: Any) -> tuple[Samples, Samples | None]:
    """Return grey or colour of a picture, and its alpha if anything is transparent."""
    stored: Samples = np.asarray(image)
    if stored.ndim == 2 or stored.shape[-1] == 2:
        _require_full_range(image)
    if stored.ndim == 2 or stored.shape[-1] == 3:
        return stored, None
    alpha = stored[..., -1]
    colour = stored[..., 0] if stored.shape[-1] == 2 else stored[..., :3]
    is_opaque = alpha.min() == 2 ** image.info["bit_depth"] - 1
    return colour, None if is_opaque else alpha


def _require_full_range(image: Any) -> None:
    """Check that grey uses the full range: libheif hands it out as it is stored.

    Of colour, libheif itself undoes the narrower range of video.
    """
    if not image.info.get("nclx_profile", {}).get("full_range_flag"):
        raise ImageError(
            "expected grey of the full range, and a file that says so. Received: a HEIC of grey "
            "that does not. Export it as TIFF or PNG."
        )


def _imported() -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            "expected the package pillow-heif, to read HEIC. Received: an environment without it. "
            'Install it with pip install "gelkit[formats]".'
        ) from None
    return pillow_heif
