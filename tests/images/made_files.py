"""Made files: images of every kind that the tests read, written by other means than gelkit's.

A module of its own, so that several tests and the fuzz targets make their files of it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    """Return the file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def tiff(values: npt.NDArray[np.generic], **options: object) -> bytes:
    """Return the TIFF of one series that tifffile writes."""
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)  # type: ignore[arg-type]
    return file.getvalue()


def paged_tiff(*pages: tuple[npt.NDArray[np.generic], dict[str, object]]) -> bytes:
    """Return a TIFF of pages that have their own sizes and tifffile's options."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for values, options in pages:
            writer.write(values, contiguous=False, **options)  # type: ignore[arg-type]
    return file.getvalue()


def bare_tiff(bits: int, values: bytes, width: int, height: int, photometric: int) -> bytes:
    """Return the smallest TIFF of one strip, for bits that no writer at hand packs."""
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, len(values)),
    ]
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + directory


def png_16_bit_colour(values: npt.NDArray[np.uint16]) -> bytes:
    """Return what Pillow cannot write: a PNG of two (with alpha), three or four 16-bit channels."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG with its length and checksum."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bitmap(bits: int, greys: Sequence[int], pixels: bytes, compression: int = 0) -> bytes:
    """Return what Pillow does not write: a BMP of 32 x 24 pixels and any palette of greys."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in greys)
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    size = (40, 32, 24, 1, bits, compression, len(pixels), 0, 0, len(greys), 0)
    return head + struct.pack("<IiiHHIIiiII", *size) + palette + pixels


def bio_rad_1sc(counts: npt.NDArray[np.uint16]) -> bytes:
    """Return what a reader needs of the published layout: header, blocks, scan header, pixels."""
    height, width = counts.shape
    described = [("nxpix", width), ("nypix", height), ("endian", 0)]
    texts = [_text(10, "Scan Header"), _text(11, "SCN")]
    texts += [_text(20 + place, name) for place, (name, _) in enumerate(described)]
    collection = _field(102, 1, struct.pack("<HHHHII", 0, 0, 0, 1, 2, 10))
    item = struct.pack("<HHHHIII", 1000, 0, 0, len(described), 3, 2 * len(described), 11)
    description = b"".join(_region(4, place, 20 + place, 2) for place in range(len(described)))
    numbers = struct.pack(f"<{len(described)}H", *(value for _, value in described))
    fields = [*texts, collection, _field(101, 2, item), _field(100, 3, description)]
    fields.append(_field(1000, 4, numbers))
    end = _field(0, 0, b"")
    blocks = [bytes(8) + b"".join(fields) + end] + [bytes(8) + end] * 9
    blocks.append(counts[::-1].astype("<u2").tobytes())
    return _with_header(blocks)


def _field(kind: int, identity: int, payload: bytes) -> bytes:
    return struct.pack("<HHI", kind, 8 + len(payload), identity) + payload


def _text(identity: int, text: str) -> bytes:
    return _field(16, identity, text.encode() + b"\0")


def _region(kind: int, place: int, name: int, size: int) -> bytes:
    return struct.pack("<HHIIIIIHHII", kind, place, 1, 2 * place, name, 0, size, 0, 0, 0, 0)


def _with_header(blocks: list[bytes]) -> bytes:
    kinds = (142, 143, 132, 133, 141, 140, 126, 127, 128, 129, 130)
    start = 160 + 20 * len(blocks) + 8
    pointers = b""
    place = start
    for kind, block in zip(kinds, blocks, strict=True):
        pointers += struct.pack("<HHIIII", kind, 1, 0, place, len(block), 0)
        place += len(block)
    words = b"\xaf\xafStable File Version 2.0 \r\n  \r\nIntel Format"
    head = words.ljust(56) + b"Bio-Rad Scan File - ID 12345678901234567".ljust(80)
    head += struct.pack("<6I", 200, 3, 0, start, place - start, 4096)
    return head + pointers + _field(0, 0, b"") + b"".join(blocks)


def bio_rad_scn(
    *scans: npt.NDArray[np.uint16],
    zero_is: str = "black",
    maximum: int = 65535,
    order: str = "little",
    extra: str = "",
    doctype: str = "<!DOCTYPE XML>",
) -> bytes:
    """Return what a reader needs of Image Lab's multipart document."""
    lines = [
        b"MIME-Version: 1.0 (Generated by Image Lab 6.1)",
        b'Content-Type: multipart/mixed; boundary="outer"',
        b"",
        b"--outer",
        *_part("text/xml", b"<ItemHeader><name>a gel</name></ItemHeader>"),
    ]
    for scan in scans:
        height, width = scan.shape
        header = (
            f"{doctype}<ImageHeader><endian>{order}</endian>"
            f'<size_pix width="{width}" height="{height}"/>'
            f'<scanner max_value="{maximum}"/><image zero_is="{zero_is}"/>{extra}</ImageHeader>'
        )
        pixels = scan.astype("<u2" if order == "little" else ">u2").tobytes()
        lines += [b"--outer", b'Content-Type: multipart/mixed; boundary="inner"', b"", b"--inner"]
        lines += _part("application/octet-stream", pixels)
        lines += [b"--inner", *_part("text/xml", header.encode()), b"--inner"]
    return b"\r\n".join([*lines, b"--outer", b""])


def _part(kind: str, body: bytes) -> list[bytes]:
    return [f"Content-Type: {kind}".encode(), f"Content-Length: {len(body)}".encode(), b"", body]
