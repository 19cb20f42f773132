"""Synthetic gels: what a gel gives off before a camera sees it, drawn from how gels run.

A picture is float32 (height, width): 0 is no light, a strong band is about 1, and the gel itself
glows a little. Exposure, noise and polarity are the camera's (:mod:`gelkit.images.samples`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture: TypeAlias = npt.NDArray[np.float32]
Experiment: TypeAlias = "Callable[[np.random.Generator, int], list[Lane]]"


@dataclass(frozen=True)
class Ladder:
    """A size standard: its catalogue number, its fragments (base pairs or kDa), the bright ones."""

    source: str
    sizes: tuple[float, ...]
    brighter: tuple[float, ...]


DNA_LADDERS = (
    Ladder("NEB N3232", (10000, 8000, 6000, 5000, 4000, 3000, 2000, 1500, 1000, 500), (3000,)),
    Ladder(
        "NEB N3231", (1517, 1200, 1000, 900, 800, 700, 600, 500, 400, 300, 200, 100), (1000, 500)
    ),
    Ladder(
        "Thermo Scientific SM0311",
        (10000, 8000, 6000, 5000, 4000, 3500, 3000, 2500, 2000, 1500, 1000, 750, 500, 250),
        (6000, 3000, 1000),
    ),
)
PROTEIN_LADDERS = (
    Ladder("Bio-Rad 161-0363", (250, 150, 100, 75, 50, 37, 25, 20, 15, 10), (75, 50, 25)),
    Ladder("Thermo Scientific 26616", (180, 130, 100, 70, 55, 40, 35, 25, 15, 10), (70,)),
)


@dataclass(frozen=True)
class Run:
    """How far molecules got: the distances from the top, in pixels, of two lengths."""

    longest: float
    shortest: float
    start: float
    end: float


@dataclass(frozen=True)
class Band:
    """Molecules of one length (base pairs or kDa) and how brightly they shine."""

    length: float
    amount: float


@dataclass(frozen=True)
class Lane:
    """What was loaded into a well: bands, a smear of shorter molecules, and what stuck."""

    bands: tuple[Band, ...] = ()
    smear: float = 0.0
    smear_from: float = 100.0
    stuck: float = 0.0


@dataclass(frozen=True)
class Track:
    """Where and how far a lane runs, how its bands bend, lag and (in pixels) spread."""

    run: Run
    centre: float
    width: float
    well: float
    smile: float
    tilt: float
    sharpness: float
    lag: float = 0.0


def migration_distance(length: float, run: Run) -> float:
    """Return how far a molecule ran, in pixels: linear in the logarithm of its length."""
    fraction = np.log(run.longest / length) / np.log(run.longest / run.shortest)
    return float(run.start + fraction * (run.end - run.start))


@cache
def sample_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow, so that samples need none of the system's."""
    return ImageFont.load_default(size=size)


def draw_gel(kind: str, rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw a gel of one of :data:`GEL_KINDS`, as float32 (height, width)."""
    style = GEL_KINDS[kind]
    picture = _gel_body(rng, height, width)
    ladder = style.ladders[rng.integers(len(style.ladders))]
    combs = 2 if height > 500 and rng.random() < 0.15 else 1
    lanes, annotated = int(rng.integers(5, 10 + width // 70)), rng.random() < 0.25
    left, right = width * rng.uniform(0.02, 0.08), width * rng.uniform(0.92, 1.0)
    for top, bottom in pairwise(np.linspace(0, height * rng.uniform(0.93, 1.05), combs + 1)):
        start, end = top + (bottom - top) * rng.uniform((0.14, 0.7), (0.3, 0.95))
        run = Run(ladder.sizes[0], ladder.sizes[-1], start, end)
        tracks = _tracks(rng, lanes, left, right, run, style)
        loaded = _load_lanes(style.experiments, ladder, rng, lanes)
        for lane, track in zip(loaded, tracks, strict=True):
            style.draw_well(picture, track, lane.stuck)
            _add_smear(picture, lane, track)
            for band in lane.bands:
                _add_band(picture, band, track)
        if annotated:
            _annotate(picture, loaded, tracks, ladder)
    _lay_on_tray(picture, rng)
    return picture


def _tracks(
    rng: np.random.Generator, lanes: int, left: float, right: float, run: Run, style: GelStyle
) -> list[Track]:
    pitch, extent = (right - left) / lanes, run.end - run.start
    first = Track(
        run,
        centre=left + pitch / 2,
        width=pitch * rng.uniform(*style.lane_width),
        well=run.start - extent * rng.uniform(0.08, 0.16),
        smile=rng.choice((0.0, 1.0)) * rng.uniform(-0.02, 0.08),
        tilt=rng.normal(0, 0.01),
        sharpness=max(extent * style.sharpness * rng.uniform(0.7, 1.6), 0.8),
    )
    lags = enumerate(rng.normal(0, 0.004, lanes))
    return [replace(first, centre=first.centre + pitch * n, lag=lag) for n, lag in lags]


def _load_lanes(
    experiments: Sequence[Experiment], ladder: Ladder, rng: np.random.Generator, lanes: int
) -> list[Lane]:
    """Return one experiment's lanes, with ladders, and some wells that stayed empty."""
    loaded = experiments[int(rng.integers(len(experiments)))](rng, lanes)
    used = lanes if rng.random() < 0.7 else int(rng.integers(lanes // 2 + 1, lanes + 1))
    missing = rng.random(lanes) < np.where(np.arange(lanes) < used, 0.06, 1)
    loaded = [Lane() if gone else lane for lane, gone in zip(loaded, missing, strict=True)]
    layouts = ((0,), (0,), (0, lanes - 1), (lanes // 2,), (used - 1,))
    for number in layouts[rng.integers(len(layouts))]:
        loaded[number] = _ladder_lane(ladder, rng)
    return loaded


def _ladder_lane(ladder: Ladder, rng: np.random.Generator) -> Lane:
    reference = 1 + 0.8 * np.isin(ladder.sizes, ladder.brighter)
    amounts = reference * rng.uniform(0.2, 0.7) * rng.uniform(0.8, 1.2, len(ladder.sizes))
    bands = tuple(Band(*pair) for pair in zip(ladder.sizes, amounts, strict=True))
    return Lane(bands, rng.uniform(0, 0.08), ladder.sizes[0])


def _polymerase_chain_reaction(rng: np.random.Generator, lanes: int) -> list[Lane]:
    """Few products shared by the lanes, some negative, with primer dimers at the bottom."""
    products = np.exp(rng.uniform(np.log(150), np.log(2500), rng.integers(1, 4)))
    strength, dimers = rng.lognormal(-0.4, 0.4), max(rng.uniform(-0.3, 0.5), 0)
    positive = rng.uniform(0.4, 1.0)

    def lane() -> Lane:
        present = products[rng.random(products.size) < positive]
        bands = [Band(product, strength * rng.lognormal(0, 0.35)) for product in present]
        bands.append(Band(rng.normal(60, 3), dimers * rng.uniform(0.6, 1.2)))
        return Lane(tuple(bands), rng.uniform(0, 0.25), 1500, rng.choice((0, 0, 0.3)))

    return [lane() for _ in range(lanes)]


def _restriction_digest(rng: np.random.Generator, lanes: int) -> list[Lane]:
    """A plasmid cut by several enzymes: fragments that add up to it."""
    plasmid, strength = rng.uniform(3000, 12000), rng.lognormal(0, 0.4)

    def lane() -> Lane:
        parts = np.diff([0, *np.sort(rng.random(rng.integers(0, 6))), 1])
        bands = tuple(Band(max(plasmid * part, 60), strength * np.sqrt(part)) for part in parts)
        return Lane(bands, rng.uniform(0, 0.1), plasmid)

    return [lane() for _ in range(lanes)]


def _genomic_extraction(rng: np.random.Generator, lanes: int) -> list[Lane]:
    """A heavy band near the wells, sheared more or less, and RNA at the bottom."""
    strength = rng.lognormal(-0.2, 0.6)

    def lane() -> Lane:
        amount = strength * rng.lognormal(0, 0.5)
        bands = (Band(15000, amount), Band(rng.normal(150, 15), amount * rng.uniform(0, 0.5)))
        return Lane(bands, amount * rng.uniform(0.05, 0.6), 14000, amount * rng.uniform(0, 0.5))

    return [lane() for _ in range(lanes)]


def _cell_lysate(rng: np.random.Generator, lanes: int) -> list[Lane]:
    """Many proteins, the same ones in every lane, one of them overexpressed in some."""
    count = rng.integers(15, 45)
    lengths = np.exp([np.log(rng.uniform(15, 110)), *rng.normal(np.log(42), 0.65, count)])
    amounts = np.array([rng.lognormal(-0.1, 0.4), *rng.lognormal(-2, 0.8, count)])

    def lane() -> Lane:
        varied = amounts * rng.lognormal(0, 0.25, lengths.size) * rng.lognormal(0, 0.3)
        varied[0] *= rng.choice((0, 1, 1.5))
        bands = tuple(Band(*pair) for pair in zip(lengths, varied, strict=True))
        return Lane(bands, rng.uniform(0.05, 0.2), 200)

    return [lane() for _ in range(lanes)]


def _purification(rng: np.random.Generator, lanes: int) -> list[Lane]:
    """Lysate, flow-through and wash, then fractions with one protein and what clings to it."""
    target, others = np.exp(rng.uniform(2.7, 4.7)), np.exp(rng.uniform(2.5, 5, 5))
    crude, peak = _cell_lysate(rng, lanes // 3), rng.uniform(0.5, 0.9) * lanes
    eluted = 1.5 * np.exp(-0.5 * ((np.arange(len(crude), lanes) - peak) / rng.uniform(1, 3)) ** 2)
    clinging = [[Band(length, 0.1 * a * rng.random()) for length in others] for a in eluted]
    fractions = zip(eluted, clinging, strict=True)
    return crude + [Lane((Band(target, amount), *rest)) for amount, rest in fractions]


def _gel_body(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Return the gel's own glow, dimmer where free dye has run out of it."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    front, steepness = height * rng.uniform(0.6, 1.2), height * rng.uniform(0.02, 0.08)
    glow = 1 - rng.uniform(0, 0.4) / (1 + np.exp((front - rows) / steepness))
    return np.repeat(rng.uniform(0.1, 0.4) * glow, width, axis=1)


def _lay_on_tray(picture: Picture, rng: np.random.Generator) -> None:
    """Darken what lies beyond the gel's edges, where the photograph shows them."""
    height, width = picture.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    tilt, margins = rng.normal(0, 0.01), np.maximum(rng.uniform(-0.09, 0.03, 3), -0.03)
    outside = columns + tilt * rows < width * margins[0]
    outside |= columns + tilt * rows > width * (1 - margins[1])
    outside |= rows - tilt * columns > height * (1 - margins[2])
    picture[outside] *= rng.uniform(0.1, 0.8)


def _across(picture: Picture, track: Track, spread: float) -> tuple[slice, Picture, Picture]:
    """Return a lane's columns, its brightness along them, and how far its bands lag there."""
    half, width = spread * track.width / 2, picture.shape[1]
    first = int(np.clip(track.centre - half * 1.4, 0, width))
    last = int(np.clip(track.centre + half * 1.4 + 2, 0, width))
    columns = np.arange(first, last, dtype=np.float32)
    beyond = (np.abs(columns - track.centre) / half - 1) * track.width * 0.35
    off_middle = columns / width - 0.5
    lag = track.lag + track.tilt * off_middle - track.smile * (2 * off_middle) ** 2
    return slice(first, last), 1 / (1 + np.exp(np.clip(beyond, -30, 30))), lag


def _add_band(picture: Picture, band: Band, track: Track) -> None:
    """Add one band: diffuse if it ran far; wide, thick and smiling if it is overloaded."""
    run = track.run
    distance = max(migration_distance(band.length, run), 0.6 * track.well + 0.4 * run.start)
    overload = min(max(band.amount - 0.8, 0.0), 1.5)
    columns, profile, lag = _across(picture, track, 1 + 0.12 * overload)
    diffusion = max(1 + 0.9 * (distance - run.start) / (run.end - run.start), 0.8)
    thickness = track.sharpness * diffusion * (1 + 0.7 * overload)
    middle = distance + lag * (distance - track.well) - (1 - profile) * 1.2 * overload * thickness
    reach = (3.2 + 5 * overload) * thickness + np.abs(lag).max(initial=0) * (distance - track.well)
    first, last = np.clip((distance - reach, distance + reach), 0, picture.shape[0]).astype(int)
    off = (np.arange(first, last, dtype=np.float32)[:, None] - middle) / thickness
    shape = np.exp(-0.5 * np.abs(np.where(off > 0, off, off / (1 + overload))) ** 2.4)
    picture[first:last, columns] += (band.amount * profile * shape).astype(np.float32)


def _add_smear(picture: Picture, lane: Lane, track: Track) -> None:
    """Add molecules of all lengths below the lane's longest, fewer towards both ends."""
    columns, profile, _ = _across(picture, track, 1.0)
    start = max(migration_distance(lane.smear_from, track.run), track.well)
    rows = np.arange(picture.shape[0], dtype=np.float32)[:, None]
    along = np.clip((rows - start) / max(track.run.end - start, 1), 0, 1.0)
    picture[:, columns] += lane.smear * 1.3 * np.sqrt(along) * (1 - along) * profile


def _agarose_well(picture: Picture, track: Track, stuck: float) -> None:
    """Draw a slot: dark inside, its lower lip bright, and what stayed in it."""
    columns, profile, _ = _across(picture, track, 1.0)
    depth, body = max(0.25 * track.width, 4), float(picture[0, 0])
    off = np.arange(picture.shape[0], dtype=np.float32)[:, None] - track.well
    inside = np.exp(-((off / depth + 0.5) ** 4) * 40)
    lip = np.exp(-((off / 1.5) ** 2)) + 0.5 * np.exp(-(((off + depth) / 1.5) ** 2))
    picture[:, columns] += profile * ((stuck - 0.35 * body) * inside + 0.4 * body * lip)


def _polyacrylamide_well(picture: Picture, track: Track, stuck: float) -> None:
    """Draw the walls of a stacking gel at both sides of a lane, and what stayed at its bottom."""
    top, well = np.clip((1.2 * track.well - 0.2 * track.run.end, track.well), 0, None).astype(int)
    for column in (int(track.centre + side * track.width) for side in (-0.54, 0.54)):
        picture[top:well, max(column, 0) : max(column + 2, 0)] += 0.08
    columns, profile, _ = _across(picture, track, spread=1.0)
    picture[max(well - 2, 0) : well + 1, columns] += (0.12 + stuck) * profile


def _annotate(
    picture: Picture, lanes: Sequence[Lane], tracks: Sequence[Track], ladder: Ladder
) -> None:
    """Write lane numbers above the wells, and the ladder's main lengths at the left."""
    image = Image.new("L", picture.shape[::-1])
    draw = ImageDraw.Draw(image)
    font = sample_font(int(np.clip(tracks[0].width * 0.6, 9, 22)))
    above = max(tracks[0].well - max(0.3 * tracks[0].width, 4) - 3, 14)
    for number, (lane, track) in enumerate(zip(lanes, tracks, strict=True), start=1):
        label = "M" if len(lane.bands) == len(ladder.sizes) else str(number)
        draw.text((track.centre, above), label, fill=255, font=font, anchor="mb")
    for size in ladder.brighter:
        y = migration_distance(size, tracks[0].run)
        draw.text((2, y), str(size), fill=255, font=sample_font(11), anchor="lm")
    np.maximum(picture, np.asarray(image, np.float32) / 255, out=picture)


@dataclass(frozen=True)
class GelStyle:
    """What gels of one kind have in common, and how often they are shown dark on light."""

    ladders: tuple[Ladder, ...]
    experiments: tuple[Experiment, ...]
    draw_well: Callable[[Picture, Track, float], None]
    lane_width: tuple[float, float]
    sharpness: float
    dark_on_light: float


GEL_KINDS = {
    "dna_gel": GelStyle(
        DNA_LADDERS,
        (_polymerase_chain_reaction,) * 2 + (_restriction_digest, _genomic_extraction),
        _agarose_well,
        lane_width=(0.55, 0.8),
        sharpness=0.008,
        dark_on_light=0.2,
    ),
    "protein_gel": GelStyle(
        PROTEIN_LADDERS,
        (_cell_lysate, _purification),
        _polyacrylamide_well,
        lane_width=(0.75, 0.92),
        sharpness=0.005,
        dark_on_light=0.8,
    ),
}
