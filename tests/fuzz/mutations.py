"""Mutations: how whole files are damaged, by chance and by those who know their format."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from tests.images.made_files import png_chunk

Mutation: TypeAlias = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""Makes other bytes of a file's; the last argument is the corpus, to splice with."""

_BOUNDARIES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_MOST_INSERTED = 64
_STACKED = (1, 1, 1, 1, 2, 2, 3, 5)
"""How many mutations a file gets: with more, hardly anything is read any more."""
_LARGEST_BYTES = 2**20
"""Of a mutant: duplication and splicing must not let files grow without end."""


def mutant(corpus: Sequence[bytes], mutations: Sequence[Mutation], seed: str, number: int) -> bytes:
    """Return the mutant of this number, the same for the same corpus, mutations and seed."""
    draw = Random(f"{seed}/{number}")
    return mutated(draw.choice(corpus), draw, corpus, mutations)


def mutated(
    data: bytes, draw: Random, corpus: Sequence[bytes], mutations: Sequence[Mutation]
) -> bytes:
    """Return a file after some mutations."""
    for _ in range(draw.choice(_STACKED)):
        data = draw.choice(mutations)(data, draw, corpus)[:_LARGEST_BYTES]
    return data


def flip_bits(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Flip up to eight bits."""
    changed = bytearray(data)
    for _number in range(draw.randint(1, 8) if data else 0):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def set_number(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Write a number on which programs stumble over one to eight bytes."""
    code = draw.choice("<>") + draw.choice("BHIQ")
    number = draw.choice(_BOUNDARIES) % 256 ** struct.calcsize(code)
    return _overwritten(data, _place(data, draw), struct.pack(code, number))


def set_number_in_head(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Do the same in the first bytes, where most formats say what follows."""
    head = draw.choice((16, 64, 256))
    return set_number(data[:head], draw, corpus) + data[head:]


def nudge(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Make one byte a little larger or smaller."""
    if not data:
        return data
    place = draw.randrange(len(data))
    return _overwritten(data, place, bytes([(data[place] + draw.choice((-1, 1, 16))) % 256]))


def truncate(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Cut the file off."""
    return data[: _place(data, draw)]


def insert(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Insert random bytes, or zeros."""
    count, place = draw.randint(1, _MOST_INSERTED), _place(data, draw)
    return data[:place] + draw.choice((draw.randbytes(count), bytes(count))) + data[place:]


def delete(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Take some bytes out."""
    place = _place(data, draw)
    return data[:place] + data[place + draw.randint(1, _MOST_INSERTED) :]


def duplicate(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Repeat a stretch of bytes, now and then often."""
    first, last = sorted((_place(data, draw), _place(data, draw)))
    return data[:last] + data[first:last] * draw.choice((1, 1, 1, 50)) + data[last:]


def splice(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Go on with the rest of another file."""
    other = draw.choice(corpus)
    return data[: _place(data, draw)] + other[_place(other, draw) :]


def transplant(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Write a stretch of another file over this one's."""
    other = draw.choice(corpus)
    first, last = sorted((_place(other, draw), _place(other, draw)))
    return _overwritten(data, _place(data, draw), other[first:last])


GENERIC: tuple[Mutation, ...] = (
    flip_bits,
    set_number,
    set_number_in_head,
    nudge,
    truncate,
    insert,
    delete,
    duplicate,
    splice,
    transplant,
)


def _place(data: bytes, draw: Random) -> int:
    return draw.randint(0, len(data))


def _overwritten(data: bytes, place: int, new: bytes) -> bytes:
    return (data[:place] + new + data[place + len(new) :])[: max(len(data), place + len(new))]


@dataclass(frozen=True)
class _Entry:
    """Where an entry of a TIFF's directory lies, and the codes of its numbers."""

    place: int
    order: str
    count_code: str
    """``I``, or ``Q`` in BigTIFF; values are of the same size."""


_TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    281,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
    341,
    330,
    347,
    530,
    33445,
    33446,
    32997,
)


def change_tag(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Change code, type, count or value of a TIFF's entry."""
    entries = _entries(data)
    if not entries:
        return data
    entry = draw.choice(entries)
    size = struct.calcsize(entry.count_code)
    field, code, values = draw.choice(
        (
            (0, "H", _TAGS),
            (2, "H", range(20)),
            (4, entry.count_code, (*_BOUNDARIES, 3, 4, 5)),
            (4 + size, entry.count_code, (*_BOUNDARIES, *range(16), 32, 64, len(data))),
            (4 + size, "H", (*_BOUNDARIES[:9], *range(16), 32, 64, 32773, 34925, 50000)),
        )
    )
    new = struct.pack(entry.order + code, draw.choice(values))
    return _overwritten(data, entry.place + field, new)


def swap_tags(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Write an entry of a TIFF's directory over another."""
    entries = _entries(data)
    if not entries:
        return data
    one, other = draw.choice(entries), draw.choice(entries)
    size = 4 + 2 * struct.calcsize(one.count_code)
    return _overwritten(data, other.place, data[one.place : one.place + size])


def _entries(data: bytes) -> list[_Entry]:
    """Return the entries of a TIFF's directories as far as they can be found."""
    order, big = ("<" if data[:2] == b"II" else ">"), 43 in data[2:4]
    offset_place, count_code, number = (8, "Q", "Q") if big else (4, "H", "I")
    size = 4 + 2 * struct.calcsize(number)
    entries: list[_Entry] = []
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + number, data, offset_place)
        while offset and offset not in seen:
            seen.add(offset)
            (count,) = struct.unpack_from(order + count_code, data, offset)
            first = offset + struct.calcsize(count_code)
            last = first + count * size
            entries += [
                _Entry(place, order, number) for place in range(first, min(last, len(data)), size)
            ]
            (offset,) = struct.unpack_from(order + number, data, last)
    except (struct.error, OverflowError):
        pass
    return entries


TIFF: tuple[Mutation, ...] = (*GENERIC, change_tag, change_tag, change_tag, swap_tags)

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS: tuple[bytes, ...] = (
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"gAMA",
    b"cHRM",
    b"sBIT",
    b"iCCP",
)
_PNG_KINDS += (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"zzZz")


def change_chunk(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Mutate what one chunk of a PNG holds, and mend its length and checksum."""
    chunks = _chunks(data)
    if not chunks:
        return data
    index = draw.randrange(len(chunks))
    kind, content = chunks[index]
    change = draw.choice((flip_bits, set_number, truncate, insert, _inflated))
    chunks[index] = kind, change(content, draw, corpus)
    return _png(chunks)


def rearrange_chunks(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Drop, repeat, rename or swap chunks of a PNG, or take one over from another."""
    chunks = _chunks(data)
    if not chunks:
        return data
    one, other = draw.randrange(len(chunks)), draw.randrange(len(chunks))
    foreign = _chunks(draw.choice(corpus)) or chunks
    arrangements = (
        chunks[:one] + chunks[one + 1 :],
        [*chunks[:one], chunks[other], *chunks[one:]],
        [*chunks[:one], (draw.choice(_PNG_KINDS), chunks[one][1]), *chunks[one + 1 :]],
        [*chunks[:one], draw.choice(foreign), *chunks[one:]],
    )
    return _png(draw.choice(arrangements))


def _inflated(content: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Mutate what is deflated, not how."""
    try:
        inflated = zlib.decompress(content)
    except zlib.error:
        return content
    return zlib.compress(draw.choice((flip_bits, truncate, insert))(inflated, draw, corpus))


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks = []
    place = len(_PNG_MAGIC)
    while data.startswith(_PNG_MAGIC) and place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return _PNG_MAGIC + b"".join(png_chunk(*chunk) for chunk in chunks)


PNG: tuple[Mutation, ...] = (*GENERIC, *[change_chunk] * 6, *[rearrange_chunks] * 3)


def change_segment(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Mutate, drop, repeat or move a JPEG's segment: what lies between two bytes of 255."""
    segments = data.split(b"\xff")
    index = draw.randrange(len(segments))
    one = segments[index]
    replacements: tuple[list[bytes], ...] = (
        [],
        [one, one],
        [set_number(one, draw, corpus)],
        [one, draw.choice(segments)],
    )
    return b"\xff".join([*segments[:index], *draw.choice(replacements), *segments[index + 1 :]])


JPEG: tuple[Mutation, ...] = (*GENERIC, *[change_segment] * 4)

_WORDS: tuple[bytes, ...] = (
    b'"',
    b'""',
    b",",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"=",
    b"'",
    b"../",
    b"/",
    b"~",
    b"\xff",
)
_WORDS += (
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"a.png",
    b"link.png",
    b"folder/",
    b"path",
    b"label",
    b"test",
)
_WORDS += (
    b"nan",
    b"-inf",
    b"1e999",
    b"[" * 2000,
    b"{}",
    b"NaN",
    b"9" * 5000,
    b"0x1",
    "\u0661".encode(),
)
_WORDS += (b"<script>", b";", b"\t", b"True", b"null", b"1_0", b"x" * 5000)


def insert_word(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Insert something that means something in a table."""
    place = _place(data, draw)
    return data[:place] + draw.choice(_WORDS) + data[place:]


def change_cell(data: bytes, draw: Random, _: Sequence[bytes]) -> bytes:
    """Put a word, or another cell, in the place of a cell."""
    cells = data.split(b",")
    cells[draw.randrange(len(cells))] = draw.choice((*_WORDS, b"", draw.choice(cells)))
    return b",".join(cells)


def change_line(data: bytes, draw: Random, corpus: Sequence[bytes]) -> bytes:
    """Drop a line, repeat it, or put that of another table in its place."""
    lines = data.splitlines(keepends=True) or [b""]
    index = draw.randrange(len(lines))
    others = draw.choice(corpus).splitlines(keepends=True) or [b""]
    lines[index : index + 1] = draw.choice(([], [lines[index]] * 2, [draw.choice(others)]))
    return b"".join(lines)


TEXT: tuple[Mutation, ...] = (*GENERIC, *[insert_word] * 3, *[change_cell] * 3, *[change_line] * 2)
