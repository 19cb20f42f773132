"""Decoding: what a file holds is what comes out, or an error that says why not."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gelkit.images.formats import ImageError, decode

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
SEED = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


def _saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _tiff(values: npt.NDArray[np.generic], **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize("container", ["PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_8_bit_grey_comes_out_as_it_is(container: str) -> None:
    """Values of a gel would be changed by reading it."""
    options = {"lossless": True} if container == "WEBP" else {}
    decoded = decode(_saved(Image.fromarray(SEED), container, **options))
    assert np.array_equal(decoded.pixels, SEED)
    assert (decoded.record.height, decoded.record.width) == SEED.shape
    assert decoded.record.format == container
    assert decoded.record.bit_depth == 8


@pytest.mark.parametrize("encode", [lambda v: _saved(Image.fromarray(v), "PNG"), _tiff])
def test_16_bit_is_8_bit_times_257(encode: Callable[[npt.NDArray[np.uint16]], bytes]) -> None:
    """A 16-bit export would look different from the 8-bit one of the same gel: white, mostly."""
    decoded = decode(encode(SEED.astype(np.uint16) * 257))
    assert decoded.pixels.dtype == np.float32
    np.testing.assert_allclose(decoded.pixels, SEED / np.float32(255), atol=1e-6)
    assert decoded.record.bit_depth == 16


@settings(max_examples=30, deadline=None)
@given(scale=st.integers(1, 65535 // 252))
def test_twice_the_value_stays_twice_the_value(scale: int) -> None:
    """A faint exposure would be clipped or stretched before anyone measured it."""
    values = RAMP.astype(np.uint16) * scale
    np.testing.assert_allclose(decode(_tiff(values)).pixels, values / 65535, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_inverted_once(bits: int) -> None:
    """Scanners that store white as zero would give gels of the wrong polarity."""
    full = 2**bits - 1
    values = (RAMP.astype(np.uint32) * full // 255).astype(f"uint{bits}")
    decoded = decode(_tiff(full - values, photometric="miniswhite"))
    scale = 1 if bits == 8 else full
    np.testing.assert_allclose(decoded.pixels * np.float64(scale), values, atol=0.01)
    assert decoded.record.flags == {"inverted"}


def test_the_largest_value_a_file_names_is_one() -> None:
    """A 12-bit camera's image would come out sixteen times too dark."""
    values = RAMP.astype(np.uint16) * 16
    decoded = decode(_tiff(values, extratags=[(281, "H", 1, 4095, True)]))
    np.testing.assert_allclose(decoded.pixels, values / 4095, rtol=1e-6)
    with pytest.raises(ImageError, match="values up to 100"):
        decode(_tiff(values, extratags=[(281, "H", 1, 100, True)]))


def _oriented(container: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    quality = {"quality": 100} if container == "JPEG" else {}
    image = Image.linear_gradient("L").resize((40, 24)).rotate(30, fillcolor=200)
    return _saved(image, container, exif=exif, **quality)


@pytest.mark.parametrize("container", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(container: str, orientation: int) -> None:
    """Photographs would lie on their side, or be turned twice."""
    plain = Image.fromarray(np.asarray(decode(_oriented(container, 1)).pixels))
    plain.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(plain))
    decoded = decode(_oriented(container, orientation))
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.record.flags == (set() if orientation == 1 else {"rotated"})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "PA"])
def test_grey_stored_as_colour_is_the_same_grey(mode: str) -> None:
    """Saving a gel in colour would change its values."""
    image = Image.fromarray(RAMP).convert("RGBA" if mode == "PA" else mode)
    container = "TIFF" if mode == "PA" else "PNG"
    decoded = decode(_saved(image, container))
    assert np.abs(decoded.pixels.astype(int) - RAMP).max() <= 1
    assert decoded.record.flags == set()


def test_colour_becomes_luminance() -> None:
    """Colour photographs would be weighed otherwise than the documentation says."""
    colour = Image.new("RGB", (4, 4), (200, 100, 50))
    expected = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert np.all(np.abs(decode(_saved(colour, "PNG")).pixels.astype(int) - expected) <= 1)


def test_transparency_lies_on_white() -> None:
    """Transparent parts would be black or random, from one program to the next."""
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.putpixel((1, 2), (0, 0, 0, 0))
    decoded = decode(_saved(image, "PNG"))
    assert decoded.pixels[2, 1] == 255
    assert decoded.pixels[0, 0] == 0
    assert decoded.record.flags == {"transparent"}


def test_one_bit_is_black_and_white() -> None:
    """Scans of 1 bit would be nearly black."""
    decoded = decode(_saved(Image.fromarray(RAMP > 100), "TIFF"))
    assert np.array_equal(decoded.pixels, np.where(RAMP > 100, 255, 0))
    assert decoded.record.bit_depth == 1


def test_colour_of_16_bits_says_that_it_was_reduced() -> None:
    """Precision would be lost without a word."""
    colour = np.stack([SEED.astype(np.uint16) * 257] * 3, axis=-1)
    decoded = decode(_png_16_bit_colour(colour))
    assert decoded.record.flags == {"reduced-to-8-bit"}
    assert np.abs(decoded.pixels.astype(int) - SEED).max() <= 1


def _png_16_bit_colour(values: npt.NDArray[np.uint16]) -> bytes:
    """Write what Pillow cannot: a PNG of three 16-bit channels."""
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


REFUSED = {
    "CMYK": (_saved(Image.new("CMYK", (4, 4)), "JPEG"), "mode 'CMYK'"),
    "float": (_tiff(np.ones((4, 4), np.float32)), "mode 'F'"),
    "32 bit": (_tiff(np.ones((4, 4), np.int32)), "mode 'I'"),
    "several pages": (_tiff(np.zeros((3, 8, 8), np.uint8), photometric="minisblack"), "3 pages"),
    "square roots": (_tiff(RAMP.astype(np.uint16), extratags=[(33445, "I", 1, 2, True)]), "linear"),
    "half a file": (_saved(Image.fromarray(SEED), "PNG")[:200], "whole"),
    "text": (b"lane,band\n1,200\n", "something else"),
    "nothing": (b"", "something else"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_truthfully_is_refused(kind: str) -> None:
    """A wrong picture would be taken for the gel, without a word."""
    data, reason = REFUSED[kind]
    with pytest.raises(ImageError, match="xpected") as refusal:
        decode(data)
    assert reason in str(refusal.value)


VALID = [
    _saved(Image.fromarray(SEED), "PNG"),
    _saved(Image.fromarray(SEED), "JPEG"),
    _tiff(SEED.astype(np.uint16) * 200),
    _oriented("TIFF", 6),
    _saved(Image.fromarray(SEED), "GIF"),
]


@settings(max_examples=300, deadline=None)
@given(
    valid=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    length=st.floats(0.1, 1),
)
@pytest.mark.filterwarnings("ignore")  # Pillow's own remarks on damaged files
def test_damage_is_an_image_error_or_a_picture(
    valid: bytes, edits: list[tuple[float, int]], length: float
) -> None:
    """One damaged file among thousands would end the run with a traceback."""
    data = bytearray(valid[: int(len(valid) * length)])
    for place, value in edits:
        data[int(place * len(data))] = value
    try:
        decoded = decode(bytes(data))
    except ImageError:
        return
    assert decoded.pixels.ndim == 2
    assert decoded.pixels.dtype in (np.uint8, np.float32)
