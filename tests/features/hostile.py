"""Files that are made to do harm, or that cannot be read."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def slow_jpeg(scans: int, side: int = 2048) -> bytes:
    """Return a small progressive JPEG whose decoder has to go over all its pixels again and again.

    The last scan of a grey square is repeated, which takes some 30 bytes each time.
    """
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def bomb_png(width: int, height: int, rows: int | None = None) -> bytes:
    """Return a PNG of zeros, a thousandth of the size that it decodes to.

    :param rows: how many there really are, if not as many as it says.
    """
    compressor = zlib.compressobj(9)
    row = bytes(1 + width)
    count = height if rows is None else rows
    content = b"".join(compressor.compress(row) for _ in range(count)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def png(seed: int = 0, side: int = 40) -> bytes:
    """Return an ordinary PNG of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )
