"""Decoding: what a file holds is what comes out, or an error that says why not."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import png_16_bit_colour, png_chunk, saved, tiff
from PIL import Image

from gelkit.errors import UsageError
from gelkit.images.formats import FLAGS, DecodeOptions, ImageError, Limits, decode

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
SEED = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


@pytest.mark.parametrize("container", ["PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_8_bit_grey_comes_out_as_it_is(container: str) -> None:
    """Values of a gel would be changed by reading it."""
    options = {"lossless": True} if container == "WEBP" else {}
    decoded = decode(saved(Image.fromarray(SEED), container, **options))
    assert np.array_equal(decoded.pixels, SEED)
    assert (decoded.record.height, decoded.record.width) == SEED.shape
    assert decoded.record.format == container
    assert decoded.record.bit_depth == 8


@pytest.mark.parametrize("encode", [lambda v: saved(Image.fromarray(v), "PNG"), tiff])
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
    np.testing.assert_allclose(decode(tiff(values)).pixels, values / 65535, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_inverted_once(bits: int) -> None:
    """Scanners that store white as zero would give gels of the wrong polarity."""
    full = 2**bits - 1
    values = (RAMP.astype(np.uint32) * full // 255).astype(f"uint{bits}")
    decoded = decode(tiff(full - values, photometric="miniswhite"))
    scale = 1 if bits == 8 else full
    np.testing.assert_allclose(decoded.pixels * np.float64(scale), values, atol=0.01)
    assert "inverted" in decoded.record.flags
    assert (decoded.record.polarity, decoded.record.polarity_source) == ("light-background", "file")


def test_the_largest_value_a_file_names_is_one() -> None:
    """A 12-bit camera's image would come out sixteen times too dark."""
    values = RAMP.astype(np.uint16) * 16
    decoded = decode(tiff(values, extratags=[(281, "H", 1, 4095, True)]))
    np.testing.assert_allclose(decoded.pixels, values / 4095, rtol=1e-6)
    with pytest.raises(ImageError, match="values up to 100"):
        decode(tiff(values, extratags=[(281, "H", 1, 100, True)]))


STORED_FOR: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera held as an orientation says stores an upright picture."""


def _stored_for(orientation: int, upright: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Turn by way of 8-bit positions: Pillow turns no 16-bit or 64-bit numbers."""
    place = np.arange(upright.size, dtype=np.int32).reshape(upright.shape)
    method = STORED_FOR[orientation]
    turned = Image.fromarray(place)
    places = np.asarray(turned if method is None else turned.transpose(method))
    return upright.ravel()[places]


def _by_pillow(
    container: str, **options: object
) -> Callable[[npt.NDArray[np.generic], int], bytes]:
    def encode(stored: npt.NDArray[np.generic], orientation: int) -> bytes:
        exif = Image.Exif()
        exif[274] = orientation
        return saved(Image.fromarray(stored), container, exif=exif, **options)

    return encode


def _by_tifffile(**options: object) -> Callable[[npt.NDArray[np.generic], int], bytes]:
    def encode(stored: npt.NDArray[np.generic], orientation: int) -> bytes:
        return tiff(stored, extratags=[(274, "H", 1, orientation, True)], **options)

    return encode


ORIENTED = {
    "PNG": (np.uint8, _by_pillow("PNG")),
    "PNG of 16 bits": (np.uint16, _by_pillow("PNG")),
    "WebP": (np.uint8, _by_pillow("WEBP", lossless=True)),
    "TIFF": (np.uint8, _by_tifffile()),
    "TIFF of 16 bits": (np.uint16, _by_tifffile()),
    "TIFF of 16 bits, LZW": (np.uint16, _by_pillow("TIFF", compression="tiff_lzw")),
    "TIFF, LZW": (np.uint8, _by_pillow("TIFF", compression="tiff_lzw")),
    "TIFF of floating point": (np.float32, _by_tifffile()),
    "TIFF in deflated tiles": (np.uint16, _by_tifffile(tile=(16, 16), compression="zlib")),
    "BigTIFF, big-endian": (np.uint32, _by_tifffile(bigtiff=True, byteorder=">")),
}


@pytest.mark.parametrize("container", ORIENTED)
@pytest.mark.parametrize("orientation", STORED_FOR)
def test_an_oriented_file_decodes_as_the_upright_one(container: str, orientation: int) -> None:
    """Gels would lie on their side in one format and stand in another, or be turned twice."""
    dtype, encode = ORIENTED[container]
    upright = SEED.astype(dtype) * (1 / 255 if dtype == np.float32 else 1)
    upright = upright.astype(dtype)
    decoded = decode(encode(_stored_for(orientation, upright), orientation))
    assert np.array_equal(decoded.pixels, decode(encode(upright, 1)).pixels)
    assert decoded.record.orientation == orientation
    assert ("rotated" in decoded.record.flags) == (orientation != 1)


@pytest.mark.parametrize("orientation", STORED_FOR)
def test_a_jpeg_is_turned_after_decoding(orientation: int) -> None:
    """Photographs from telephones would lie on their side."""
    encode = _by_pillow("JPEG", quality=95)
    turned = decode(encode(SEED, orientation)).pixels
    assert np.array_equal(_stored_for(orientation, turned), decode(encode(SEED, 1)).pixels)


def test_an_orientation_without_a_meaning_is_none() -> None:
    """A sloppy writer's 0 or 9 would make an image unreadable."""
    for tag in (0, 9):
        decoded = decode(_by_tifffile()(SEED, tag))
        assert np.array_equal(decoded.pixels, SEED)
        assert decoded.record.orientation == 1


DEPTHS = {
    "8": (np.uint8, 255),
    "16": (np.uint16, 65535),
    "32": (np.uint32, 2**32 - 1),
    "signed 16": (np.int16, 2**15 - 1),
    "signed 32": (np.int32, 2**31 - 1),
    "float16": (np.float16, 1),
    "float32": (np.float32, 1),
    "float64": (np.float64, 1),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_white_is_zero_of_the_complement_is_black_is_zero(depth: str) -> None:
    """One gel would have two polarities, by how its numbers are stored."""
    dtype, full = DEPTHS[depth]
    values = (SEED / 255 * full).astype(dtype)
    black = decode(tiff(values, photometric="minisblack"))
    white = decode(tiff((full - values).astype(dtype), photometric="miniswhite"))
    tolerance = 1e-3 if depth == "float16" else 1e-6
    np.testing.assert_allclose(
        white.pixels.astype(np.float64), black.pixels.astype(np.float64), atol=tolerance
    )
    assert black.record.maximum == full
    assert (black.pixels.dtype == np.uint8) == (depth == "8")


@settings(max_examples=60, deadline=None)
@given(depth=st.sampled_from(list(DEPTHS)), level=st.floats(0.01, 0.45))
def test_doubling_what_is_stored_doubles_what_is_decoded(depth: str, level: float) -> None:
    """Band ratios would depend on the exposure: something is clipped, stretched or bent."""
    dtype, full = DEPTHS[depth]
    values = (RAMP / 255 * level * full).astype(dtype)
    once = decode(tiff(values)).pixels.astype(np.float64)
    twice = decode(tiff((values * dtype(2)).astype(dtype))).pixels.astype(np.float64)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6, atol=1e-9)


def test_floating_point_beyond_1_is_scaled_to_what_the_file_says_or_to_its_own() -> None:
    """Float exports would be white, or refused although they are linear."""
    values = (SEED * 10).astype(np.float32)
    own = decode(tiff(values))
    np.testing.assert_allclose(own.pixels, values / values.max(), rtol=1e-6)
    assert "scaled-to-own-maximum" in own.record.flags
    stated = decode(tiff(values, extratags=[(341, "f", 1, 5000.0, True)]))
    np.testing.assert_allclose(stated.pixels, values / 5000, rtol=1e-6)
    assert stated.record.maximum == 5000
    assert "scaled-to-own-maximum" not in stated.record.flags


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "PA"])
def test_grey_stored_as_colour_is_the_same_grey(mode: str) -> None:
    """Saving a gel in colour would change its values."""
    image = Image.fromarray(RAMP).convert("RGBA" if mode == "PA" else mode)
    container = "TIFF" if mode == "PA" else "PNG"
    decoded = decode(saved(image, container))
    assert np.abs(decoded.pixels.astype(int) - RAMP).max() <= 1
    assert decoded.record.flags == ({"palette"} if mode == "P" else set())


COLOUR = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
LUMINANCE = COLOUR @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize(
    "encode",
    [
        lambda: saved(Image.fromarray(COLOUR), "PNG"),
        lambda: saved(Image.fromarray(COLOUR), "BMP"),
        lambda: saved(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"),
        lambda: tiff(COLOUR, photometric="rgb"),
        lambda: tiff(np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate"),
    ],
    ids=["PNG", "BMP", "TIFF LZW", "TIFF", "planar TIFF"],
)
def test_colour_becomes_luminance(encode: Callable[[], bytes]) -> None:
    """Colour photographs would be weighed otherwise than the documentation says."""
    decoded = decode(encode())
    assert np.abs(decoded.pixels - LUMINANCE).max() <= 1
    assert "colour" in decoded.record.flags


def test_colour_of_16_bits_keeps_them() -> None:
    """Precision of a 16-bit scan would be lost, or the formula would be another one."""
    deep = COLOUR.astype(np.uint16) * 200 + 7
    expected = deep @ np.array([0.299, 0.587, 0.114]) / 65535
    png = png_16_bit_colour(deep)
    pytest.importorskip("imagecodecs", reason="16-bit colour of PNG needs the extra 'formats'")
    for data in (tiff(deep, photometric="rgb"), png):
        decoded = decode(data)
        np.testing.assert_allclose(decoded.pixels, expected, atol=1e-6)
        assert decoded.record.bit_depth == 16


def test_a_channel_of_colour_can_be_chosen() -> None:
    """A blot whose dye is in one channel could not be read without the others."""
    for data in (saved(Image.fromarray(COLOUR), "PNG"), tiff(COLOUR, photometric="rgb")):
        decoded = decode(data, DecodeOptions(channel=2))
        assert np.array_equal(decoded.pixels, COLOUR[..., 1])
        assert (decoded.record.channel, decoded.record.channels) == (2, 3)
        with pytest.raises(ImageError, match="a channel from 1 to 3"):
            decode(data, DecodeOptions(channel=4))


def test_transparency_lies_on_white() -> None:
    """Transparent parts would be black or random, from one program to the next."""
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.putpixel((1, 2), (0, 0, 0, 0))
    image.putpixel((2, 2), (100, 100, 100, 51))
    for container in ("PNG", "TIFF"):
        decoded = decode(saved(image, container))
        assert decoded.pixels[2, 1] == 255
        assert decoded.pixels[0, 0] == 0
        assert abs(int(decoded.pixels[2, 2]) - (100 * 0.2 + 255 * 0.8)) <= 1
        assert "transparent" in decoded.record.flags


def test_one_bit_is_black_and_white() -> None:
    """Scans of 1 bit would be nearly black."""
    decoded = decode(saved(Image.fromarray(RAMP > 100), "TIFF"))
    assert np.array_equal(decoded.pixels, np.where(RAMP > 100, 255, 0))
    assert decoded.record.bit_depth == 1


def test_a_second_decoder_agrees() -> None:
    """A mistake that both writer and reader of one library make would go unseen."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the second decoder")
    deep = SEED.astype(np.uint16) * 201
    files = {
        "PNG": (saved(Image.fromarray(SEED), "PNG"), 255),
        "PNG of 16 bits": (saved(Image.fromarray(deep), "PNG"), 65535),
        "TIFF": (tiff(deep), 65535),
        "TIFF LZW": (saved(Image.fromarray(deep), "TIFF", compression="tiff_lzw"), 65535),
        "TIFF of floating point": (tiff((SEED / 255).astype(np.float32)), 1),
        "WebP": (saved(Image.fromarray(SEED), "WEBP", lossless=True), 255),
    }
    for name, (data, full) in files.items():
        other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        other = other if other.ndim == 2 else other[..., 0]
        own = decode(data)
        fractions = own.pixels / (255 if own.pixels.dtype == np.uint8 else 1)
        np.testing.assert_allclose(fractions, other / full, atol=1e-6, err_msg=name)


FRAMES = [Image.fromarray(SEED), Image.fromarray(SEED[::-1].copy())]


@pytest.mark.parametrize("container", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_a_frame_must_be_chosen(container: str) -> None:
    """The first frame, which may be a title, would be taken for the gel."""
    lossless = {"lossless": True} if container == "WEBP" else {}
    data = saved(FRAMES[0], container, save_all=True, append_images=FRAMES[1:], **lossless)
    with pytest.raises(
        ImageError, match=r"2 pages of equal standing.*column 'page'.*--page, where"
    ):
        decode(data)
    for page, frame in enumerate(FRAMES, start=1):
        decoded = decode(data, DecodeOptions(page=page))
        assert np.abs(decoded.pixels.astype(int) - np.asarray(frame)).max() <= 1
        assert (decoded.record.page, decoded.record.pages) == (page, 2)
    with pytest.raises(ImageError, match="from 1 to 2"):
        decode(data, DecodeOptions(page=3))


def test_a_multi_picture_jpeg_is_its_photograph() -> None:
    """A telephone's photograph with a preview behind it would be refused, or its preview taken."""
    decoded = decode(saved(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]))
    assert np.array_equal(decoded.pixels, decode(saved(FRAMES[0], "JPEG")).pixels)
    assert "first-of-several-pictures" in decoded.record.flags


DARK = np.full((64, 64), 20, np.uint8)
DARK[10:14, 8:24] = 250
DARK[30:34, 36:56] = 200


@pytest.mark.parametrize("wanted", ["dark-background", "light-background"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("guess", [False, True], ids=["told", "guessed"])
def test_a_background_that_is_asked_for_is_had_or_doubted(
    wanted: str, photometric: str, guess: bool
) -> None:
    """Half of a data set would be inverted, without anyone knowing which half."""
    data = tiff(DARK, photometric=photometric)
    decoded = decode(data, DecodeOptions(polarity=wanted, guess_polarity=guess))
    record = decoded.record
    known = photometric == "miniswhite" or guess
    if not known:
        assert np.array_equal(decoded.pixels, DARK)
        assert record.polarity == record.polarity_source == "unknown"
        assert "polarity-unknown" in record.flags
        return
    expected = DARK if wanted == "dark-background" else 255 - DARK
    assert np.array_equal(decoded.pixels, expected)
    assert record.polarity == wanted
    assert record.polarity_source == ("file" if photometric == "miniswhite" else "guessed")


def test_nothing_is_guessed_unasked() -> None:
    """A rule that errs would invert gels behind the user's back."""
    decoded = decode(saved(Image.fromarray(255 - DARK), "PNG"))
    assert np.array_equal(decoded.pixels, 255 - DARK)
    assert decoded.record.polarity == "unknown"


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_saturation_is_counted_where_the_signal_is(photometric: str) -> None:
    """An overexposed gel would go unnoticed, or a white background be called overexposed."""
    values = SEED.astype(np.uint16) * 200
    values[:2, :3] = 65535
    record = decode(tiff(values, photometric=photometric)).record
    assert record.saturated == 6 / 600
    assert "saturated" in record.flags
    assert "saturated" not in decode(tiff(SEED.astype(np.uint16) * 200)).record.flags


def _with_signature(place: int, signature: bytes) -> bytes:
    return b"\1" * place + signature + b"\1" * 400


UNREAD = {
    "DICOM": _with_signature(128, b"DICM"),
    "PDF": _with_signature(0, b"%PDF-1.7"),
    "PostScript": _with_signature(0, b"%!PS-Adobe-3.0 EPSF-3.0"),
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "NIfTI": _with_signature(344, b"n+1\0"),
    "ZIP": _with_signature(0, b"PK\3\4"),
    "JPEG XL": _with_signature(0, b"\0\0\0\x0cJXL "),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_format_that_is_not_read_is_named(name: str) -> None:
    """A user would hear of damage, and copy the file again in vain."""
    with pytest.raises(ImageError, match=f"Received: {name}.*Export a 16-bit TIFF"):
        decode(UNREAD[name])


REFUSED = {
    "CMYK in TIFF": (saved(Image.new("CMYK", (4, 4)), "TIFF"), "SEPARATED"),
    "LAB in TIFF": (saved(Image.new("LAB", (4, 4)), "TIFF"), "CIELAB"),
    "not finite": (tiff(np.full((4, 4), np.nan, np.float32)), "NaN"),
    "infinite": (tiff(np.full((4, 4), np.inf, np.float32)), "infinity"),
    "negative": (tiff(np.full((4, 4), -3, np.int16)), "-3"),
    "negative 8 bit": (tiff(np.full((4, 4), -3, np.int8)), "-3"),
    "complex": (tiff(np.ones((4, 4), np.complex64)), "complex64"),
    "half a file": (saved(Image.fromarray(SEED), "PNG")[:200], "whole"),
    "half a JPEG": (saved(Image.fromarray(SEED), "JPEG")[:500], "whole"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_truthfully_is_refused(kind: str) -> None:
    """A wrong picture would be taken for the gel, without a word."""
    data, reason = REFUSED[kind]
    with pytest.raises(ImageError, match="xpected") as refusal:
        decode(data)
    assert reason in str(refusal.value)


NO_PICTURES = {
    "no bytes": (b"", "an empty file. Copy"),
    "text": (b"lane,band\n1,200\n", "a text file. Give the image"),
    "text cut within a letter": (b"a" + "µ".encode() * 4096, "a text file"),
    "a web page": (b"\n<!DOCTYPE html><html>404</html>", "a web page (HTML). Give the image"),
    "a page after a byte order mark": ("\ufeff<HTML>".encode(), "a web page (HTML)"),
    "the head of a JPEG 2000": (b"\xff\x4f\xff\x51", "cut off or damaged. Copy"),
    "the head of a PNG": (b"\x89PNG\r\n\x1a\n and no more", "cut off or damaged. Copy"),
    "Latin-1": ("Gel für Lösung".encode("latin-1"), "Amersham imagers are not read: export"),
    "an unknown format": (bytes(range(256)), "Amersham imagers are not read: export"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture_is_told_apart(kind: str) -> None:
    """Someone who saved a web page would be told to export it from an imager."""
    data, said = NO_PICTURES[kind]
    with pytest.raises(ImageError) as refusal:
        decode(data)
    assert said in str(refusal.value)
    assert ("imager" in str(refusal.value)) == ("imager" in said)


BEYOND = {
    "pixels": (Limits(pixels=599), "at most 599 pixels"),
    "bytes": (Limits(bytes=100), "at most 100 bytes"),
}


@pytest.mark.parametrize("kind", BEYOND)
@pytest.mark.parametrize("container", ["PNG", "TIFF"])
def test_what_is_beyond_the_limits_is_refused(kind: str, container: str) -> None:
    """A file that declares gigabytes would take the machine down."""
    limits, reason = BEYOND[kind]
    with pytest.raises(ImageError, match=reason):
        decode(saved(Image.fromarray(SEED), container), limits=limits)


def test_a_file_that_is_too_large_is_refused_whatever_it_declares() -> None:
    """A terabyte behind a small picture's header would be handed to the decoders."""
    data = saved(Image.fromarray(SEED), "PNG") + bytes(5000)
    assert np.array_equal(decode(data).pixels, SEED)
    with pytest.raises(ImageError, match="a file of"):
        decode(data, limits=Limits(bytes=5000))


def test_what_pillow_only_remarks_on_is_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    """Thousands of remarks of a library would bury the failures that matter."""
    data = saved(Image.fromarray(SEED), "PNG")
    no_frames = png_chunk(b"acTL", struct.pack(">II", 0, 0))
    decoded = decode(data[:33] + no_frames + data[33:])
    assert np.array_equal(decoded.pixels, SEED)
    assert len(recwarn) == 0


def test_too_many_frames_are_refused() -> None:
    """An animation of a million frames would be counted to its end."""
    data = saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])
    with pytest.raises(ImageError, match="at most 1 pages"):
        decode(data, limits=Limits(pages=1))


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"polarity": "negative"}, "polarity"), ({"page": 0}, "page"), ({"channel": -1}, "channel")],
    ids=["polarity", "page", "channel"],
)
def test_a_choice_that_cannot_be_is_a_usage_error(options: dict[str, object], reason: str) -> None:
    """A misspelt choice would be taken for none."""
    with pytest.raises(UsageError, match=reason):
        DecodeOptions(**options)  # type: ignore[arg-type]


def test_flags_keep_their_places() -> None:
    """Caches of earlier versions store flags by their place: they would change their meaning."""
    assert tuple(FLAGS)[:5] == (
        "inverted",
        "rotated",
        "transparent",
        "reduced-to-8-bit",
        "first-of-several-pictures",
    )
    assert len(FLAGS) <= 64


VALID = [
    saved(Image.fromarray(SEED), "PNG"),
    saved(Image.fromarray(SEED), "JPEG"),
    saved(Image.fromarray(SEED), "GIF"),
    saved(Image.fromarray(SEED), "WEBP"),
    saved(Image.fromarray(SEED), "BMP"),
    saved(Image.fromarray(SEED), "TIFF", compression="tiff_lzw"),
    tiff(SEED.astype(np.uint16) * 200),
    tiff(COLOUR, photometric="rgb", tile=(16, 16), compression="zlib"),
    _by_tifffile()(SEED, 6),
]


@settings(max_examples=300, deadline=None)
@given(
    valid=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    length=st.floats(0.1, 1),
)
def test_damage_is_an_image_error_or_a_picture(
    valid: bytes, edits: list[tuple[float, int]], length: float
) -> None:
    """One damaged file among thousands would end the run with a traceback."""
    data = bytearray(valid[: int(len(valid) * length)])
    for place, value in edits:
        data[int(place * len(data))] = value
    try:
        decoded = decode(bytes(data), limits=Limits(pixels=10**7))
    except ImageError:
        return
    assert decoded.pixels.ndim == 2
    assert decoded.pixels.dtype in (np.uint8, np.float32)
    assert decoded.pixels.shape == (decoded.record.height, decoded.record.width)
