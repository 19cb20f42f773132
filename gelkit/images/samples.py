"""Samples: labelled synthetic images, gels and what is easily taken for one.

Both classes go through one camera and one set of file formats, and a decoy has the histogram of a
gel that is drawn for it, so that only the structure of a picture tells its class.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from gelkit.errors import UsageError
from gelkit.images.sample_decoys import DECOYS
from gelkit.images.sample_gels import GEL_KINDS, Picture, draw_gel
from gelkit.progress import Progress, reported, silent

SIDES = (300, 900)
"""The shortest and the longest side of a sample, in pixels."""

BINARY = {"gel": tuple(GEL_KINDS), "not_gel": tuple(DECOYS)}
"""The two classes, and which pictures are drawn for each."""

KINDS = {
    "dna_gel": ("dna_gel",),
    "protein_gel": ("protein_gel",),
    "blot": ("dot_blot", "autoradiograph"),
    "plate": ("well_plate", "tlc_plate"),
    "print": ("bar_chart", "line_chart", "heat_map", "text_page"),
    "micrograph": ("cells", "fibres"),
    "pattern": ("stripes", "grid", "punched_card", "gradient"),
}
"""The classes by kind, and which pictures are drawn for each."""

GREY = (0.0, 0.0, 0.0)
TINTS_OF_DARK_PICTURES = (GREY, GREY, (0.9, -0.1, -0.5), (-0.6, 0.5, -0.4))
"""Red, green, blue beside the grey of colour files: of ethidium bromide, of SYBR dyes."""

TINTS_OF_LIGHT_PICTURES = (GREY, GREY, (-0.4, -0.1, 0.9), (0.3, 0.1, -0.4))
"""The same, of Coomassie and of silver stains."""

_LEVELS = 65535
_LUMINANCE = np.array((0.299, 0.587, 0.114))


@dataclass(frozen=True)
class FileKind:
    """A format, how a pixel is stored in it (Pillow's mode), and how Pillow is told to save it."""

    format: str
    mode: str
    options: tuple[tuple[str, str | int], ...] = ()

    @property
    def suffix(self) -> str:
        """The file's ending."""
        return {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif"}[self.format]


FILE_KINDS = (
    FileKind("PNG", "L", (("compress_level", 1), ("compress_type", 3))),
    FileKind("JPEG", "L"),
    FileKind("TIFF", "I;16"),
    FileKind("PNG", "RGB", (("compress_level", 1),)),
    FileKind("JPEG", "RGB"),
    FileKind("PNG", "I;16", (("compress_level", 1), ("compress_type", 3))),
    FileKind("TIFF", "L", (("compression", "tiff_lzw"),)),
    FileKind("PNG", "RGBA", (("compress_level", 1),)),
    FileKind("TIFF", "RGB"),
)
"""Taken in turn by pairs of images, so that each occurs equally often in both classes."""


def draw_samples(
    out: str | Path,
    *,
    count: int = 120,
    seed: int = 0,
    by_kind: bool = False,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Draw a labelled set of synthetic images into one folder for each class.

    The classes are ``gel`` and ``not_gel``, half of the images each; with ``by_kind`` they are
    those of :data:`KINDS`, in turn. The same seed gives the same bytes, and an image is the same
    in a set of any count. File names tell nothing of the class.

    :returns: the paths, in the order in which they were drawn.
    :raises UsageError: a folder that is not empty, a count that is odd or too small, or a seed
        below 0.
    """
    classes = KINDS if by_kind else BINARY
    folder = Path(out)
    _require_count(count, len(classes))
    if seed < 0:
        raise UsageError(f"Expected a seed of 0 or more. Received: {seed}. Choose another.")
    _require_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".drawing-", dir=folder) as drawing:
        for label in classes:
            Path(drawing, label).mkdir()
        numbers = reported(range(count), "draw samples", count, progress)
        drawn = [_draw_sample(Path(drawing), classes, seed, number) for number in numbers]
        for label in classes:  # only now: an interruption leaves no half of a data set
            Path(drawing, label).rename(folder / label)
    return tuple(folder / path.relative_to(drawing) for path in drawn)


def _require_count(count: int, classes: int) -> None:
    least = 2 * classes
    if count % 2 or count < least:
        raise UsageError(
            f"Expected an even count of at least {least}, two for each of {classes} classes. "
            f"Received: {count}. Ask for {max(count + count % 2, least)}."
        )


def _require_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"Expected a folder. Received: {str(folder)!r}, a file. Name another.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"Expected a folder that is new or empty. Received: {str(folder)!r}, which is not "
            "empty. Name another one, or move away what is in it."
        )


def _draw_sample(folder: Path, classes: dict[str, tuple[str, ...]], seed: int, number: int) -> Path:
    """Draw image ``number``, whose random numbers are its own, and write it."""
    rng = np.random.default_rng([seed, number])
    label = list(classes)[number % len(classes)]
    kinds = classes[label]
    height, width = (int(side) for side in rng.integers(*SIDES, size=2, endpoint=True))
    name = rng.bytes(6).hex()
    picture = _photograph(kinds[int(rng.integers(len(kinds)))], rng, height, width)
    kind = FILE_KINDS[number // 2 % len(FILE_KINDS)]
    path = folder / label / (name + kind.suffix)
    path.write_bytes(_encode(picture, kind, rng))
    return path


# The camera


def _photograph(kind: str, rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw a picture and expose it; a decoy is given the histogram of a gel's exposure."""
    kinds = list(GEL_KINDS)
    gel_kind = kind if kind in GEL_KINDS else kinds[int(rng.integers(len(kinds)))]
    picture = _expose(draw_gel(gel_kind, rng, height, width), rng)
    if kind in DECOYS:
        decoy = _with_bloom(DECOYS[kind](rng, height, width))
        lit = _uneven_light(rng, height, width) * (0.2 + decoy)
        lit += 0.0005 * rng.standard_normal(lit.shape, np.float32)
        picture = _with_histogram_of(picture, lit)
    if rng.random() < 0.5:
        picture = _out_of_focus(picture, rng.uniform(1.2, 2.0))
    _add_dust(picture, rng)
    if rng.random() < GEL_KINDS[gel_kind].dark_on_light:
        picture = 1 - picture
    return np.asarray(np.clip(picture + _noise(rng, picture), 0, 1), np.float32)


def _expose(glow: Picture, rng: np.random.Generator) -> Picture:
    """Return what the sensor makes of a glow: black level, gain and saturation."""
    black, gain = rng.uniform(0.01, 0.2), rng.lognormal(-0.5, 0.45)
    lit = _uneven_light(rng, *glow.shape) * glow
    return np.asarray(np.minimum(black + gain * lit, rng.uniform(0.85, 1.0)), np.float32)


def _uneven_light(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Return light of mean about 1: brightest near the middle, and cloudy."""
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - rng.normal(0, 0.3)
    columns = np.linspace(-1, 1, width, dtype=np.float32) - rng.normal(0, 0.3)
    fall = rng.uniform(0, 0.35) * (rows**2 + columns**2 - 0.7)
    coarse = ndimage.gaussian_filter(rng.standard_normal((24, 24), np.float32), 4)
    clouds = _resized(coarse / coarse.std(), height, width)
    return np.asarray(np.maximum(1 - fall + rng.uniform(0, 0.1) * clouds, 0.1), np.float32)


def _with_bloom(picture: Picture) -> Picture:
    """Return the picture with light scattered around what is bright, near and far."""
    height, width = picture.shape
    coarse = np.asarray(Image.fromarray(picture).reduce(6), np.float32)
    scattered = sum(ndimage.gaussian_filter(coarse, sigma) for sigma in (0.7, 2.5, 8.0))
    return picture + np.float32(0.25) * _resized(scattered, height, width)


def _with_histogram_of(model: Picture, picture: Picture) -> Picture:
    """Return the picture with its values replaced, rank by rank, by those of the model."""
    low, high = float(picture.min()), float(picture.max())
    levels = ((picture - low) * (_LEVELS / (high - low))).astype(np.int32)
    counts = np.bincount(levels.ravel(), minlength=_LEVELS + 1)
    ranks = (np.cumsum(counts) - counts / 2) / picture.size
    steps = np.linspace(0, 1, 1024)
    values = np.interp(ranks, steps, np.quantile(model[::3, ::3], steps))
    return values.astype(np.float32)[levels]


def _out_of_focus(picture: Picture, factor: float) -> Picture:
    """Return the picture as a sensor with ``factor`` times larger pixels sees it."""
    height, width = picture.shape
    small = _resized(picture, int(height / factor), int(width / factor))
    return _resized(small, height, width)


def _resized(picture: Picture, height: int, width: int) -> Picture:
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image, np.float32)


def _add_dust(picture: Picture, rng: np.random.Generator) -> None:
    """Brighten a few specks, of one to three pixels."""
    height, width = picture.shape
    for _ in range(int(rng.exponential(12))):
        y, x, size = rng.integers((0, 0, 1), (height, width, 4))
        picture[y : y + size, x : x + size] += rng.uniform(0.05, 0.3)


def _noise(rng: np.random.Generator, picture: Picture) -> Picture:
    """Return read and shot noise, with a grain of one or two pixels."""
    height, width = picture.shape
    grain, read, shot = int(rng.integers(1, 3)), rng.uniform(0.002, 0.012), rng.uniform(0.005, 0.03)
    coarse = rng.standard_normal((height // grain, width // grain), np.float32)
    spread = np.sqrt(read**2 + shot**2 * np.maximum(picture, 0), dtype=np.float32)
    return _resized(coarse, height, width) * spread


# The file


def _encode(picture: Picture, kind: FileKind, rng: np.random.Generator) -> bytes:
    """Return the bytes of an image file that shows ``picture``, whose values are 0 to 1."""
    options = dict(kind.options)
    if kind.format == "JPEG":
        options["quality"] = int(rng.integers(60, 96))
    if kind.mode in ("RGB", "RGBA"):
        is_light = float(picture.mean()) > 0.5
        tints = TINTS_OF_LIGHT_PICTURES if is_light else TINTS_OF_DARK_PICTURES
        tint = tints[int(rng.integers(len(tints)))]
        image = Image.fromarray(_tinted(picture, tint)).convert(kind.mode)
    elif kind.mode == "I;16":
        image = Image.fromarray(np.round(picture * 65535).astype(np.uint16))
    else:
        image = Image.fromarray(np.round(picture * 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, kind.format, **options)
    return file.getvalue()


def _tinted(picture: Picture, tint: Sequence[float]) -> npt.NDArray[np.uint8]:
    """Return 8-bit colour (height, width, 3) of the same luminance: ITU-R BT.601, as decoded."""
    colour = (np.array(tint) - np.dot(tint, _LUMINANCE)).astype(np.float32)
    beside = (picture * (1 - picture))[:, :, None] * colour
    levels = np.round(np.clip(picture[:, :, None] + beside, 0, 1) * 255)
    return np.asarray(levels, np.uint8)
