"""Instruments: Bio-Rad's files give the numbers that the imager counted, or say why not."""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import bio_rad_1sc, bio_rad_scn

from gelkit.images.formats import DecodedImage, DecodeOptions, ImageError, Limits, decode

COUNTS = np.random.default_rng(0).integers(0, 4096, (12, 17), dtype=np.uint16)
OTHER = COUNTS[::-1].copy()


def _counts(decoded: DecodedImage, maximum: int) -> npt.NDArray[np.float64]:
    return decoded.pixels.astype(np.float64) * maximum


def test_1sc_gives_the_counts_upright() -> None:
    """A ChemiDoc's own file would be unreadable, upside down or in the wrong byte order."""
    decoded = decode(bio_rad_1sc(COUNTS))
    np.testing.assert_allclose(_counts(decoded, 65535), COUNTS, atol=0.01)
    record = decoded.record
    assert (record.format, record.bit_depth, record.maximum) == ("Bio-Rad 1sc", 16, 65535)
    assert (record.polarity, record.polarity_source) == ("dark-background", "file")


def test_1sc_agrees_with_a_second_reader() -> None:
    """The test's own writer and the reader could share a mistake about the layout."""
    module = pytest.importorskip("biorad1sc_reader", reason="it is the second reader")
    data = bio_rad_1sc(COUNTS)
    width, height, values = module.Reader(io.BytesIO(data)).get_img_data()
    assert np.array_equal(values.reshape(height, width), COUNTS)


@pytest.mark.parametrize("zero_is", ["black", "white"])
def test_scn_is_shown_as_it_says(zero_is: str) -> None:
    """A blot that Image Lab shows dark on light would be inverted, or its polarity unknown."""
    decoded = decode(bio_rad_scn(COUNTS, zero_is=zero_is))
    shown = COUNTS if zero_is == "black" else 65535 - COUNTS.astype(float)
    np.testing.assert_allclose(_counts(decoded, 65535), shown, atol=0.01)
    expected = "dark-background" if zero_is == "black" else "light-background"
    assert (decoded.record.polarity, decoded.record.polarity_source) == (expected, "file")
    dark = decode(bio_rad_scn(COUNTS, zero_is=zero_is), DecodeOptions(polarity="dark-background"))
    np.testing.assert_allclose(_counts(dark, 65535), COUNTS, atol=0.01)


@pytest.mark.parametrize("order", ["little", "big"])
def test_scn_knows_its_scanners_largest_number(order: str) -> None:
    """A 12-bit camera's image would be sixteen times too dark."""
    decoded = decode(bio_rad_scn(COUNTS, maximum=4095, order=order))
    np.testing.assert_allclose(_counts(decoded, 4095), COUNTS, atol=0.001)
    assert decoded.record.maximum == 4095


def test_of_several_scans_one_must_be_chosen() -> None:
    """Of a multichannel blot the first dye would be taken."""
    data = bio_rad_scn(COUNTS, OTHER)
    with pytest.raises(ImageError, match="gels, 1 to 2, in a manifest"):
        decode(data)
    decoded = decode(data, DecodeOptions(channel=2))
    np.testing.assert_allclose(_counts(decoded, 65535), OTHER, atol=0.01)
    assert (decoded.record.channel, decoded.record.channels) == (2, 2)


ENTITY = '<!DOCTYPE XML [<!ENTITY a "b">]>'

REFUSED = {
    "1sc cut short": (bio_rad_1sc(COUNTS)[:-3], "whole"),
    "1sc of another size": (bio_rad_1sc(COUNTS).replace(b"nxpix", b"other"), "xpected"),
    "1sc without a scan": (bio_rad_1sc(COUNTS).replace(b"SCN\0", b"ABC\0"), "header of a scan"),
    "scn cut short": (bio_rad_scn(COUNTS)[:500], "whole"),
    "scn without a scan": (bio_rad_scn(), "without them"),
    "scn with entities": (bio_rad_scn(COUNTS, doctype=ENTITY), "entities"),
    "scn of square roots": (
        bio_rad_scn(COUNTS, extra='<scaler><moldyn mode="2"/></scaler>'),
        "roots",
    ),
    "scn of another size": (bio_rad_scn(COUNTS).replace(b'width="17"', b'width="16"'), "16 x 12"),
    "scn beyond its maximum": (bio_rad_scn(COUNTS, maximum=100), "up to 100"),
    "scn of unknown order": (bio_rad_scn(COUNTS, order="middle"), "middle-endian"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_damaged_or_unclear_is_refused(kind: str) -> None:
    """Half a scan or a wrong scale would be taken for the gel."""
    data, reason = REFUSED[kind]
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_fields_that_never_end_are_refused() -> None:
    """A field of no length would hold a run up for ever."""
    data = bytearray(bio_rad_1sc(COUNTS))
    start = 160 + 20 * 11 + 8 + 8
    struct.pack_into("<H", data, start + 2, 0)
    with pytest.raises(ImageError, match="at least 8 bytes"):
        decode(bytes(data))


@pytest.mark.parametrize("data", [bio_rad_1sc(COUNTS), bio_rad_scn(COUNTS)], ids=["1sc", "scn"])
def test_limits_hold_for_instruments_too(data: bytes) -> None:
    """A header that declares gigapixels would exhaust the memory."""
    with pytest.raises(ImageError, match="at most 200 pixels"):
        decode(data, limits=Limits(pixels=200))


@settings(max_examples=200, deadline=None)
@given(
    valid=st.sampled_from([bio_rad_1sc(COUNTS), bio_rad_scn(COUNTS), bio_rad_scn(COUNTS, OTHER)]),
    edits=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=5),
    length=st.floats(0.2, 1),
)
def test_damage_is_an_image_error_or_a_picture(
    valid: bytes, edits: list[tuple[int, int]], length: float
) -> None:
    """One damaged file among thousands would end the run with a traceback."""
    data = bytearray(valid[: int(len(valid) * length)])
    for place, value in edits:
        data[place % len(data)] = value
    try:
        decoded = decode(bytes(data))
    except ImageError:
        return
    assert decoded.pixels.shape == (decoded.record.height, decoded.record.width)
