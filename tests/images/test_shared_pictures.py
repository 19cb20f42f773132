"""JPEG 2000, AVIF and HEIC: what phones, archives and the web save is the gel that it was."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import heic, saved
from PIL import Image

from gelkit.images import rasters
from gelkit.images.formats import DecodeOptions, ImageError, Limits, decode
from gelkit.images.sample_gels import draw_gel

needs_heif = pytest.mark.skipif(
    not find_spec("pillow_heif"), reason="HEIC needs the extra 'formats'"
)
needs_codecs = pytest.mark.skipif(
    not find_spec("imagecodecs"), reason="imagecodecs writes and reads it"
)

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 56), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (40, 56, 3), dtype=np.uint8)
WEIGHTS = np.array([0.299, 0.587, 0.114])
OPACITY = np.where(np.arange(56) < 8, 0, 255).astype(np.uint8) * np.ones_like(GREY)
SEEN = {
    "grey": GREY,
    "colour": COLOUR,
    "grey and opacity": np.dstack([GREY, OPACITY]),
    "colour and opacity": np.dstack([COLOUR, OPACITY]),
}


def _fractions(data: bytes, options: DecodeOptions | None = None) -> npt.NDArray[np.float64]:
    pixels = decode(data, options or DecodeOptions()).pixels
    return pixels / (255.0 if pixels.dtype == np.uint8 else 1.0)


LOSSLESS = {
    "JPEG 2000": lambda values: saved(Image.fromarray(values), "JPEG2000"),
    "HEIC": heic,
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("container", ["JPEG 2000", pytest.param("HEIC", marks=needs_heif)])
def test_without_loss_a_picture_is_that_of_its_png(container: str, seen: str) -> None:
    """A gel would change by being handed on in another format."""
    data = LOSSLESS[container](SEEN[seen])
    png = decode(saved(Image.fromarray(SEEN[seen]), "PNG"))
    assert np.array_equal(decode(data).pixels, png.pixels)
    assert decode(data).record.flags == png.record.flags
    assert decode(data).record.bit_depth == 8


def _gel() -> npt.NDArray[np.uint8]:
    drawn = draw_gel("dna_gel", np.random.default_rng(3), 300, 400)
    return np.rint(np.clip(drawn, 0, 1) * 255).astype(np.uint8)


def _lossy(container: str, gel: npt.NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(gel)
    if container == "HEIC":
        return heic(np.dstack([gel] * 3), quality=90, chroma=420, matrix_coefficients=6)
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 90},
        "AVIF": {"quality": 90},
        "JPEG2000": {"quality_mode": "dB", "quality_layers": [45], "irreversible": True},
    }
    return saved(picture, container, **options[container])


@pytest.mark.parametrize(
    "container", ["JPEG", "JPEG2000", "AVIF", pytest.param("HEIC", marks=needs_heif)]
)
def test_with_loss_a_gel_stays_close_to_its_png(container: str) -> None:
    """Bands would be shifted, inverted, or of other greys than a good JPEG has them."""
    gel = _gel()
    error = _fractions(_lossy(container, gel)) - gel / 255
    noise_in_decibels = -20 * np.log10(np.sqrt(np.mean(error**2)))
    assert noise_in_decibels > 38
    assert abs(error.mean()) < 0.002


def _depth(bits: int) -> npt.NDArray[np.uint16]:
    return RANDOM.integers(0, 2**bits, (40, 56, 3), dtype=np.uint16)


@needs_codecs
@pytest.mark.parametrize("is_grey", [True, False], ids=["grey", "colour"])
@pytest.mark.parametrize("codec", ["j2k", "jp2"])
@pytest.mark.parametrize("bits", [1, 3, 4, 8, 10, 12, 16])
def test_jpeg_2000_keeps_every_depth(bits: int, codec: str, is_grey: bool) -> None:
    """A 12-bit scan would be cut to 8 bits, or end below white."""
    import imagecodecs

    values = _depth(bits)[..., 0] if is_grey else _depth(bits)
    stored = values.astype(np.uint8 if bits <= 8 else np.uint16)
    data = imagecodecs.jpeg2k_encode(
        stored, level=0, codecformat=codec, bitspersample=bits, reversible=True
    )
    tolerance = 1e-6 if bits > 8 else 0.0045
    np.testing.assert_allclose(_fractions(data), _expected(values / (2**bits - 1)), atol=tolerance)
    record = decode(data).record
    assert record.bit_depth == bits
    assert record.maximum == (2**bits - 1 if bits > 8 else 255)


@needs_codecs
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("seen", SEEN)
def test_avif_keeps_its_bits(bits: int, seen: str) -> None:
    """A photograph of 10 bits would be cut to 8 without a word."""
    import imagecodecs

    full = 2**bits - 1
    values = np.rint(SEEN[seen] / 255 * full).astype(np.uint16)
    if values.ndim == 3 and values.shape[-1] == 2:
        pytest.skip("imagecodecs writes no grey with opacity")
    data = imagecodecs.avif_encode(values, level=100, bitspersample=bits, pixelformat="444")
    np.testing.assert_allclose(_fractions(data), _expected(values / full), atol=2.5 / full)
    assert decode(data).record.bit_depth == bits


def _expected(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the luminance of fractions, laid on white."""
    samples = 1 if values.ndim == 2 else values.shape[-1]
    opacity = values[..., -1] if samples in (2, 4) else np.ones(values.shape[:2])
    grey = {1: lambda: values, 2: lambda: values[..., 0]}.get(
        samples, lambda: values[..., :3] @ WEIGHTS
    )()
    return grey * opacity + 1 - opacity


@needs_heif
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("seen", SEEN)
def test_heic_keeps_its_bits(bits: int, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph of 10 bits would be cut to 8, or its white be grey."""
    import pillow_heif

    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    full = 2**bits - 1
    values = np.rint(SEEN[seen] / 255 * full).astype(np.uint16)
    data = heic((values << (16 - bits)).astype(np.uint16))
    np.testing.assert_allclose(_fractions(data), _expected(values / full), atol=1.5 / full)
    record = decode(data).record
    assert (record.format, record.bit_depth, record.maximum) == ("HEIC", bits, full)


def _avif(values: npt.NDArray[np.uint8], orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return saved(Image.fromarray(values), "AVIF", quality=100, exif=exif)


ORIENTED: dict[str, Callable[[npt.NDArray[np.uint8], int], bytes]] = {"AVIF": _avif, "HEIC": heic}


@pytest.mark.parametrize("container", ["AVIF", pytest.param("HEIC", marks=needs_heif)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_a_phone_turns_is_turned_once(container: str, orientation: int) -> None:
    """Photographs lie on their side, or are turned by the file and by its EXIF both."""
    data = ORIENTED[container](GREY, orientation)
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    exif = Image.Exif()
    exif[274] = orientation
    png = decode(saved(Image.fromarray(GREY), "PNG", exif=exif)).pixels
    assert np.array_equal(decode(data).pixels, png)


@needs_codecs
def test_a_deep_avif_is_turned_as_well() -> None:
    """It is decoded by another library, which turns nothing."""
    import imagecodecs

    data = imagecodecs.avif_encode(GREY.astype(np.uint16) << 2, level=100, bitspersample=10)
    turned = bytearray(data)
    place = data.index(b"colr")  # a quarter turn, which must be understood, in its place
    turned[place : place + 5] = b"irot\x01"
    turned[data.index(b"ipma") + 18] |= 0x80
    assert np.array_equal(decode(bytes(turned)).pixels, np.rot90(decode(data).pixels))
    assert "rotated" in decode(bytes(turned)).record.flags


@needs_heif
def test_exif_alone_turns_no_heic() -> None:
    """A photograph that a program has turned would be turned again by what its EXIF still says."""
    data = heic(GREY)
    upright = b"\x01\x12\0\x03\0\0\0\x01\0\x01"
    assert upright in data
    stale = data.replace(upright, upright[:-1] + b"\x06")
    assert np.array_equal(decode(stale).pixels, decode(data).pixels)


@needs_heif
def test_grey_of_an_unknown_range_is_refused() -> None:
    """Black would be dark grey in one program, and black in another."""
    with pytest.raises(ImageError, match="grey of the full range"):
        decode(heic(GREY, matrix_coefficients=6, full_range_flag=0))


@needs_heif
def test_of_several_pictures_the_primary_one_is_taken() -> None:
    """A burst's first picture would be taken, whichever its owner chose."""
    import pillow_heif

    file = io.BytesIO()
    other = pillow_heif.from_pillow(Image.fromarray(GREY[::-1].copy()))
    pillow_heif.from_pillow(Image.fromarray(GREY)).save(
        file, append_images=list(other), primary_index=1, quality=-1
    )
    data = file.getvalue()
    assert np.array_equal(decode(data).pixels, GREY[::-1])
    assert "first-of-several-pictures" in decode(data).record.flags
    for page, values in ((1, GREY), (2, GREY[::-1])):
        decoded = decode(data, DecodeOptions(page=page))
        assert np.array_equal(decoded.pixels, values)
        assert (decoded.record.page, decoded.record.pages) == (page, 2)
    with pytest.raises(ImageError, match="from 1 to 2"):
        decode(data, DecodeOptions(page=3))


MADE = {
    "JPEG 2000": lambda: saved(Image.fromarray(COLOUR), "JPEG2000"),
    "JPEG 2000, bare": lambda: saved(Image.fromarray(COLOUR), "JPEG2000", no_jp2=True),
    "AVIF": lambda: saved(Image.fromarray(COLOUR), "AVIF"),
    "HEIC": lambda: heic(COLOUR),
}
KINDS = [kind if kind != "HEIC" else pytest.param(kind, marks=needs_heif) for kind in MADE]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_is_never_filled_up(kind: str) -> None:
    """The lower part of a gel would be grey because a copy was broken off."""
    data = MADE[kind]()
    whole = decode(data).pixels
    for length in range(12, len(data), max(1, len(data) // 60)):
        try:
            decoded = decode(data[:length])
        except ImageError:
            continue
        assert np.array_equal(decoded.pixels, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_by_what_it_declares(kind: str) -> None:
    """A kilobyte would become gigabytes before anyone counted."""
    with pytest.raises(ImageError, match="at most 2,239 pixels"):
        decode(MADE[kind](), limits=Limits(pixels=40 * 56 - 1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_can_be_chosen(kind: str) -> None:
    """A dye that is in one channel would be mixed with the others."""
    data = MADE[kind]()
    channel = decode(data, DecodeOptions(channel=2))
    assert (channel.record.channel, channel.record.channels) == (2, 3)
    loss = 30 if kind == "AVIF" else 0
    assert np.abs(channel.pixels.astype(int) - COLOUR[..., 1]).mean() <= loss


def _components(count: int, changed: tuple[bytes, bytes] = (b"", b"")) -> bytes:
    values = np.dstack([COLOUR, OPACITY])[..., :count]
    data = saved(Image.fromarray(values), "JPEG2000")
    assert changed[0] in data
    return data.replace(*changed, 1) if changed[0] else data


UNTRUE: dict[str, tuple[Callable[[], bytes], str]] = {
    "four samples, bare": (
        lambda: saved(Image.fromarray(SEEN["colour and opacity"]), "JPEG2000", no_jp2=True),
        "nothing that says what the last one is",
    ),
    "opacity that is multiplied": (
        lambda: _components(4, (b"\x00\x03\x00\x01\x00\x00", b"\x00\x03\x00\x02\x00\x00")),
        "nothing that says",
    ),
    "blue first": (
        lambda: _components(4, (b"\x00\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x00\x03")),
        "nothing that says",
    ),
    "inks": (
        lambda: _components(3, (b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x0c")),
        "colour space 12",
    ),
    "another size within": (
        lambda: _components(3, (b"ihdr\0\0\0\x28", b"ihdr\0\0\0\x14")),
        "56 x 20",
    ),
    "HEIF of JPEG": (
        lambda: b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg" + bytes(400),
        "HEIF of another compression",
    ),
}


@pytest.mark.parametrize("kind", UNTRUE)
def test_what_has_no_stated_meaning_is_refused(kind: str) -> None:
    """Inks would be taken for opacity, or blue for red."""
    make, reason = UNTRUE[kind]
    with pytest.raises(ImageError, match=reason):
        decode(make())


@needs_codecs
def test_numbers_with_a_sign_are_refused() -> None:
    """What is below zero would be above the middle grey."""
    import imagecodecs

    signed = GREY.astype(np.int16) - 99
    data = imagecodecs.jpeg2k_encode(signed, level=0, codecformat="jp2", reversible=True)
    with pytest.raises(ImageError, match="numbers with a sign"):
        decode(data)


@needs_heif
def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would hear of damage where a package is missing."""
    data = heic(GREY)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pillow-heif.*pip install \"gelkit\[formats\]\""):
        decode(data)


@needs_codecs
def test_bits_are_not_cut_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file would have other values on another machine."""
    import imagecodecs

    deep = _depth(12)
    made = [
        imagecodecs.avif_encode(deep, level=100, bitspersample=12),
        imagecodecs.jpeg2k_encode(deep, level=0, bitspersample=12),
    ]
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for data in made:
        with pytest.raises(ImageError, match=r"12-bit samples.*gelkit\[formats\]"):
            decode(data)


def test_a_pillow_without_avif_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow of a distribution would call every AVIF damaged."""
    data = MADE["AVIF"]()
    monkeypatch.setattr(rasters.features, "check", lambda feature: feature != "avif")
    with pytest.raises(ImageError, match="Pillow that reads AVIF"):
        decode(data)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([kind for kind in MADE if kind != "HEIC" or find_spec("pillow_heif")]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    head=st.booleans(),
)
def test_damage_is_an_image_error_or_a_picture(
    kind: str, edits: list[tuple[float, int]], head: bool
) -> None:
    """One damaged file among thousands would end the run with a traceback."""
    data = bytearray(MADE[kind]())
    reach = 300 if head else len(data)
    for place, value in edits:
        data[int(place * reach)] = value
    try:
        decoded = decode(bytes(data), limits=Limits(pixels=10**6))
    except ImageError:
        return
    assert decoded.pixels.shape == (decoded.record.height, decoded.record.width)
