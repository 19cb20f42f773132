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


def heic(values: npt.NDArray[np.generic], orientation: int = 1, **options: object) -> bytes:
    """Return the HEIC that libheif writes of grey, or red, green and blue, and opacity.

    Lossless; of 16 bits the upper 10 are kept, or 12 with pillow-heif's option.
    """
    import pillow_heif

    depth = ";16" if values.dtype == np.uint16 else ""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[1 if values.ndim == 2 else values.shape[-1]]
    height, width = values.shape[:2]
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    pillow_heif.from_bytes(mode + depth, (width, height), values.tobytes()).save(
        file,
        **{"quality": -1, "chroma": 444, "matrix_coefficients": 0, "exif": exif.tobytes()}
        | options,
    )
    return file.getvalue()


def ink_profile(darkest: float = 0) -> bytes:
    """Return a colour profile of inks that are all grey: less black, by far, than the rule says.

    Paper has the lightness 100; full cyan takes a tenth of that, magenta a fifth, yellow a
    twentieth, black half of it; ``darkest`` is the lightness of all together.
    """
    shares = (0.9, 0.8, 0.95, 0.5)
    table = bytearray()
    for corner in range(16):
        lightness = 1.0
        for place, share in enumerate(shares):
            lightness *= share if corner >> (3 - place) & 1 else 1
        table += bytes([255 if corner == 0 else round(255 * lightness), 128, 128])
    if darkest:
        table[-3] = round(2.55 * darkest)
    ramp = bytes(range(256))
    unity = struct.pack(">9i", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    shown = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unity + 4 * ramp + bytes(table) + 3 * ramp
    # the way back, which only says what is black: all inks at lightness 0, none at 100
    laid = bytes(255 * (corner < 4) for corner in range(8) for _ in shares)
    back = b"mft1" + bytes(4) + bytes([3, 4, 2, 0]) + unity + 3 * ramp + laid + 4 * ramp
    text = b"text" + bytes(4) + b"made for a test\0"
    described = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    parts = {b"desc": described, b"cprt": text, b"wtpt": white, b"A2B0": shown, b"B2A0": back}
    place = 128 + 4 + 12 * len(parts)
    entries, contents = struct.pack(">I", len(parts)), b""
    for name, content in parts.items():
        entries += name + struct.pack(">II", place + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    size = place + len(contents)
    head = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + entries + contents
