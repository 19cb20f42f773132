"""Findings: files that fuzzing found to decode to something that they do not say."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from made_files import bio_rad_1sc, bitmap, png_chunk, saved, tiff
from PIL import Image

from gelkit.images.formats import DecodeOptions, ImageError, decode

GREY = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
PALETTE = np.stack([np.arange(256, dtype=np.uint16)] * 3)
BLACK_AND_WHITE = (GREY > 100).astype(np.uint8)


def _entry(data: bytes, code: int) -> int:
    """Return where the entry of a tag lies in a small TIFF of one page."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    places = range(directory + 2, directory + 2 + 12 * count, 12)
    return next(place for place in places if struct.unpack_from("<H", data, place)[0] == code)


def _renamed(data: bytes, code: int, other: int) -> bytes:
    """Give a tag the code of another."""
    place = _entry(data, code)
    return data[:place] + struct.pack("<H", other) + data[place + 2 :]


def _retyped_palette() -> bytes:
    """Say that a palette's numbers have 8 bits."""
    data = tiff(GREY, photometric="palette", colormap=PALETTE * 257)
    place = _entry(data, 320) + 2
    return data[:place] + struct.pack("<H", 1) + data[place + 2 :]


def _predicted() -> bytes:
    """Say of pixels that are not compressed that they were predicted from their neighbours."""
    data = _renamed(tiff(DEEP, software="x"), 305, 317)
    place = _entry(data, 317)
    return data[:place] + struct.pack("<HHIHH", 317, 3, 1, 2, 0) + data[place + 12 :]


def _two_heights() -> bytes:
    """Give a page two heights, of which tifffile takes the first and Pillow the last."""
    data = saved(Image.fromarray(BLACK_AND_WHITE > 0), "TIFF", compression="group4")
    place, height = _entry(data, 278), _entry(data, 257)
    other = struct.pack("<HHII", 257, 4, 1, 7)
    assert place > height
    return data[:place] + other + data[place + 12 :]


def _two_palettes() -> bytes:
    """Give a page two palettes, of which tifffile takes the one and libtiff the other."""
    data = tiff(GREY, photometric="palette", colormap=PALETTE * 257, software="x")
    place = _entry(data, 320)
    return data.replace(data[_entry(data, 296) : _entry(data, 296) + 12], data[place : place + 12])


def _one_bit_of(data: bytes) -> Iterator[bytes]:
    """Yield a PNG with each of the bits flipped that lie in its pixels."""
    first, last = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for place in range(first, last):
        for bit in range(8):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def _hidden_orientation() -> bytes:
    """Let a tag before the orientation reach beyond the file: Pillow reads none behind it."""
    picture, exif = Image.fromarray(DEEP), Image.Exif()
    exif[270], exif[274] = "a gel of long ago", 6
    data = saved(picture, "TIFF", compression="tiff_lzw", exif=exif)
    place = _entry(data, 270) + 4
    return data[:place] + struct.pack("<I", 200) + data[place + 4 :]


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def _png_header(width: int, height: int, colour: int = 0, interlaced: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced)


def _rows(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the rows of a PNG before they are compressed, each with its filter: none."""
    return b"".join(b"\0" + row.tobytes() for row in pixels) if pixels.size else b""


def _interlaced(pixels: npt.NDArray[np.uint8], missing: int = 0) -> bytes:
    """Return an interlaced PNG, of which no writer is at hand, without so many bytes."""
    firsts = ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0))
    steps = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
    passes = [
        pixels[top::down, left::right]
        for (top, left), (down, right) in zip(firsts, steps, strict=True)
    ]
    header = _png_header(pixels.shape[1], pixels.shape[0], interlaced=1)
    rows = b"".join(map(_rows, passes))
    content = zlib.compress(rows[: len(rows) - missing])
    return _png((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))


def _narrow_animation() -> bytes:
    """Return an animation whose first frame is narrower than the picture."""
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    return data.replace(data[8:33], png_chunk(b"IHDR", _png_header(256, 24)))


_HEADER = (b"IHDR", _png_header(32, 24))
_PALETTED = (b"IHDR", _png_header(32, 24, colour=3))
_COLOURS = (b"PLTE", bytes(range(0, 255, 17)) * 3)
_CLEAR = (b"tRNS", bytes(15))
_PIXELS = (b"IDAT", zlib.compress(_rows(GREY % 15)))
_END = (b"IEND", b"")

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bitmap of 8 bits whose palette is black and white": (
        lambda: bitmap(8, [0, 255], BLACK_AND_WHITE.tobytes()),
        "one of black and white, or of few greys, of 8 bits",
    ),
    "a bitmap of 4 bits whose palette is black and white": (
        lambda: bitmap(4, [0, 255], BLACK_AND_WHITE[:, ::2].tobytes()),
        "of 4 bits",
    ),
    "a PNG of fewer rows than it says": (
        lambda: _png((b"IHDR", _png_header(32, 40)), _PIXELS, _END),
        "expected 40 rows",
    ),
    "an interlaced PNG of fewer rows than it says": (
        lambda: _interlaced(GREY[:23], missing=33),
        "expected 23 rows",
    ),
    "an animated PNG of a frame that is too narrow": (_narrow_animation, "expected 24 rows"),
    "a PNG of two headers": (lambda: _png(_HEADER, _HEADER, _PIXELS, _END), "several"),
    "a PNG without its palette": (lambda: _png(_PALETTED, _PIXELS, _END), "a whole palette"),
    "a PNG whose palette comes late": (
        lambda: _png(_PALETTED, _PIXELS, _COLOURS, _PIXELS, _END),
        "a whole palette",
    ),
    "a PNG of two palettes": (
        lambda: _png(_PALETTED, _COLOURS, _COLOURS, _PIXELS, _END),
        "a whole palette",
    ),
    "a PNG that says twice what is transparent": (
        lambda: _png(_PALETTED, _COLOURS, _CLEAR, _CLEAR, _PIXELS, _END),
        "transparent once",
    ),
    "a PNG that says it behind its pixels": (
        lambda: _png(_HEADER, _PIXELS, (b"tRNS", b"\0\1"), _END),
        "transparent once",
    ),
    "a PNG that says it before its palette": (
        lambda: _png(_PALETTED, _CLEAR, _COLOURS, _PIXELS, _END),
        "transparent once",
    ),
    "a PNG with more transparency than colours": (
        lambda: _png(_PALETTED, _COLOURS, (b"tRNS", bytes(16)), _PIXELS, _END),
        "transparent once",
    ),
    "a PNG with half a transparent colour": (
        lambda: _png(_HEADER, (b"tRNS", bytes(3)), _PIXELS, _END),
        "transparent once",
    ),
    "a PNG whose palette is broken off": (
        lambda: _png(_PALETTED, (b"PLTE", bytes(46)), _PIXELS, _END),
        "a whole palette",
    ),
    "a page of strips and tiles": (lambda: _renamed(tiff(DEEP), 278, 323), "a page of both"),
    "a page of two heights": (_two_heights, "tag 257 once"),
    "a predictor of what is not compressed": (_predicted, "expected no predictor"),
    "a page of two palettes": (_two_palettes, "tag 320 once"),
    "an orientation that only one program sees": (_hidden_orientation, "orientation 1 from Pillow"),
    "a page of very many tags": (
        lambda: b"II*\0" + struct.pack("<IH", 8, 60_000) + bytes(800_000),
        "at most 4,096 tags",
    ),
    "a scan of a byte order that is damaged": (
        lambda: bio_rad_1sc(DEEP).replace(b"Intel Format", b"Intel For\0\0\0"),
        "another byte order",
    ),
    "a palette of bytes": (_retyped_palette, "a palette of 256 colours"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_two_programs_read_differently_is_refused(kind: str) -> None:
    """One library's guess would be taken for the gel; another program shows another picture."""
    make, reason = REFUSED[kind]
    with pytest.raises(ImageError, match=reason):
        decode(make(), DecodeOptions(page=1))


def test_no_bit_of_a_pngs_pixels_can_be_damaged_unseen() -> None:
    """Some damage that a copy leaves would change a gel without a word: Pillow sees most of it."""
    whole = saved(Image.fromarray(GREY[:6, :8].copy()), "PNG")
    decode(whole)
    unseen = 0
    for damaged in _one_bit_of(whole):
        with suppress(ImageError):
            decode(damaged)
            unseen += 1
    assert unseen == 0


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("value", [0, 255])
def test_a_png_whose_rows_are_all_there_is_read(height: int, value: int) -> None:
    """Black margins, and the rare PNGs whose rows are not in order, would be taken for damage."""
    for width in range(1, 10):
        pixels = GREY[:height, :width].copy()
        pixels[-1] = value
        assert np.array_equal(decode(_interlaced(pixels)).pixels, pixels)
        header = (b"IHDR", _png_header(width, height))
        plain = _png(header, (b"IDAT", zlib.compress(_rows(pixels))), _END)
        assert np.array_equal(decode(plain).pixels, pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_black_rows_of_few_bits_are_counted(bits: int) -> None:
    """Black pictures of 1, 2 or 4 bits would be taken for damage."""
    for width in (1, 3, 7, 8, 9, 31):
        picture = Image.new("P", (width, 5))
        picture.putpalette(bytes(3 * 2**bits))
        assert not decode(saved(picture, "PNG", bits=bits)).pixels.any()
    for mode in ("1", "L", "LA", "RGB", "RGBA", "I;16"):
        assert decode(saved(Image.new(mode, (7, 5)), "PNG")).pixels.shape == (5, 7)


def test_few_colours_that_pillow_reads_rightly_are_read() -> None:
    """Bitmaps of few colours would be refused although nothing is wrong with them."""
    one_bit = np.packbits(BLACK_AND_WHITE, axis=1).tobytes()
    other = bitmap(8, [10, 240, 100], BLACK_AND_WHITE.tobytes())
    for data, black, white in ((bitmap(1, [0, 255], one_bit), 0, 255), (other, 10, 240)):
        expected = np.where(BLACK_AND_WHITE[::-1] > 0, white, black)
        assert np.array_equal(decode(data).pixels, expected)


def test_a_palette_of_8_bits_in_a_tiff_is_not_nearly_black() -> None:
    """Palettes that old programs wrote with 8 bits instead of 16 would turn gels black."""
    old, new = (
        decode(tiff(GREY, photometric="palette", colormap=PALETTE * scale)) for scale in (1, 257)
    )
    assert np.array_equal(old.pixels, new.pixels)
    assert np.array_equal(old.pixels, GREY)


CHOSEN_OF_THREE = {
    "PNG": saved(Image.fromarray(COLOUR), "PNG"),
    "PNG with a palette": saved(Image.fromarray(COLOUR).quantize(9), "PNG"),
    "TIFF": tiff(COLOUR, photometric="rgb"),
    "TIFF with alpha": tiff(
        np.dstack([COLOUR, np.full_like(GREY, 255)]), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "TIFF with a palette": tiff(GREY, photometric="palette", colormap=PALETTE * 257),
}


@pytest.mark.parametrize("container", CHOSEN_OF_THREE)
def test_a_channel_that_was_chosen_is_told_of(container: str) -> None:
    """Nobody could see from the listing that one colour was taken, or of how many."""
    record = decode(CHOSEN_OF_THREE[container], DecodeOptions(channel=2)).record
    assert (record.channel, record.channels) == (2, 3)
    assert "channel-chosen" in record.flags
    with pytest.raises(ImageError, match="from 1 to 3"):
        decode(CHOSEN_OF_THREE[container], DecodeOptions(channel=4))


def test_grey_with_alpha_has_one_channel() -> None:
    """The alpha of a screenshot would be counted as a channel."""
    stored = np.dstack([DEEP, np.full_like(DEEP, 65535)])
    data = tiff(stored, photometric="minisblack", planarconfig="contig", extrasamples=[2])
    record = decode(data, DecodeOptions(channel=1)).record
    assert record.channels == 1
    assert "channel-chosen" not in record.flags
