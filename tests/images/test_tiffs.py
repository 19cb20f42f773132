"""TIFF: pages, channels, compressions and encodings are what they say, or refused."""

from __future__ import annotations

import io
import logging
import struct
import sys
import zlib
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import bare_tiff, paged_tiff, tiff
from PIL import Image

from gelkit.images.formats import DecodeOptions, ImageError, Limits, decode

GREY = np.random.default_rng(0).integers(0, 60000, (40, 56), dtype=np.uint16)
OTHER = GREY[::-1].copy()
SMALL = np.arange(70, dtype=np.uint16).reshape(7, 10) * 900
COLOUR = np.random.default_rng(1).integers(0, 60000, (32, 48, 3), dtype=np.uint16)


def _fractions(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(65535)


def _patched(data: bytes, code: int, value: int, page: int = 0) -> bytes:
    """Give the first value of a tag another value, where it lies."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[page].tags[code]
        place, size = tag.valueoffset, {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
    return data[:place] + value.to_bytes(size, "little") + data[place + size :]


def _retyped(data: bytes, code: int) -> bytes:
    """Say that a tag holds a text of four letters."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags[code].offset
    return data[: place + 2] + struct.pack("<HI", 2, 4) + data[place + 8 :]


PAGES = {
    "a thumbnail first": [(SMALL, {"subfiletype": 1}), (GREY, {})],
    "a thumbnail after": [(GREY, {}), (SMALL, {"subfiletype": 1})],
    "a mask of its size": [(GREY, {}), (GREY > 9, {"subfiletype": 4, "photometric": 4})],
    "a small page first": [(SMALL, {}), (GREY, {})],
}


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_that_is_clearly_the_picture_is_taken(kind: str) -> None:
    """A thumbnail or a mask would be taken for the gel."""
    decoded = decode(paged_tiff(*PAGES[kind]))
    assert np.array_equal(decoded.pixels, _fractions(GREY))
    assert "page-chosen" in decoded.record.flags
    assert decoded.record.pages == 2


def test_of_pages_of_equal_standing_one_must_be_chosen() -> None:
    """Of two exposures the first would be taken, whichever it is."""
    data = paged_tiff((GREY, {}), (OTHER, {}))
    with pytest.raises(
        ImageError,
        match=r"Received: 2 pages of equal standing.*1 to 2, in a manifest's column 'page'",
    ):
        decode(data)
    with pytest.raises(ImageError, match="2 pages"):
        decode(paged_tiff((GREY, {}), (GREY[:, :30].copy(), {})))
    for page, values in enumerate((GREY, OTHER), start=1):
        decoded = decode(data, DecodeOptions(page=page))
        assert np.array_equal(decoded.pixels, _fractions(values))
        assert (decoded.record.page, decoded.record.pages) == (page, 2)
        assert "page-chosen" not in decoded.record.flags
    with pytest.raises(ImageError, match="a page from 1 to 2"):
        decode(data, DecodeOptions(page=3))


def test_a_chosen_page_is_the_same_through_every_library() -> None:
    """Compressed pages would be counted otherwise than uncompressed ones."""
    file = io.BytesIO()
    first, second = (Image.fromarray(values) for values in (GREY, OTHER))
    first.save(file, "TIFF", save_all=True, append_images=[second], compression="tiff_lzw")
    for page, values in enumerate((GREY, OTHER), start=1):
        decoded = decode(file.getvalue(), DecodeOptions(page=page))
        assert np.array_equal(decoded.pixels, _fractions(values))


STACK = np.stack([GREY, OTHER])

CHANNELS = {
    "samples of a pixel": tiff(
        np.moveaxis(STACK, 0, -1), photometric="minisblack", planarconfig="contig"
    ),
    "planes": tiff(STACK, photometric="minisblack", planarconfig="separate"),
    "compressed planes": tiff(
        STACK, photometric="minisblack", planarconfig="separate", compression="zlib"
    ),
    "OME-TIFF": tiff(STACK, ome=True, photometric="minisblack", metadata={"axes": "CYX"}),
    "ImageJ": paged_tiff(
        (GREY, {"description": "ImageJ=1.54\nimages=2\nchannels=2\n", "metadata": None}),
        (OTHER, {"metadata": None}),
    ),
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_of_several_channels_one_must_be_chosen(kind: str) -> None:
    """Of two dyes the first would be taken, or both be mixed."""
    with pytest.raises(
        ImageError, match=r"2 channels of equal standing.*1 to 2, in a manifest's column 'channel'"
    ):
        decode(CHANNELS[kind])
    for channel, values in enumerate((GREY, OTHER), start=1):
        decoded = decode(CHANNELS[kind], DecodeOptions(channel=channel))
        assert np.array_equal(decoded.pixels, _fractions(values))
        assert (decoded.record.channel, decoded.record.channels) == (channel, 2)
        assert "channel-chosen" in decoded.record.flags
    with pytest.raises(ImageError, match="from 1 to 2"):
        decode(CHANNELS[kind], DecodeOptions(channel=3))


def test_a_grey_picture_has_one_channel() -> None:
    """A choice meant for other files would be ignored without a word."""
    assert decode(tiff(GREY), DecodeOptions(channel=1)).record.channels == 1
    with pytest.raises(ImageError, match="a channel from 1 to 1"):
        decode(tiff(GREY), DecodeOptions(channel=2))


def test_an_imagej_stack_behind_one_directory_is_refused() -> None:
    """Of a stack the first slice would be taken for all there is."""
    data = tiff(GREY, description="ImageJ=1.54\nimages=3\nslices=3\n", metadata=None)
    with pytest.raises(ImageError, match="ImageJ stack of 3"):
        decode(data)


def test_samples_beside_colour_are_told_of() -> None:
    """A fourth dye stored beside red, green and blue would vanish without a word."""
    values = np.concatenate([COLOUR, COLOUR[..., :1]], axis=-1)
    data = tiff(values, photometric="rgb", extrasamples=["unspecified"])
    decoded = decode(data)
    assert np.array_equal(decoded.pixels, decode(tiff(COLOUR, photometric="rgb")).pixels)
    assert "channels-left-out" in decoded.record.flags


@pytest.mark.parametrize("premultiplied", [False, True])
def test_deep_transparency_lies_on_white(premultiplied: bool) -> None:
    """Parts that are transparent would be black, or too light where they are half so."""
    opacity = np.full(COLOUR.shape[:2], 65535 * 3 // 5, np.uint16)
    stored = COLOUR * 0.6 if premultiplied else COLOUR
    values = np.dstack([stored.astype(np.uint16), opacity])
    kind = "assocalpha" if premultiplied else "unassalpha"
    decoded = decode(tiff(values, photometric="rgb", extrasamples=[kind]))
    luminance = COLOUR @ np.array([0.299, 0.587, 0.114]) / 65535
    np.testing.assert_allclose(decoded.pixels, 0.6 * luminance + 0.4, atol=3e-5)
    assert "transparent" in decoded.record.flags


def test_opaque_alpha_is_dropped() -> None:
    """A screenshot's alpha would change its values or be taken for a channel."""
    opaque = np.full_like(GREY, 65535)
    values = np.dstack([GREY, opaque])
    data = tiff(
        values, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    decoded = decode(data)
    assert np.array_equal(decoded.pixels, _fractions(GREY))
    assert "transparent" not in decoded.record.flags


@pytest.mark.parametrize("step", [257, 250], ids=["8 bits", "16 bits"])
def test_a_palette_is_looked_up(step: int) -> None:
    """Indices would be taken for brightness."""
    palette = np.stack([np.arange(256, dtype=np.uint16)[::-1] * step] * 3)
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = decode(tiff(indices, photometric="palette", colormap=palette))
    expected = palette[0][indices] / 65535
    scale = 255 if decoded.pixels.dtype == np.uint8 else 1
    np.testing.assert_allclose(decoded.pixels / scale, expected, atol=1e-6)
    assert "palette" in decoded.record.flags


def _needs_codecs(options: dict[str, object]) -> pytest.ParameterSet:
    marks = pytest.mark.skipif(
        not find_spec("imagecodecs"), reason="imagecodecs writes and reads it"
    )
    return pytest.param(options, marks=marks)


COMPRESSED = [
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": 2},
    {"compression": "zlib", "tile": (16, 32)},
    {"compression": "packbits"},
    {"tile": (16, 16)},
    {"rowsperstrip": 7},
    {"byteorder": ">"},
    {"bigtiff": True},
    _needs_codecs({"compression": "lzw", "predictor": 2}),
    _needs_codecs({"compression": "zstd"}),
    _needs_codecs({"compression": "lzma", "tile": (16, 16)}),
]


@pytest.mark.parametrize("options", COMPRESSED, ids=str)
@pytest.mark.parametrize("values", [GREY, (GREY >> 8).astype(np.uint8), COLOUR], ids=str)
def test_a_compression_changes_nothing(
    options: dict[str, object], values: npt.NDArray[np.generic]
) -> None:
    """Saving a gel smaller would change it."""
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    plain = decode(tiff(values, photometric=photometric))
    packed = decode(tiff(values, photometric=photometric, **options))
    assert np.array_equal(packed.pixels, plain.pixels)
    assert packed.record == plain.record


def test_jpeg_within_tiff_is_that_jpeg() -> None:
    """Colours of a compressed scan would be taken for something else."""
    picture = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "TIFF", compression="jpeg", quality=95)
    assert np.abs(decode(file.getvalue()).pixels - np.asarray(picture.convert("L"), int)).max() <= 3


def test_pixels_with_a_size_of_their_own_are_not_trusted() -> None:
    """A strip whose own header declares gigapixels would exhaust the memory."""
    pytest.importorskip("imagecodecs", reason="only it writes the compression")
    four = np.concatenate([COLOUR, COLOUR[..., :1]], axis=-1).astype(np.uint8)
    data = tiff(four, photometric="separated", compression="jpeg")
    with pytest.raises(ImageError, match="Received: JPEG"):
        decode(data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [0, 1], ids=["white is zero", "black is zero"])
def test_packed_bits_mean_the_same_at_every_depth(bits: int, photometric: int) -> None:
    """A 12-bit camera's image would be sixteen times too dark, a 4-bit scan be a stripe pattern."""
    full = 2**bits - 1
    numbers = np.arange(16 * 6, dtype=np.uint32).reshape(6, 16) * full // 95
    if bits == 16:
        packed = numbers.astype("<u2").tobytes()
    else:
        places = np.arange(bits)[::-1]
        packed = np.packbits((numbers[..., None] >> places & 1).reshape(6, -1), axis=1).tobytes()
    if bits == 12 and photometric == 0:
        pytest.importorskip("imagecodecs", reason="Pillow reads 12 bits only of black as zero")
    decoded = decode(bare_tiff(bits, packed, 16, 6, photometric))
    fractions = decoded.pixels / (255 if decoded.pixels.dtype == np.uint8 else 1)
    shown = numbers / full if photometric == 1 else 1 - numbers / full
    np.testing.assert_allclose(fractions, shown, atol=1e-6)
    assert decoded.record.bit_depth == bits
    assert (decoded.pixels.dtype == np.uint8) == (bits <= 8)


SCALE = [(33446, "2I", 1, (3, 700), True)]


def test_square_roots_are_squared() -> None:
    """A phosphorimager's bands would have the square roots of their strengths."""
    data = tiff(GREY, extratags=[(33445, "I", 1, 2, True), *SCALE], metadata=None)
    decoded = decode(data)
    np.testing.assert_allclose(decoded.pixels, (GREY / 65535) ** 2, rtol=1e-5, atol=1e-9)
    assert "square-root-undone" in decoded.record.flags
    assert decoded.record.format == "Molecular Dynamics GEL"
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        counts = file.series[0].asarray()
    np.testing.assert_allclose(decoded.pixels, counts / (65535**2 * 3 / 700), rtol=1e-5, atol=1e-9)


def test_square_roots_of_white_is_zero_grow_with_the_signal() -> None:
    """Inverting before squaring would bend the scale of every scan shown dark on light."""
    data = tiff(GREY, photometric="miniswhite", extratags=[(33445, "I", 1, 2, True), *SCALE])
    decoded = decode(data)
    np.testing.assert_allclose(decoded.pixels, 1 - (GREY / 65535) ** 2, atol=1e-6)
    assert decoded.record.polarity == "light-background"


def test_counts_of_the_same_scanner_stay_linear() -> None:
    """Linear scans would be squared because their scanner also writes square roots."""
    decoded = decode(tiff(GREY, extratags=[(33445, "I", 1, 128, True), *SCALE]))
    assert np.array_equal(decoded.pixels, _fractions(GREY))
    assert decoded.record.polarity == "dark-background"
    with pytest.raises(ImageError, match="tag 7"):
        decode(tiff(GREY, extratags=[(33445, "I", 1, 7, True), *SCALE]))


def test_leicas_slides_are_not_taken_for_bio_rads_scans() -> None:
    """A slide with the ending .scn would be read as if it were a gel."""
    namespace = "http://www.leica-microsystems.com/scn/2010/10/01"
    with pytest.raises(ImageError, match=r"Leica \.scn file"):
        decode(tiff(GREY, description=f'<scn xmlns="{namespace}"/>', metadata=None))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would hear of damage where a package is missing."""
    pytest.importorskip("imagecodecs", reason="only it writes the compression")
    data = tiff(GREY, compression="zstd")
    lzw = io.BytesIO()
    Image.fromarray(GREY).save(lzw, "TIFF", compression="tiff_lzw")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageError, match=r"pip install \"gelkit\[formats\]\""):
        decode(data)
    assert np.array_equal(decode(lzw.getvalue()).pixels, _fractions(GREY))


def _circle() -> bytes:
    data = bytearray(paged_tiff((GREY, {}), (OTHER, {})))
    (first,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * tags)
    (more,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * more, first)
    return bytes(data)


PLAIN = tiff(GREY, rowsperstrip=10)
DEFLATED = tiff(GREY, rowsperstrip=10, compression="zlib")
TILED = tiff(GREY, tile=(16, 16))

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "pages in a circle": (_circle, "circle"),
    "a strip of no bytes": (lambda: _patched(PLAIN, 279, 0), "outside the file or are missing"),
    "a strip too short": (lambda: _patched(PLAIN, 279, 100), "outside the file or are missing"),
    "a strip beyond the end": (lambda: _patched(PLAIN, 273, 10**6), "outside the file"),
    "a strip at no place": (lambda: _patched(PLAIN, 273, 0), "outside the file"),
    "a deflated strip too short": (lambda: _patched(DEFLATED, 279, 300), "xpected"),
    "a tile of no bytes": (lambda: _patched(TILED, 325, 0), "outside the file"),
    "gigapixels": (lambda: _patched(_patched(PLAIN, 256, 65535), 257, 65535), "100,000,000 pixels"),
    "gigantic tiles": (lambda: _patched(_patched(TILED, 322, 65520), 323, 65520), "pixels"),
    "a text for its width": (lambda: _retyped(PLAIN, 256), "one whole number in tag 256"),
    "no pixels": (lambda: _patched(PLAIN, 256, 0), "pixels"),
    "no directory": (lambda: b"II*\0" + b"\0" * 40, "xpected"),
    "a directory beyond the end": (lambda: b"II*\0\xff\xff\xff\x7f" + b"\0" * 40, "xpected"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_tiff_that_lies_is_refused(kind: str) -> None:
    """Missing strips would come out as black, circles hang, sizes exhaust the memory."""
    make, reason = HOSTILE[kind]
    with pytest.raises(ImageError, match=reason):
        decode(make())


@pytest.mark.parametrize("data", [PLAIN, DEFLATED, TILED], ids=["strips", "deflate", "tiles"])
def test_a_truncated_tiff_is_never_filled_up(data: bytes) -> None:
    """The lower part of a gel would be black because a copy was broken off."""
    whole = decode(data).pixels
    for length in range(8, len(data), 97):
        try:
            decoded = decode(data[:length])
        except ImageError:
            continue
        assert np.array_equal(decoded.pixels, whole)


def test_too_many_pages_are_refused() -> None:
    """A file of a million pages would be walked to its end."""
    with pytest.raises(ImageError, match="at most 3 pages"):
        decode(paged_tiff(*[(SMALL, {})] * 4), limits=Limits(pages=3))


def test_a_bomb_of_zeros_is_refused_before_it_is_inflated() -> None:
    """A megabyte would become a gigabyte."""
    strip = zlib.compress(bytes(2**24))
    data = bare_tiff(8, strip, 64, 64, 1)
    data = _patched(data, 259, 8)
    with pytest.raises(ImageError, match="inflates to more"):
        decode(data, limits=Limits(bytes=2**20))


def test_damage_is_not_chattered_about(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Thousands of remarks of a library would bury the failures that matter."""
    level = logging.getLogger("tifffile").level
    with tifffile.TiffFile(io.BytesIO(PLAIN)) as file:
        place = file.pages[0].tags["Software"].offset
    unknown_type = PLAIN[: place + 2] + b"\x63\0" + PLAIN[place + 4 :]
    assert np.array_equal(decode(unknown_type).pixels, _fractions(GREY))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("tifffile").level == level


@settings(max_examples=150, deadline=None)
@given(
    valid=st.sampled_from([PLAIN, DEFLATED, TILED, *CHANNELS.values()]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
    head=st.booleans(),
)
def test_flipped_bytes_are_refused_or_keep_the_shape(
    valid: bytes, edits: list[tuple[float, int]], head: bool
) -> None:
    """One damaged file among thousands would end the run with a traceback."""
    data = bytearray(valid)
    reach = 400 if head else len(data)
    for place, value in edits:
        data[int(place * reach)] = value
    try:
        decoded = decode(bytes(data), DecodeOptions(), Limits(pixels=10**6, pages=10))
    except ImageError:
        return
    assert decoded.pixels.shape == (decoded.record.height, decoded.record.width)
    assert np.isfinite(decoded.pixels).all()


EIGHT = (COLOUR >> 8).astype(np.uint8)
LZW = {
    "8-bit grey": (EIGHT[..., 0], {}),
    "16-bit grey": (COLOUR[..., 0], {}),
    "8-bit colour": (EIGHT, {"photometric": "rgb"}),
    "8-bit colour and opacity": (
        np.dstack([EIGHT, EIGHT[::-1, :, 0]]),
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
}


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
@pytest.mark.parametrize("kind", LZW)
def test_lzw_needs_no_further_package(
    kind: str, tile: tuple[int, int] | None, predictor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ImageJ and Photoshop save would need an extra, or lose bits or opacity without it."""
    pytest.importorskip("imagecodecs", reason="only it writes the compression")
    values, options = LZW[kind]
    plain = decode(tiff(values, **options))
    data = tiff(values, compression="lzw", predictor=predictor, tile=tile, **options)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    packed = decode(data)
    assert np.array_equal(packed.pixels, plain.pixels)
    assert packed.record == plain.record


UNEQUAL = {
    "16-bit colour": (COLOUR, {"photometric": "rgb"}),
    "multiplied opacity": (
        np.dstack([EIGHT, EIGHT[..., 0]]),
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
    ),
    "a fourth dye": (
        np.dstack([EIGHT, EIGHT[..., 0]]),
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
    ),
}


@pytest.mark.parametrize("kind", UNEQUAL)
def test_what_pillow_would_change_is_not_read_through_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file would have other values where imagecodecs is not installed."""
    pytest.importorskip("imagecodecs", reason="only it writes the compression")
    values, options = UNEQUAL[kind]
    data = tiff(values, compression="lzw", **options)
    assert np.array_equal(decode(data).pixels, decode(tiff(values, **options)).pixels)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageError, match=r"gelkit\[formats\]"):
        decode(data)


DEEP_STACK = np.random.default_rng(2).integers(0, 60000, (3, 32, 48, 3), dtype=np.uint16)
"""Of three sizes that are told apart by their places: slice, row, column, sample."""
_OF_GREY, _OF_COLOUR = {"photometric": "minisblack"}, {"photometric": "rgb"}
_PLANES = {"photometric": "rgb", "planarconfig": "separate"}
AXES: dict[str, tuple[str, dict[str, object], list[int], str]] = {
    "slices": ("ZYX", _OF_GREY, [0, 1, 2], "page"),
    "times": ("TYX", _OF_GREY, [0, 1, 2], "page"),
    "dyes": ("CYX", _OF_GREY, [0, 1, 2], "channel"),
    "slices of colour": ("ZYXS", _OF_COLOUR, [0, 1, 2], "page"),
    "times of colour": ("TYXS", _OF_COLOUR, [0, 1, 2], "page"),
    "dyes of colour": ("CYXS", _OF_COLOUR, [0, 1, 2], "page"),
    "slices of planes": ("ZSYX", _PLANES, [0, 1, 2], "page"),
    "times, slices and dyes": ("TZCYX", _OF_GREY, [0, 1, 2, 3, 4, 5], "page"),
}
"""By what OME says: the axes, how they are stored, which pages there are, what they are."""


def _of_axes(axes: str) -> npt.NDArray[np.uint16]:
    if axes == "TZCYX":
        return np.moveaxis(DEEP_STACK[:2], -1, 1)[:, np.newaxis]
    if axes == "ZSYX":
        return np.moveaxis(DEEP_STACK, -1, 1)
    return DEEP_STACK if axes.endswith("S") else DEEP_STACK[..., 0]


@pytest.mark.parametrize("kind", AXES)
def test_what_ome_calls_a_channel_is_one_and_all_else_a_page(kind: str) -> None:
    """Three slices of a stained gel would be taken for its red, green and blue."""
    axes, options, pages, what = AXES[kind]
    values = np.ascontiguousarray(_of_axes(axes))
    data = tiff(values, ome=True, metadata={"axes": axes}, **options)
    with pytest.raises(ImageError, match=f"{len(pages)} {what}s of equal standing"):
        decode(data)
    planes = values if axes.endswith("S") else values.reshape(-1, *values.shape[-2:])
    for page in pages:
        decoded = decode(data, DecodeOptions(**{what: page + 1}))
        plane = DEEP_STACK[page] if "S" in axes else planes[page]
        shown = plane if plane.ndim == 2 else plane @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(decoded.pixels, shown / 65535, atol=1e-6)
        assert (decoded.record.page, decoded.record.pages) == (page + 1, len(pages))
        assert ("colour" in decoded.record.flags) == ("S" in axes)


def test_of_a_page_of_colour_a_channel_can_be_chosen() -> None:
    """A dye of one slice could be had from no file that has several."""
    data = tiff(DEEP_STACK, ome=True, metadata={"axes": "ZYXS"}, **_OF_COLOUR)
    decoded = decode(data, DecodeOptions(page=2, channel=3))
    assert np.array_equal(decoded.pixels, _fractions(DEEP_STACK[1, ..., 2]))
    with pytest.raises(ImageError, match="3 pages"):
        decode(data, DecodeOptions(channel=3))
