"""Corpus: whole files of every format and kind, small and made by code, that mutants are made of.

The same bytes on every call, so that a mutant is made again from its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.images.made_files import (
    bare_tiff,
    bio_rad_1sc,
    bio_rad_scn,
    bitmap,
    heic,
    paged_tiff,
    png_16_bit_colour,
    saved,
    tiff,
)

_HEIGHT, _WIDTH = 24, 32
_NOISE = np.random.default_rng(0)
_BANDS = np.add.outer(np.arange(_HEIGHT) * 5, np.arange(_WIDTH) * 4)
GREY = (_BANDS + _NOISE.integers(0, 12, _BANDS.shape)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 250 + 7
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
DEEP_COLOUR = COLOUR.astype(np.uint16) * 250 + 7
OPACITY = np.where(_BANDS > 100, 255, _BANDS).astype(np.uint8)
SMALL = DEEP[:8, :10].copy()
"""A thumbnail."""

_DEEP_OPACITY = OPACITY.astype(np.uint16) * 257
_ORIENTED = {"extratags": [(274, "H", 1, 6, True)]}


def _dtypes() -> dict[str, npt.NDArray[np.generic]]:
    values = GREY / 255
    whole = ("u1", "u2", "u4", "i1", "i2", "i4", "u8")
    made = {kind: (values * np.iinfo(kind).max).astype(kind) for kind in whole}
    return {**made, **{kind: values.astype(kind) for kind in ("f2", "f4", "f8")}}


def plain_tiffs() -> Sequence[bytes]:
    """Return TIFFs that gelkit reads through tifffile alone."""
    rgb, grey = {"photometric": "rgb"}, {"photometric": "minisblack"}
    indices = np.arange(256, dtype=np.uint16)
    whites = [tiff(values, photometric="miniswhite") for values in (GREY, DEEP)]
    white_fractions = tiff((GREY / 255).astype("f4"), photometric="miniswhite")
    return [
        *(tiff(values) for values in _dtypes().values()),
        *whites,
        white_fractions,
        tiff((GREY * 3).astype("f4")),
        tiff(DEEP, byteorder=">"),
        tiff(DEEP, bigtiff=True),
        tiff(DEEP, tile=(16, 16)),
        tiff(DEEP, rowsperstrip=5),
        tiff(GREY, **_ORIENTED),
        tiff(DEEP, extratags=[(281, "H", 1, 65000, True)]),
        tiff(COLOUR, **rgb),
        tiff(DEEP_COLOUR, **rgb),
        tiff(np.moveaxis(COLOUR, -1, 0).copy(), **rgb, planarconfig="separate"),
        tiff(np.dstack([COLOUR, OPACITY]), **rgb, extrasamples=["unassalpha"]),
        tiff(np.dstack([DEEP_COLOUR, _DEEP_OPACITY]), **rgb, extrasamples=["assocalpha"]),
        tiff(np.dstack([DEEP_COLOUR, DEEP]), **rgb, extrasamples=["unspecified"]),
        tiff(np.dstack([DEEP, _DEEP_OPACITY]), **grey, planarconfig="contig", extrasamples=[2]),
        tiff(np.dstack([DEEP, DEEP[::-1]]), **grey, planarconfig="contig"),
        tiff(GREY, photometric="palette", colormap=np.stack([indices * 257] * 3)),
        tiff(GREY, photometric="palette", colormap=np.stack([indices, indices * 250, indices])),
        tiff(GREY, photometric="palette", colormap=np.stack([indices] * 3)),
        tiff(np.ones((8, 8), np.complex64)),
    ]


def compressed_tiffs() -> Sequence[bytes]:
    """Return TIFFs that need Pillow, imagecodecs or zlib."""
    codecs = ("zlib", "packbits", "lzw", "zstd", "lzma")
    by_pillow = {
        "tiff_lzw": (GREY, DEEP, COLOUR),
        "tiff_adobe_deflate": (DEEP, COLOUR),
        "jpeg": (GREY, COLOUR),
        "packbits": (GREY,),
        "group3": (GREY > 100,),
        "group4": (GREY > 100,),
    }
    bits = [(bit, white) for bit in (1, 2, 4, 12) for white in (0, 1)]
    return [
        *(tiff(DEEP, compression=codec) for codec in codecs),
        *(tiff(COLOUR, photometric="rgb", compression=codec, tile=(16, 16)) for codec in codecs),
        *(tiff(DEEP, compression=codec, predictor=2) for codec in ("zlib", "lzw")),
        tiff((GREY / 255).astype("f4"), compression="lzw", predictor=3),
        tiff(DEEP, compression="lzw", **_ORIENTED),
        *(
            saved(Image.fromarray(values), "TIFF", compression=codec)
            for codec, pictures in by_pillow.items()
            for values in pictures
        ),
        *(bare_tiff(bit, bytes(range(240)) * 2, 32, 40 // bit * 3, white) for bit, white in bits),
        *(saved(Image.fromarray(GREY).convert(mode), "TIFF") for mode in ("1", "P", "LA", "CMYK")),
        saved(Image.merge("LAB", [Image.fromarray(GREY)] * 3), "TIFF"),
    ]


def paged_tiffs() -> Sequence[bytes]:
    """Return TIFFs of several pages or channels, and of other makers' metadata."""
    stack = np.stack([DEEP, DEEP[::-1]])
    ome = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {}/>'
    described = ome.format('SizeC="2" SizeX="32" SizeY="24"') + "</Image></OME>"
    by_pillow = [Image.fromarray(values) for values in stack]
    return [
        paged_tiff((SMALL, {"subfiletype": 1}), (DEEP, {})),
        paged_tiff((DEEP, {}), (SMALL, {"subfiletype": 1})),
        paged_tiff((DEEP, {}), (DEEP > 9, {"subfiletype": 4, "photometric": 4})),
        paged_tiff((SMALL[:4, :4].copy(), {}), (DEEP, {}), (SMALL[:3, :3].copy(), {})),
        paged_tiff((DEEP, {}), (DEEP[::-1].copy(), {})),
        paged_tiff(
            (DEEP, {"description": described, "metadata": None}), (DEEP, {"metadata": None})
        ),
        paged_tiff(
            (DEEP, {"description": "ImageJ=1.54\nimages=2\nchannels=2\n", "metadata": None}),
            (DEEP, {"metadata": None}),
        ),
        tiff(DEEP, description="ImageJ=1.54\nimages=3\nslices=3\n", metadata=None),
        tiff(stack, photometric="minisblack", planarconfig="separate", compression="zlib"),
        tiff(stack, imagej=True),
        saved(by_pillow[0], "TIFF", save_all=True, append_images=by_pillow, compression="tiff_lzw"),
        tiff(DEEP, description="<scn xmlns='http://www.leica-microsystems.com/scn'/>"),
    ]


def gels() -> Sequence[bytes]:
    """Return Molecular Dynamics' files: square roots, counts, and an encoding of neither."""
    scale = [(33446, "2I", 1, (3, 700), True), (33447, "H", 4, (1, 2, 3, 4), True)]
    return [
        tiff(DEEP, photometric=shown, extratags=[(33445, "I", 1, tag, True), *scale])
        for shown in ("minisblack", "miniswhite")
        for tag in (2, 128, 7)
    ]


def pngs() -> Sequence[bytes]:
    """Return PNGs of all depths and kinds of colour, with and without transparency."""
    colour, exif = Image.fromarray(COLOUR), Image.Exif()
    exif[274] = 6
    palette = colour.quantize(17)
    clear = colour.copy()
    clear.putalpha(Image.fromarray(OPACITY))
    return [
        *(saved(Image.fromarray(values), "PNG") for values in (GREY, DEEP, COLOUR, GREY > 100)),
        *(saved(clear.convert(mode), "PNG") for mode in ("LA", "RGBA")),
        saved(palette, "PNG"),
        *(saved(colour.quantize(2**bits), "PNG", bits=bits) for bits in (1, 2, 4)),
        saved(palette, "PNG", transparency=3),
        saved(palette, "PNG", transparency=bytes(range(0, 255, 15))),
        saved(Image.fromarray(GREY), "PNG", transparency=int(GREY[3, 4])),
        saved(Image.fromarray(DEEP), "PNG", transparency=int(DEEP[3, 4])),
        saved(colour, "PNG", transparency=tuple(map(int, COLOUR[3, 4]))),
        saved(Image.fromarray(GREY), "PNG", exif=exif),
        saved(Image.fromarray(DEEP), "PNG", dpi=(300, 300), icc_profile=bytes(200)),
        png_16_bit_colour(DEEP_COLOUR),
        png_16_bit_colour(np.dstack([DEEP, _DEEP_OPACITY])),
        png_16_bit_colour(np.dstack([DEEP_COLOUR, _DEEP_OPACITY])),
        _animated("PNG"),
    ]


def jpegs() -> Sequence[bytes]:
    """Return JPEGs: baseline and progressive, grey, colour and CMYK, turned, of two pictures."""
    grey, colour, exif = Image.fromarray(GREY), Image.fromarray(COLOUR), Image.Exif()
    exif[274] = 8
    return [
        saved(grey, "JPEG"),
        saved(colour, "JPEG"),
        saved(grey, "JPEG", progressive=True, quality=95),
        saved(colour, "JPEG", progressive=True, subsampling=0),
        saved(colour, "JPEG", optimize=True, subsampling=2, restart_marker_blocks=2),
        saved(colour, "JPEG", exif=exif, icc_profile=bytes(200), comment=b"a gel"),
        saved(colour.convert("CMYK"), "JPEG"),
        saved(grey, "MPO", save_all=True, append_images=[grey]),
    ]


def gifs() -> Sequence[bytes]:
    """Return GIFs, of one frame and of several, opaque and not."""
    grey, palette = Image.fromarray(GREY), Image.fromarray(COLOUR).quantize(30)
    return [
        saved(grey, "GIF"),
        saved(palette, "GIF", interlace=0),
        saved(palette, "GIF", transparency=3),
        _animated("GIF"),
    ]


def bmps() -> Sequence[bytes]:
    """Return BMPs of 1 to 32 bits a pixel, and one without its file's header."""
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    pictures = (grey, grey.convert("1"), grey.convert("P"), colour, colour.convert("RGBA"))
    runs = b"".join(bytes([8, value]) * 4 + b"\0\0" for value in range(24)) + b"\0\1"
    return [
        *(saved(picture, "BMP") for picture in pictures),
        saved(colour, "DIB"),
        bitmap(8, [0, 255], (GREY > 100).astype(np.uint8).tobytes()),
        bitmap(8, list(range(200, 0, -1)), (GREY // 2).tobytes()),
        bitmap(4, [0, 255, 100, 30], (GREY[:, ::2] // 64 * 17).tobytes()),
        bitmap(16, [], DEEP.tobytes()),
        bitmap(8, list(range(255, -1, -1)), runs, compression=1),
    ]


def webps() -> Sequence[bytes]:
    """Return WebPs: lossy and lossless, with alpha, turned and animated."""
    grey, colour, exif = Image.fromarray(GREY), Image.fromarray(COLOUR), Image.Exif()
    exif[274] = 3
    clear = colour.copy()
    clear.putalpha(Image.fromarray(OPACITY))
    return [
        saved(colour, "WEBP"),
        saved(grey, "WEBP", lossless=True),
        saved(clear, "WEBP"),
        saved(clear, "WEBP", lossless=True),
        saved(colour, "WEBP", lossless=True, exif=exif),
        _animated("WEBP"),
    ]


def _animated(container: str) -> bytes:
    frames = [Image.fromarray(values) for values in (GREY, GREY[::-1].copy())]
    return saved(frames[0], container, save_all=True, append_images=frames[1:])


def scans_1sc() -> Sequence[bytes]:
    """Return Bio-Rad's .1sc files."""
    return [bio_rad_1sc(DEEP), bio_rad_1sc(SMALL)]


def scans_scn() -> Sequence[bytes]:
    """Return Bio-Rad's .scn files: of either polarity and byte order, of several scans."""
    return [
        bio_rad_scn(DEEP),
        bio_rad_scn(DEEP // 16, zero_is="white", maximum=4095),
        bio_rad_scn(DEEP, order="big"),
        bio_rad_scn(DEEP, SMALL),
        bio_rad_scn(SMALL, extra='<scaler><moldyn mode="2"/></scaler>'),
        bio_rad_scn(SMALL, doctype='<!DOCTYPE XML [<!ENTITY a "b">]>'),
    ]


def shared_pictures() -> Sequence[bytes]:
    """Return what archives, the web and phones save: JPEG 2000, AVIF and HEIC."""
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    see_through = Image.fromarray(np.dstack([COLOUR, OPACITY]))
    return [
        saved(colour, "JPEG2000"),
        saved(see_through, "JPEG2000"),
        saved(grey, "JPEG2000", no_jp2=True),
        saved(Image.fromarray(DEEP), "JPEG2000"),
        saved(grey, "AVIF", max_threads=1),
        saved(see_through, "AVIF", max_threads=1),
        heic(COLOUR),
        heic(DEEP, orientation=6),
    ]


def others() -> Sequence[bytes]:
    """Return what begins as formats that are not read do, and what is no image at all."""
    signatures = {
        0: (b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"\x89HDF\r\n\x1a\n", b"PK\3\4", b"8BPS"),
        4: (b"ftypmif1",),
        128: (b"DICM",),
        344: (b"n+1\0",),
    }
    return [
        *(
            bytes(place) + sign + bytes(400)
            for place, signs in signatures.items()
            for sign in signs
        ),
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        b"lane,band\n1,200\n",
        saved(Image.fromarray(GREY), "PPM"),
        saved(Image.fromarray(COLOUR), "TGA"),
        saved(Image.fromarray(COLOUR), "EPS"),
        saved(Image.fromarray(GREY), "ICO"),
    ]


MANIFESTS = (
    b"path,label\na.png,gel\nb.png,other\n",
    b"\xef\xbb\xbfpath,label,group,source,split\r\na.png,1,g,Typhoon,train\r\nb.png,2,,,test\r\n",
    b'path,label\n"a.png","x,""y"""\n"b.png","two\nlines"\n',
    b"path,label\n'=1.png,'=cmd\nb.png,''\n",
    b"path,label\nfolder,gel\n/etc/passwd,gel\n",
    b"path,label\n../outside.png,gel\n",
    b"path,label\nlink.png,gel\na.png,other\n",
    b"path,label\na.png,gel\nfolder/../a.png,other\n",
    b"label\ngel\n",
    "path,label\n\u00e9.png,gel\n".encode("latin-1"),
    "path,label\na.png,gel\n".encode("utf-16"),
)
"""Beside ``a.png``, ``b.png``, ``=1.png``, ``folder`` and a ``link.png`` that leads out."""


def failures() -> Sequence[bytes]:
    """Return tables of what failed, as caches keep them."""
    head = "path,sha256,error,retry,decoder\r\n"
    rows = [f"a.png,{'0' * 64},expected an image,False,pillow 13\r\n", "'=b.png,,gone,True,\r\n"]
    return [(head + "".join(rows[:count])).encode() for count in range(3)]


def results() -> Sequence[bytes]:
    """Return tables of results: of one row, of a few, and of none."""
    from gelkit.heads.results import make_results, write_results

    row = {"accuracy": 0.5, "conf_mat": [[1, 2], [3, 4]], "classes": ["001", "=NA"], "device": "-"}
    made = []
    with TemporaryDirectory() as folder:
        path = Path(folder, "results.csv")
        for count in (1, 3, 0):
            rows = [{"model_id": number, **row, "n_sources": number} for number in range(count)]
            write_results(make_results(rows), path)
            made.append(path.read_bytes())
    return made


def shards() -> Sequence[bytes]:
    """Return a cache's shards of one row and of several."""
    from gelkit.features.shards import encode
    from tests.features.made_up import RECIPE, make

    return [encode(make(range(count)), RECIPE) for count in (1, 5)]
