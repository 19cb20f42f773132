"""Synthetic decoys: pictures that are no gels but share bands, spots, rows or text with them.

As for gels, a picture is float32 (height, width), 0 where there is no signal and about 1 where it
is strong; exposure, noise and polarity are the camera's (:mod:`gelkit.images.samples`).
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from gelkit.images.sample_gels import Picture, sample_font

Decoy: TypeAlias = Callable[[np.random.Generator, int, int], Picture]


# Shared strokes


def _page(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (width, height))
    return image, ImageDraw.Draw(image)


def _signal(image: Image.Image, blur: float = 0.0, turn: float = 0.0) -> Picture:
    """Return a drawn page as signal, turned (degrees) and blurred (pixels) on the way."""
    if turn:
        image = image.rotate(turn, Image.Resampling.BILINEAR)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(image, np.float32) / np.float32(255)


def _words(rng: np.random.Generator, length: int) -> str:
    """Return ``length`` letters and spaces, about as often as in English."""
    letters = "eeeettaaooiinnsshhrrdlucmfwypvbgk      "
    return "".join(letters[number] for number in rng.integers(len(letters), size=length))


def _cloud(rng: np.random.Generator, height: int, width: int, grain: float) -> Picture:
    """Return smooth noise of mean 0 and deviation 1 whose lumps are ``grain`` pixels wide."""
    rows, columns = (max(int(side / grain), 3) for side in (height, width))
    coarse = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
    field = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def _add_spot(
    picture: Picture, x: float, y: float, radii: tuple[float, float], amount: float, edge: float
) -> None:
    """Add an ellipse of the given radii (across, down); the higher ``edge``, the sharper."""
    reach = [radius * (1 + 2 / edge) + 1 for radius in radii]
    left, right = np.clip((x - reach[0], x + reach[0] + 1), 0, picture.shape[1]).astype(int)
    top, bottom = np.clip((y - reach[1], y + reach[1] + 1), 0, picture.shape[0]).astype(int)
    across = (np.arange(left, right, dtype=np.float32) - x) / radii[0]
    down = (np.arange(top, bottom, dtype=np.float32)[:, None] - y) / radii[1]
    shape = np.exp(-((across**2 + down**2) ** (edge / 2)))
    picture[top:bottom, left:right] += (amount * shape).astype(np.float32)


def _labels(picture: Picture, placed: list[tuple[float, float, str]], size: int) -> None:
    """Write labels (x, y, text), centred, onto a picture."""
    image, draw = _page(*picture.shape)
    for x, y, text in placed:
        draw.text((x, y), text, fill=255, font=sample_font(max(size, 8)), anchor="mm")
    np.maximum(picture, _signal(image), out=picture)


# Blots: signal on a membrane or a film, but no lanes


def _dot_blot(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Rows of dots on a membrane, diluted along the rows."""
    picture = np.zeros((height, width), np.float32)
    rows, columns = int(rng.integers(3, 9)), int(rng.integers(4, 13))
    pitch = min(height / (rows + 1), width / (columns + 1))
    radius, dilution = pitch * rng.uniform(0.22, 0.36), rng.uniform(0.45, 1.0)
    for row in range(rows):
        strength = rng.lognormal(-0.1, 0.6)
        for column in range(columns):
            x = width / 2 + pitch * (column - columns / 2 + 0.5)
            y = height / 2 + pitch * (row - rows / 2 + 0.5)
            amount = strength * dilution**column * rng.lognormal(0, 0.3) * (rng.random() > 0.15)
            x, y = rng.normal((x, y), pitch * 0.02)
            _add_spot(picture, x, y, (radius, radius * rng.uniform(0.9, 1.1)), amount, 4)
    return picture


def _autoradiograph(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A film with colonies, scratches, streaks and a fogged edge."""
    picture = np.zeros((height, width), np.float32)
    centre, extent = rng.uniform(0.4, 0.6, 2), rng.uniform(0.3, 0.5) * min(height, width)
    for _ in range(rng.integers(30, 220)):
        angle, distance = rng.uniform(0, 2 * np.pi), extent * np.sqrt(rng.random())
        x = centre[0] * width + distance * np.cos(angle)
        y = centre[1] * height + distance * np.sin(angle)
        radius = extent * rng.uniform(0.008, 0.035)
        radii = (radius * rng.uniform(0.8, 1.8), radius)
        _add_spot(picture, x, y, radii, rng.lognormal(-0.8, 0.7), 2.5)
    image, draw = _page(height, width)
    for _ in range(rng.integers(2, 9)):
        start, along = rng.uniform(0, (width, height)), rng.normal(0, 0.25, 2) * (width, height)
        draw.line([*start, *(start + along)], fill=int(rng.integers(60, 200)), width=1)
    fog = np.linspace(0, 1, width, dtype=np.float32) ** rng.uniform(8, 30)
    return picture + _signal(image, blur=1) + rng.uniform(0, 0.8) * fog


# Plates


def _well_plate(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A 96-well plate from above: rims, and a titration or scattered hits in the wells."""
    picture = np.zeros((height, width), np.float32)
    rows, columns = (8, 12) if width >= height else (12, 8)
    pitch = min(height / (rows + 0.9), width / (columns + 0.9)) * rng.uniform(0.92, 1.1)
    radius, is_titration = pitch * 0.42, rng.random() < 0.5
    placed = []
    for row in range(rows):
        strength, middle = rng.uniform(0.4, 1.0), rng.uniform(0, columns)
        for column in range(columns):
            x = width / 2 + pitch * (column - columns / 2 + 0.7)
            y = height / 2 + pitch * (row - rows / 2 + 0.7)
            titrated = 1 / (1 + np.exp((column - middle) * 1.3))
            amount = strength * (titrated if is_titration else rng.beta(0.5, 1.5))
            _add_spot(picture, x, y, (radius, radius), 0.25, 14)
            _add_spot(picture, x, y, (radius * 0.88, radius * 0.88), amount - 0.2, 12)
            placed += [(x, pitch * 0.25, str(column + 1))] if row == 0 else []
        placed.append((pitch * 0.25, y, string.ascii_uppercase[row]))
    _labels(picture, placed, int(pitch * 0.35))
    return picture


def _tlc_plate(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A thin-layer chromatogram: start line, front, and in each lane a few round spots."""
    lanes = int(rng.integers(3, 10))
    pitch = width / (lanes + 0.5)
    start, front = height * rng.uniform(0.82, 0.93), height * rng.uniform(0.05, 0.15)
    image, draw = _page(height, width)
    for line in (start, front):
        draw.line([0.03 * width, line, 0.97 * width, line + rng.normal(0, 3)], fill=130, width=1)
    picture = np.array(_signal(image))
    compounds = rng.uniform(0.05, 0.9, rng.integers(2, 7))
    for lane in range(lanes):
        x = pitch * (lane + 0.75)
        for retention in [0, *compounds[rng.random(compounds.size) < 0.6]]:
            y, radius = start - retention * (start - front), pitch * rng.uniform(0.1, 0.26)
            radii = (radius, radius * rng.uniform(0.7, 1.5))
            _add_spot(picture, x, y + rng.normal(0, 2), radii, rng.lognormal(-0.8, 0.5), 3)
    _labels(picture, [(pitch * (n + 0.75), start + 14, str(n + 1)) for n in range(lanes)], 12)
    return picture


# Print: charts and pages


def _axes(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, width: int
) -> tuple[int, int, int, int]:
    """Draw axes with ticks and titles; return left, top, right and bottom of the plot."""
    left, right = int(width * rng.uniform(0.1, 0.16)), int(width * rng.uniform(0.9, 0.97))
    top, bottom = int(height * rng.uniform(0.06, 0.12)), int(height * rng.uniform(0.82, 0.9))
    draw.line([left, top, left, bottom, right, bottom], fill=255, width=2)
    font, step = sample_font(max(min(height, width) // 40, 9)), 10 ** int(rng.integers(0, 4))
    for tick, y in enumerate(np.linspace(bottom, top, rng.integers(4, 8))):
        draw.line([left - 5, y, left, y], fill=255, width=1)
        draw.text((left - 8, y), str(tick * step), fill=255, font=font, anchor="rm")
        if rng.random() < 0.5:
            draw.line([left, y, right, y], fill=50, width=1)
    for y in (height - 5, top - 4):
        draw.text(((left + right) / 2, y), _words(rng, 20), fill=255, font=font, anchor="mb")
    return left, top, right, bottom


def _bar_chart(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Groups of bars with whiskers, standing or hanging."""
    image, draw = _page(height, width)
    left, top, right, bottom = _axes(draw, rng, height, width)
    groups, series = int(rng.integers(3, 12)), int(rng.integers(1, 4))
    pitch, shades = (right - left) / groups, rng.integers(70, 256, series)
    thickness = pitch * rng.uniform(0.4, 0.8) / series
    for group in range(groups):
        for number in range(series):
            x = left + pitch * (group + 0.5) + thickness * (number - series / 2)
            y = bottom - (bottom - top) * rng.uniform(0.03, 0.9)
            draw.rectangle(
                [x, y, x + thickness - 1, bottom], fill=int(shades[number] * rng.uniform(0.7, 1))
            )
            middle, whisker = x + thickness / 2, (bottom - y) * rng.uniform(0.02, 0.15)
            draw.line([middle, y - whisker, middle, y + whisker], fill=255, width=1)
    return _signal(image, rng.uniform(0, 1), rng.normal(0, 0.6))


def _line_chart(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Curves with peaks, as a chromatograph or a densitometer draws them."""
    image, draw = _page(height, width)
    left, top, right, bottom = _axes(draw, rng, height, width)
    at = np.linspace(0, 1, 200)
    for _ in range(rng.integers(1, 5)):
        places, sizes = rng.random((2, rng.integers(1, 12), 1))
        curve = (sizes * np.exp(-0.5 * ((at - places) / rng.uniform(0.004, 0.06)) ** 2)).sum(0)
        curve = np.abs(curve + 0.02 * rng.standard_normal(200) + at * rng.uniform(0, 0.4))
        points = np.column_stack((left + at * (right - left), bottom - curve * (bottom - top) / 2))
        shade, thickness = int(rng.integers(110, 256)), int(rng.integers(1, 4))
        draw.line([*points.ravel()], fill=shade, width=thickness, joint="curve")
    return _signal(image, rng.uniform(0, 1), rng.normal(0, 0.6))


def _heat_map(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A table of shaded cells in clusters, columns named."""
    rows, columns = int(rng.integers(10, 60)), int(rng.integers(5, 24))
    clusters = rng.random((3, columns))[np.sort(rng.integers(0, 3, rows))]
    cells = np.clip(clusters**2 + rng.normal(0, 0.15, (rows, columns)), 0, 1) * 255
    image, draw = _page(height, width)
    left, top, right, bottom = _axes(draw, rng, height, width)
    table = Image.fromarray(cells.astype(np.uint8)).resize((right - left, bottom - top), 0)
    image.paste(table, (left, top))
    if rng.random() < 0.5:
        for x in np.linspace(left, right, columns + 1):
            draw.line([x, top, x, bottom], fill=0, width=2)
    return _signal(image, rng.uniform(0, 1), rng.normal(0, 0.6))


def _text_page(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A page of one or two columns, or of a table, photographed at a slight angle."""
    image, draw = _page(height, width)
    size, columns = int(rng.integers(9, 20)), int(rng.choice((1, 1, 2, 5)))
    edges, leading = np.linspace(0.05 * width, 0.97 * width, columns + 1), rng.uniform(1.2, 1.9)
    font, y = sample_font(size), 0.05 * height
    while y < 0.94 * height:
        is_gap = rng.random() < 0.1
        for left, right in zip(edges[:-1], edges[1:] - 0.02 * width, strict=True):
            fits = max(int((right - left) / font.getlength("n")), 1)
            length = 0 if is_gap else int(fits * rng.uniform(0.3, 0.7) if columns > 2 else fits)
            draw.text((left, y), _words(rng, length), fill=255, font=font)
        y += size * leading
    return _signal(image, rng.uniform(0.3, 1.2), rng.normal(0, 1.5))


# Micrographs


def _cells(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Fluorescent cells: a bright nucleus in a dim body, in clumps, out of focus here and there."""
    picture = 0.02 * _cloud(rng, height, width, 80)
    size, density = rng.uniform(8, 30), _cloud(rng, height, width, 120)
    for _ in range(int(height * width / size**2 * rng.uniform(0.01, 0.1))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if density[y, x] > rng.normal(0, 0.5):
            radii = (size * rng.uniform(0.7, 1.3), size * rng.uniform(0.7, 1.3))
            inner, edge = (radii[0] * 0.45, radii[1] * 0.45), rng.uniform(2, 6)
            _add_spot(picture, x, y, radii, rng.uniform(0.05, 0.3), edge)
            _add_spot(picture, x, y, inner, rng.lognormal(-0.7, 0.5), edge)
    return np.asarray(picture + 0.1 * picture * _cloud(rng, height, width, 4), np.float32)


def _fibres(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Fibres that mostly follow one direction, those in focus sharp."""
    direction, spread = rng.uniform(0, np.pi), rng.uniform(0.1, 1.0)
    picture = np.zeros((height, width), np.float32)
    for blur in (4.0, 0.7):
        image, draw = _page(height, width)
        for _ in range(rng.integers(20, 90)):
            turns = rng.normal(direction, spread) + np.cumsum(rng.normal(0, 0.15, 30))
            steps = np.stack((np.cos(turns), np.sin(turns)), 1) * max(height, width) / 22
            points = rng.uniform(-0.2, 1.0, 2) * (width, height) + np.cumsum(steps, 0)
            shade, thickness = int(rng.integers(50, 256)), int(rng.integers(1, 5))
            draw.line([*points.ravel()], fill=shade, width=thickness, joint="curve")
        picture += _signal(image, blur)
    return picture


# Patterns


def _stripes(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Stripes of varying width, as of blinds, planks or a barcode."""
    across = int(rng.integers(2))
    length = (height, width)[across]
    widths = rng.lognormal(0, rng.uniform(0.05, 0.7), 200) * rng.uniform(4, 40)
    number = np.searchsorted(np.cumsum(widths), np.arange(length) * 1.0)
    profile = np.where(number % 2, 1.0, 0) * rng.uniform(0.4, 1.0, 202)[number]
    profile = ndimage.gaussian_filter1d(profile, rng.uniform(0.5, 4)).astype(np.float32)
    picture = np.array(np.broadcast_to(profile if across else profile[:, None], (height, width)))
    turned = Image.fromarray(picture).rotate(rng.normal(0, 3), Image.Resampling.BILINEAR)
    sheen = 1 + 0.05 * _cloud(rng, height, width, 30)
    return np.asarray(np.asarray(turned) * sheen, np.float32)


def _grid(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A counting chamber, a window or squared paper: lines at two spacings, some squares filled."""
    image, draw = _page(height, width)
    pitch, coarse, filled = rng.uniform(12, 60), int(rng.integers(3, 6)), rng.uniform(0, 0.3)
    for column in range(int(width / pitch) + 1):
        for row in range(int(height / pitch) + 1):
            if rng.random() < filled:
                x, y, shade = column * pitch, row * pitch, int(rng.integers(60, 255))
                draw.rectangle([x, y, x + pitch, y + pitch], fill=shade)
    for number in range(int(max(height, width) / pitch) + 1):
        at, shade = number * pitch, 255 if number % coarse == 0 else 90
        draw.line([at, 0, at, height], fill=shade, width=1 + (number % coarse == 0))
        draw.line([0, at, width, at], fill=shade, width=1 + (number % coarse == 0))
    return _signal(image, rng.uniform(0.4, 2), rng.normal(0, 2))


def _punched_card(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Dashes in columns and rows at fixed places: like lanes, but of one pitch."""
    image, draw = _page(height, width)
    rows, columns = int(rng.integers(8, 20)), int(rng.integers(8, 30))
    down, across = height * 0.94 / rows, width * 0.94 / columns
    size = np.array((across * rng.uniform(0.35, 0.8), down * rng.uniform(0.2, 0.6)))
    punched, shade = (
        rng.random((rows, columns)) < rng.uniform(0.1, 0.5),
        int(rng.integers(170, 256)),
    )
    for row, column in np.argwhere(punched):
        corner = np.array((0.04 * width + across * column, 0.04 * height + down * row))
        draw.rectangle([*corner, *(corner + size)], fill=shade)
    return _signal(image, rng.uniform(0.5, 2.5), rng.normal(0, 1))


def _gradient(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Light that falls off across clouds, with or without the fringes of two glass plates."""
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    fall = rng.normal(0, 1) * rows + rng.normal(0, 1) * columns
    clouds = 0.1 * _cloud(rng, height, width, 200) + 0.02 * _cloud(rng, height, width, 50)
    fringes = np.cos(rng.uniform(10, 80) * (fall + clouds))
    return np.asarray(fall + clouds + rng.choice((0, 1.0)) * fringes, np.float32)


DECOYS: dict[str, Decoy] = {
    "dot_blot": _dot_blot,
    "autoradiograph": _autoradiograph,
    "well_plate": _well_plate,
    "tlc_plate": _tlc_plate,
    "bar_chart": _bar_chart,
    "line_chart": _line_chart,
    "heat_map": _heat_map,
    "text_page": _text_page,
    "cells": _cells,
    "fibres": _fibres,
    "stripes": _stripes,
    "grid": _grid,
    "punched_card": _punched_card,
    "gradient": _gradient,
}
