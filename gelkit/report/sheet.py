"""Contact sheets: images beside what the backbone sees of them, and pairs over each other."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from gelkit.files import write_atomically
from gelkit.images.inspection import Inspected
from gelkit.images.views import VIEW_SIZE, View
from gelkit.own_output import PNG_TEXT
from gelkit.text import shown

if TYPE_CHECKING:
    from gelkit.analyses.duplicates import DuplicatePair

    _Lay: TypeAlias = Callable[[DuplicatePair], tuple[View, View]]

IMAGES_A_SHEET = 120
_GAP = 12
_LINE = 17
_LINES = 3
_TEXT_SIZE = 13
_TITLE = 40
_PAPER, _INK, _FAINT, _WARNING, _EDGE = "#ffffff", "#202020", "#606060", "#a03000", "#c0c0c0"


def draw_sheets(images: Sequence[Inspected], path: Path) -> list[Path]:
    """Draw contact sheets as PNG; return their paths.

    :param images: with their pictures.
    :param path: of the first sheet; further ones are called ``sheet-2.png`` and so on.
    """
    title = "Left: as decoded, over the full range. Right: what the backbone sees."
    cells = [partial(_draw_image, image) for image in images]
    return _draw_all(cells, _Layout(title, pictures=2, columns=4), path)


def draw_pairs(pairs: Sequence[DuplicatePair], lay: _Lay, path: Path) -> list[Path]:
    """Draw each pair over each other as PNG; return the sheets' paths, as :func:`draw_sheets`.

    :param lay: gives the two pictures of a pair, the second as it lies over the first.
    """
    title = (
        "Left: the first. Middle: the second, as it lies over the first. Right: both, faint "
        "details brought out; grey where they agree, red or cyan what one has alone."
    )
    cells = [partial(_draw_pair, pair, lay) for pair in pairs]
    return _draw_all(cells, _Layout(title, pictures=3, columns=2), path)


@dataclass(frozen=True)
class _Layout:
    title: str
    pictures: int
    """Beside each other in a cell."""
    columns: int

    @property
    def cell_width(self) -> int:
        return self.pictures * (VIEW_SIZE + _GAP) - _GAP


_CELL_HEIGHT = VIEW_SIZE + _LINES * _LINE + _GAP
_Cell = Callable[[Image.Image, ImageDraw.ImageDraw, int, int], None]
"""Draws on a sheet, with its pen, from a place (left, top) on."""


def _draw_all(cells: Sequence[_Cell], layout: _Layout, path: Path) -> list[Path]:
    paths = []
    for number, start in enumerate(range(0, len(cells), IMAGES_A_SHEET), start=1):
        its_path = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        file = io.BytesIO()
        sheet = _draw(cells[start : start + IMAGES_A_SHEET], layout)
        sheet.save(file, "PNG", optimize=True, pnginfo=_text_fields())
        write_atomically(its_path, file.getvalue())
        paths.append(its_path)
    return paths


def _text_fields() -> PngInfo:
    fields = PngInfo()
    for name, text in PNG_TEXT.items():
        fields.add_text(name, text)
    return fields


def _draw(cells: Sequence[_Cell], layout: _Layout) -> Image.Image:
    rows = -(-len(cells) // layout.columns)
    columns = min(len(cells), layout.columns)
    needed = round(_font().getlength(layout.title)) + 4 * _GAP
    size = (
        max(columns * (layout.cell_width + 2 * _GAP) + 2 * _GAP, needed),
        _TITLE + rows * (_CELL_HEIGHT + _GAP) + _GAP,
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * _GAP, _GAP), layout.title, fill=_INK, font=_font())
    for number, draw_cell in enumerate(cells):
        row, column = divmod(number, layout.columns)
        left = 2 * _GAP + column * (layout.cell_width + 2 * _GAP)
        draw_cell(sheet, pen, left, _TITLE + row * (_CELL_HEIGHT + _GAP))
    return sheet


def _draw_image(
    image: Inspected, sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int
) -> None:
    if image.pictures is not None:
        _paste(sheet, pen, image.pictures.original, left, top)
        _paste(sheet, pen, image.pictures.view, left + VIEW_SIZE + _GAP, top)
    _write(pen, _captions(image), left, top, 2 * VIEW_SIZE + _GAP)


def _draw_pair(
    pair: DuplicatePair,
    lay: _Lay,
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    left: int,
    top: int,
) -> None:
    first, second = lay(pair)
    red, cyan = (np.asarray(ImageOps.equalize(Image.fromarray(its))) for its in (first, second))
    both = np.stack([red, cyan, cyan], axis=-1)
    for number, picture in enumerate((first, second, both)):
        _paste(sheet, pen, picture, left + number * (VIEW_SIZE + _GAP), top)
    _write(pen, _captions_of_pair(pair), left, top, 3 * VIEW_SIZE + 2 * _GAP)


def _captions_of_pair(pair: DuplicatePair) -> Iterator[tuple[str, str]]:
    yield f"{shown(pair.first.name)}  and  {shown(pair.second.name)}", _INK
    details = pair.match.details
    agreement = "" if details is None else f", details agree to {details.faint:.2f}"
    yield f"{pair.kind}{agreement}", _FAINT
    if not pair.match.is_certain:
        yield "Look at it: faint details are lost or differ", _WARNING


def _write(
    pen: ImageDraw.ImageDraw, captions: Iterable[tuple[str, str]], left: int, top: int, width: int
) -> None:
    for number, (text, colour) in enumerate(captions):
        where = (left, top + VIEW_SIZE + 6 + number * _LINE)
        pen.text(where, _fitting(text, width), fill=colour, font=_font())


def _paste(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, picture: View, left: int, top: int
) -> None:
    height, width = picture.shape[:2]
    x, y = left + (VIEW_SIZE - width) // 2, top + (VIEW_SIZE - height) // 2
    sheet.paste(Image.fromarray(picture), (x, y))
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=_EDGE)


def _captions(image: Inspected) -> Iterator[tuple[str, str]]:
    record = image.record
    yield shown(image.name), _INK
    size = f"{record.width} x {record.height}, {record.bit_depth} bits"
    yield f"{record.format} {record.mode}, {size}, {image.shrinking:.1f} times smaller", _FAINT
    yield ", ".join(image.remarks), _WARNING


def _fitting(text: str, width: int) -> str:
    """Shorten a text in its middle until it is no wider than this."""
    kept = len(text)
    short = text
    while _font().getlength(short) > width:
        kept -= 1
        short = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return short


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT_SIZE)
