"""Contact sheets: each image as it was decoded, and beside it what the backbone sees."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from gelkit.files import write_atomically
from gelkit.images.inspection import Inspected
from gelkit.images.views import VIEW_SIZE, View
from gelkit.own_output import PNG_TEXT
from gelkit.text import shown

IMAGES_A_SHEET = 120
_COLUMNS = 4
_GAP = 12
_LINE = 17
_LINES = 3
_TEXT_SIZE = 13
_TITLE = 40
_PAPER, _INK, _FAINT, _WARNING, _EDGE = "#ffffff", "#202020", "#606060", "#a03000", "#c0c0c0"
_CELL = (2 * VIEW_SIZE + _GAP, VIEW_SIZE + _LINES * _LINE + _GAP)


def draw_sheets(images: Sequence[Inspected], path: Path) -> list[Path]:
    """Draw contact sheets as PNG; return their paths.

    :param images: with their pictures.
    :param path: of the first sheet; further ones are called ``sheet-2.png`` and so on.
    """
    paths = []
    for number, start in enumerate(range(0, len(images), IMAGES_A_SHEET), start=1):
        its_path = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        file = io.BytesIO()
        sheet = _draw(images[start : start + IMAGES_A_SHEET])
        sheet.save(file, "PNG", optimize=True, pnginfo=_text_fields())
        write_atomically(its_path, file.getvalue())
        paths.append(its_path)
    return paths


def _text_fields() -> PngInfo:
    fields = PngInfo()
    for name, text in PNG_TEXT.items():
        fields.add_text(name, text)
    return fields


def _draw(images: Sequence[Inspected]) -> Image.Image:
    rows = -(-len(images) // _COLUMNS)
    columns = min(len(images), _COLUMNS)
    width, height = _CELL
    size = (
        columns * (width + 2 * _GAP) + 2 * _GAP,
        _TITLE + rows * (height + _GAP) + _GAP,
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (2 * _GAP, _GAP),
        "Left: as decoded, over the full range. Right: what the backbone sees.",
        fill=_INK,
        font=_font(),
    )
    for number, image in enumerate(images):
        row, column = divmod(number, _COLUMNS)
        left = 2 * _GAP + column * (width + 2 * _GAP)
        _draw_cell(sheet, pen, image, left, _TITLE + row * (height + _GAP))
    return sheet


def _draw_cell(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, image: Inspected, left: int, top: int
) -> None:
    if image.pictures is not None:
        _paste(sheet, pen, image.pictures.original, left, top)
        _paste(sheet, pen, image.pictures.view, left + VIEW_SIZE + _GAP, top)
    for number, (text, colour) in enumerate(_captions(image)):
        where = (left, top + VIEW_SIZE + 6 + number * _LINE)
        pen.text(where, _fitting(text), fill=colour, font=_font())


def _paste(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, picture: View, left: int, top: int
) -> None:
    height, width = picture.shape
    x, y = left + (VIEW_SIZE - width) // 2, top + (VIEW_SIZE - height) // 2
    sheet.paste(Image.fromarray(picture), (x, y))
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=_EDGE)


def _captions(image: Inspected) -> Iterator[tuple[str, str]]:
    record = image.record
    yield shown(image.name), _INK
    size = f"{record.width} x {record.height}, {record.bit_depth} bits"
    yield f"{record.format} {record.mode}, {size}, {image.shrinking:.1f} times smaller", _FAINT
    yield ", ".join(image.remarks), _WARNING


def _fitting(text: str) -> str:
    """Shorten a text in its middle until it is no wider than a cell."""
    kept = len(text)
    short = text
    while _font().getlength(short) > _CELL[0]:
        kept -= 1
        short = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return short


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT_SIZE)
