"""Categories: one file of each kind that comes along, and what decoding makes of it, as a table.

    python -m tests.images.categories

Every file shows the same picture, so that the largest difference from it can be told. The table
stands in docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from imagecodecs import avif_encode, jpeg2k_encode
from PIL import Image

from gelkit.images.formats import DecodedImage, DecodeOptions, ImageError, decode
from gelkit.images.luminance import WEIGHTS
from tests.images.made_files import (
    bare_tiff,
    bio_rad_1sc,
    bio_rad_scn,
    heic,
    paged_tiff,
    png_16_bit_colour,
    saved,
    tiff,
)

_HEIGHT, _WIDTH = 24, 32
GREY = (np.add.outer(np.arange(_HEIGHT) * 5, np.arange(_WIDTH) * 4) + 11).astype(np.uint8)
FRACTIONS = GREY.astype(np.float64) / 255
"""The picture, 0 black to 1 white."""
DEEP = GREY.astype(np.uint16) * 257
RED = (FRACTIONS * WEIGHTS[0]).astype(np.float64)
OPACITY = np.where(np.arange(_WIDTH) < 8, 0, 255).astype(np.uint8) * np.ones_like(GREY)


@dataclass(frozen=True)
class Row:
    """One file, and the picture that should come of it; None if it should be refused."""

    category: str
    made: str
    """How the file was made."""
    data: bytes
    expected: npt.NDArray[np.float64] | None = None
    tolerance: float = 0.004
    """Half a step of 8 bits, and what rounding adds; more where the file itself loses it."""
    options: DecodeOptions = field(default_factory=DecodeOptions)


def rows() -> Iterator[Row]:
    """Yield the categories in the order of the table."""
    yield from _grey()
    yield from _colour()
    yield from _pages()
    yield from _instruments()
    yield from _refused()


def _grey() -> Iterator[Row]:
    image = Image.fromarray(GREY)
    for container in ("PNG", "BMP", "GIF", "WEBP"):
        lossless = {"lossless": True} if container == "WEBP" else {}
        yield Row("8-bit grey", f"{container}", saved(image, container, **lossless), FRACTIONS)
    yield Row("8-bit grey", "JPEG", saved(image, "JPEG", quality=95), FRACTIONS, 0.03)
    yield Row("8-bit grey", "JPEG 2000", saved(image, "JPEG2000"), FRACTIONS)
    yield Row("8-bit grey", "AVIF", saved(image, "AVIF", quality=95), FRACTIONS, 0.03)
    yield Row("8-bit grey", "HEIC, lossless", heic(GREY), FRACTIONS)
    for bits in (1, 4, 12):
        yield _packed(bits, photometric=1)
    for dtype in ("uint8", "uint16", "uint32", "uint64"):
        largest = np.iinfo(dtype).max
        values = (
            np.rint(FRACTIONS * float(largest)).astype(dtype)
            if dtype != "uint64"
            else (GREY.astype("uint64") * (largest // 255))
        )
        yield Row(f"{8 * values.itemsize}-bit grey", "TIFF", tiff(values), FRACTIONS)
        yield Row(
            f"{8 * values.itemsize}-bit grey, white is zero",
            "TIFF",
            tiff(np.bitwise_not(values), photometric="miniswhite"),
            FRACTIONS,
        )
    yield _packed(12, photometric=0)
    yield Row("16-bit grey", "PNG", saved(Image.fromarray(DEEP), "PNG"), FRACTIONS)
    yield Row("16-bit grey", "JPEG 2000", saved(Image.fromarray(DEEP), "JPEG2000"), FRACTIONS)
    yield Row("10-bit grey", "HEIC, lossless", heic(DEEP), (DEEP >> 6) / 1023)
    low = (FRACTIONS * 4095).astype(np.uint16)
    most = [(281, "H", 1, 4095, True)]
    yield Row("12 bits in 16, MaxSampleValue 4095", "TIFF", tiff(low, extratags=most), FRACTIONS)
    yield Row("12 bits in 16, nothing said", "TIFF", tiff(low), low / 65535)
    for dtype in ("float16", "float32", "float64"):
        yield Row(f"{dtype} in 0 to 1", "TIFF", tiff(FRACTIONS.astype(dtype)), FRACTIONS)
    beyond = tiff((FRACTIONS * 300).astype(np.float32))
    yield Row("float32 beyond 1", "TIFF", beyond, FRACTIONS / FRACTIONS.max())
    for orientation, stored in _orientations().items():
        tags = [(274, "H", 1, orientation, True)]
        data = tiff(stored, extratags=tags)
        yield Row(f"orientation {orientation}", "TIFF", data, FRACTIONS)


def _packed(bits: int, photometric: int) -> Row:
    most = 2**bits - 1
    levels = np.rint(FRACTIONS * most).astype(np.uint16)
    stored = levels if photometric else most - levels
    places = np.arange(bits)[::-1]
    packed = np.packbits((stored[..., np.newaxis] >> places & 1).astype(bool).reshape(_HEIGHT, -1))
    data = bare_tiff(bits, packed.tobytes(), _WIDTH, _HEIGHT, photometric)
    said = "" if photometric else ", white is zero"
    return Row(f"{bits}-bit grey, packed{said}", "TIFF", data, levels / most)


def _orientations() -> dict[int, npt.NDArray[np.uint8]]:
    """Return how a camera held otherwise would store the picture (EXIF 2.3, tag 274)."""
    return {
        2: GREY[:, ::-1].copy(),
        3: GREY[::-1, ::-1].copy(),
        4: GREY[::-1].copy(),
        5: GREY.T.copy(),
        6: GREY.T[::-1].copy(),
        7: GREY.T[::-1, ::-1].copy(),
        8: GREY.T[:, ::-1].copy(),
    }


def _colour() -> Iterator[Row]:
    grey, red = np.dstack([GREY] * 3), np.dstack([GREY, 0 * GREY, 0 * GREY])
    yield Row("grey as RGB", "PNG", saved(Image.fromarray(grey), "PNG"), FRACTIONS)
    yield Row("red", "PNG", saved(Image.fromarray(red), "PNG"), RED)
    deep_red = np.dstack([DEEP, 0 * DEEP, 0 * DEEP])
    yield Row("16-bit red", "TIFF", tiff(deep_red, photometric="rgb"), RED)
    yield Row("16-bit red", "PNG", png_16_bit_colour(deep_red), RED)
    yield Row("16-bit red", "JPEG 2000", jpeg2k_encode(deep_red, level=0), RED)
    deep = np.rint(np.dstack([FRACTIONS, 0 * FRACTIONS, 0 * FRACTIONS]) * 1023).astype(np.uint16)
    ten = avif_encode(deep, level=100, bitspersample=10, pixelformat="444")
    yield Row("10-bit red", "AVIF", ten, RED, 0.003)
    inks = Image.fromarray(grey).convert("CMYK")
    rule = "four inks, no profile"
    yield Row(rule, "JPEG of Adobe's kind", saved(inks, "JPEG", quality=95), FRACTIONS, 0.03)
    palette = saved(Image.fromarray(grey).quantize(256), "PNG")
    yield Row("palette", "PNG", palette, FRACTIONS)
    opaque = np.dstack([grey, np.full_like(GREY, 255)])
    yield Row("opaque alpha", "PNG", saved(Image.fromarray(opaque), "PNG"), FRACTIONS)
    laid = np.where(OPACITY == 0, 1.0, FRACTIONS)
    see_through = Image.fromarray(np.dstack([grey, OPACITY]))
    yield Row("transparent at the left", "PNG", saved(see_through, "PNG"), laid)
    yield Row("transparent at the left", "WEBP", saved(see_through, "WEBP", lossless=True), laid)


def _pages() -> Iterator[Row]:
    thumbnail = paged_tiff((DEEP, {}), (DEEP[:6, :8].copy(), {}))
    equal = paged_tiff((DEEP, {}), (DEEP[::-1].copy(), {}))
    yield Row("a picture and its thumbnail", "TIFF of 2 pages", thumbnail, FRACTIONS)
    yield Row("pages of equal size", "TIFF of 2 pages", equal)
    second = DecodeOptions(page=2)
    yield Row("the same, --page 2", "TIFF of 2 pages", equal, FRACTIONS[::-1], options=second)
    channels = tiff(np.dstack([DEEP, DEEP[::-1]]), photometric="minisblack", planarconfig="contig")
    yield Row("several channels", "TIFF", channels)
    chosen = DecodeOptions(channel=1)
    yield Row("the same, --channel 1", "TIFF", channels, FRACTIONS, options=chosen)
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    for container in ("GIF", "WEBP", "PNG"):
        moving = saved(frames[0], container, save_all=True, append_images=frames[1:])
        yield Row("animation", container, moving)


def _instruments() -> Iterator[Row]:
    yield Row("Bio-Rad .1sc", "its published layout", bio_rad_1sc(DEEP), FRACTIONS)
    yield Row("Bio-Rad .scn", "its published layout", bio_rad_scn(DEEP), FRACTIONS)
    white = bio_rad_scn(np.bitwise_not(DEEP), zero_is="white")
    yield Row("Bio-Rad .scn, zero is white", "its published layout", white, FRACTIONS)
    roots = np.rint(np.sqrt(FRACTIONS) * 65535).astype(np.uint16)
    tags = [(33445, "I", 1, 2, True), (33446, "2I", 1, (1, 21025), True)]
    yield Row(
        "Molecular Dynamics .gel, square roots", "TIFF", tiff(roots, extratags=tags), FRACTIONS
    )
    yield Row("OME-TIFF", "tifffile", tiff(DEEP, ome=True), FRACTIONS)


def _refused() -> Iterator[Row]:
    image = Image.fromarray(np.dstack([GREY] * 3))
    yield Row("CMYK", "TIFF", saved(image.convert("CMYK"), "TIFF"))
    yield Row("LAB", "TIFF", saved(image.convert("LAB"), "TIFF"))
    yield Row("not a number", "TIFF", tiff(np.where(GREY > 99, np.nan, 1).astype(np.float32)))
    yield Row("negative", "TIFF", tiff((FRACTIONS - 0.5).astype(np.float32)))
    yield Row("complex", "TIFF", tiff(np.ones((8, 8), np.complex64)))
    yield Row("PDF", "its signature", b"%PDF-1.7" + bytes(400))
    yield Row("DICOM", "its signature", bytes(128) + b"DICM" + bytes(400))
    yield Row("JPEG XL", "its signature", b"\0\0\0\x0cJXL " + bytes(400))
    yield Row("Odyssey, iBright, Amersham", "of no known signature", b"\x01\x02own" + bytes(400))
    png = saved(Image.fromarray(GREY), "PNG")
    yield Row("cut off", "PNG", png[: len(png) // 2])
    yield Row("no bytes", "empty", b"")


def difference(row: Row, image: DecodedImage) -> float:
    """Return the largest difference from what is expected, as a fraction of white."""
    if row.expected is None:
        return float("nan")
    scale = 255 if image.pixels.dtype == np.uint8 else 1
    return float(np.abs(image.pixels / scale - row.expected).max())


def outcome(row: Row) -> tuple[str, str]:
    """Return what came out, and the largest difference, as a cell each."""
    try:
        image = decode(row.data, row.options)
    except ImageError as error:
        return f"refused: {error}", ""
    return _described(image), f"{difference(row, image):.5f}"


def _described(image: DecodedImage) -> str:
    its = image.record
    flags = f"; {', '.join(sorted(its.flags))}" if its.flags else ""
    told = f"; {its.polarity} by the file" if its.polarity_source == "file" else ""
    return f"{its.format} {its.mode}, {its.bit_depth} bits, 1 is {its.maximum:g}{told}{flags}"


def as_markdown() -> str:
    """Return the table."""
    cells = [(row.category, row.made, *outcome(row)) for row in rows()]
    return "".join(
        map(_line, [("what", "file", "what came out", "difference"), 4 * ("---",), *cells])
    )


def _line(cells: Sequence[str]) -> str:
    safe = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(safe)} |\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
