"""Duplicates: images of one data set that show the same picture, turned, inverted or cropped.

Perceptual hashes and embeddings propose pairs; registering the two pictures and comparing their
details confirms them. The pictures as wholes are compared: a lane that was used again in another
gel, or a splice of two, is not seen; nor are two crops of one picture of which neither holds the
other.

Measured by ``benchmarks/duplicates.py``, with ten neighbours each and efficientnet-lite0 with
ImageNet weights: 99 to 100% of 73 copies were found that were saved again, turned, mirrored,
inverted, toned, or cropped by up to 20%; 93% at 30 and at 40%; 86% of annotated ones, and 82% of
those inverted and cropped at once. Of 69,378 pairs of different images none was reported (at most
53 in a million, with 95% confidence), nor any of 3,160 pairs of real blots and drawn images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.analyses.approximate import approximate_nearest_others
from gelkit.analyses.crops import Outline, Region, best_places, cut, outline
from gelkit.analyses.hashes import hash_distances, near_hashes
from gelkit.analyses.neighbors import MEMORY_BYTES, nearest_others, row_cosines
from gelkit.analyses.orientations import ORIENTATIONS, Orientation
from gelkit.errors import GelkitError
from gelkit.features.embeddings import Embeddings
from gelkit.heads.grouping import decode_again
from gelkit.images.catalog import CatalogImage
from gelkit.images.details import ALL, Details, compare_details, moved_onto
from gelkit.images.registration import Sketch, similarity, sketch
from gelkit.images.similarity import MAX_DISTANCE, MIN_SIMILARITY
from gelkit.images.views import View, render
from gelkit.progress import Progress, reported, silent
from gelkit.tables import write_table

logger = logging.getLogger(__name__)

SEARCHED_PAIRS = 20_000
"""Pairs of near embeddings to search for crops: minutes on one core, at some 5 ms a pair."""

MOST_EXACT = 100_000
"""Images whose neighbours are searched exactly; beyond, those found are approximate."""

MIN_CORRELATION = 0.55
"""Of a crop and its likeliest places, at a glance, before any of them is registered.

Of true crops the least was 0.60; half of all pairs of different pictures reach 0.50.
"""
_TRIED_PLACES, _TRIED_ALIKE = 3, 24
"""Of the likeliest: at first, and once one looks alike but differs in its details, as where a row
of bands lies over another row of the same picture."""

_KEPT_PICTURES = 256
"""Views (50 kB each) and outlines (600 kB) that are kept for the next pair."""

_SHOWN_NAMES = 3

DUPLICATE_COLUMNS = (
    "first",
    "second",
    "kind",
    "similarity",
    "details",
    "certain",
    "hash_distance",
    "cosine",
    "orientation",
    "inverted",
    "crop",
    "share",
    "first_path",
    "second_path",
)
"""Of the table that :func:`write_duplicates` writes."""


@dataclass(frozen=True)
class Match:
    """How the first picture of a pair becomes the second, and how well they agree then."""

    similarity: float | None
    """As of :func:`gelkit.images.registration.similarity`; None if a picture was not to be read."""
    orientation: Orientation
    """How the first is turned and mirrored to become the second."""
    inverted: bool = False
    crop: str | None = None
    """``first`` or ``second``, if that shows a part of the other alone."""
    share: float = 1.0
    """Which part of the other's area it shows, roughly; a crop of a few per cent counts as none."""
    details: Details | None = None
    """How well their details agree; None if a picture was not to be read."""
    region: Region = (0.0, 0.0, 1.0, 1.0)
    """Where in the other, turned as the crop is, it lies: top, left, height and width, of 1."""

    @property
    def is_certain(self) -> bool:
        """Whether faint details agree far better than those of different pictures do."""
        return self.details is not None and self.details.are_certain

    @property
    def kind(self) -> str:
        """What was done to the picture, in words."""
        changes = [
            *(["inverted"] if self.inverted else []),
            *([] if self.orientation == _UPRIGHT else [self.orientation.name]),
            *(["cropped"] if self.crop else []),
            *(["not confirmed"] if self.similarity is None else []),
        ]
        return ", ".join(changes) or "same picture"


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that show the same picture, in the order of the data set."""

    first: CatalogImage
    second: CatalogImage
    match: Match
    equal_bytes: bool
    hash_distance: int
    """In how many of 63 bits the hashes differ, at least, however one is turned or inverted."""
    cosine: float
    """Of the two embeddings, to 1e-6."""

    @property
    def kind(self) -> str:
        """What was done to the picture, in words."""
        return "equal bytes" if self.equal_bytes else self.match.kind


_UPRIGHT = ORIENTATIONS[0]
_Matches = dict[tuple[int, int], Match]


def find_duplicates(
    embeddings: Embeddings,
    *,
    max_distance: int = MAX_DISTANCE,
    searched_pairs: int = SEARCHED_PAIRS,
    memory: int = MEMORY_BYTES,
    progress: Progress = silent,
) -> tuple[DuplicatePair, ...]:
    """Find the pairs of images that show the same picture.

    Each pair whose perceptual hashes are near in any of eight orientations and two polarities, and
    each of so many pairs with the nearest embeddings, is confirmed by registering the pictures:
    the former as wholes, the latter with one as a crop of the other
    (:data:`gelkit.analyses.crops.SHARES`), too. Pictures that have gone or changed since they were
    embedded are judged by their hashes, and named in a warning. Of images with equal bytes, each
    is paired with the first, and the first alone with others.

    :param max_distance: bits in which the hashes of a pair may differ.
    :param searched_pairs: among how many pairs to look for crops: of n images, ``searched_pairs /
        n`` nearest others of each, at least one; all of up to 141 images by default.
    :param memory: bytes for the search of nearest embeddings beside these.
    :returns: in the order of the images.
    :raises UsageError: more pairs of near hashes than can be compared; or more images than are
        compared exactly, and faiss is not installed.
    """
    _, places, position = np.unique(embeddings.sha256s, return_index=True, return_inverse=True)
    first = np.sort(places)
    distinct = embeddings.take(first)
    hashes = distinct.records["perceptual_hash"]
    near = near_hashes(hashes, max_distance, progress=progress)
    searched = _searched(distinct.values, searched_pairs, memory, progress)
    album = _Album(distinct)
    album.read(sorted({*near[:, :2].ravel().tolist(), *chain(*searched)}), progress)
    matches = _compared_as_wholes(near, album, progress)
    matches |= _compared_as_crops([p for p in searched if p not in matches], album, progress)
    found = {(int(first[i]), int(first[j])): match for (i, j), match in matches.items()}
    copies = {
        (int(original), copy): Match(1.0, _UPRIGHT, details=ALL)
        for copy, original in enumerate(places[position])
        if copy != original
    }
    return _pairs(embeddings, found, copies)


def lay_pair(pair: DuplicatePair, embeddings: Embeddings) -> tuple[View, View]:
    """Return the pictures of a pair, the second as it lies over the first; of a crop, where it is.

    :param embeddings: those among which the pair was found.
    :returns: clean views, uint8 (224, 224) each, and the second in the first's polarity.
    :raises UsageError: a file has gone, or holds other bytes.
    """
    places = {image: number for number, image in enumerate(embeddings.images)}
    album = _Album(embeddings)
    first, second = (album.view(places[image]) for image in (pair.first, pair.second))
    its = pair.match
    if its.crop == "first":
        second = cut(second, its.orientation.inverse, its.region)
    elif its.crop == "second":
        first = cut(first, its.orientation, its.region)
    else:
        first = np.ascontiguousarray(its.orientation.of_picture(first))
    return first, moved_onto(first, second)


def write_duplicates(pairs: Iterable[DuplicatePair], path: Path) -> None:
    """Write pairs as a table with the columns :data:`DUPLICATE_COLUMNS`.

    :raises OSError: the disk refused.
    """
    write_table(DUPLICATE_COLUMNS, map(_row, pairs), path)


def _row(pair: DuplicatePair) -> tuple[object, ...]:
    match = pair.match
    return (
        pair.first.name,
        pair.second.name,
        pair.kind,
        None if match.similarity is None else f"{match.similarity:.4f}",
        None if match.details is None else f"{match.details.faint:.4f}",
        match.is_certain,
        pair.hash_distance,
        f"{pair.cosine:.6f}",
        match.orientation.name,
        match.inverted,
        match.crop,
        f"{match.share:.2f}",
        pair.first.full_name,
        pair.second.full_name,
    )


def _pairs(embeddings: Embeddings, found: _Matches, copies: _Matches) -> tuple[DuplicatePair, ...]:
    numbers = sorted(found | copies)
    one, other = np.array(numbers, np.int64).reshape(-1, 2).T
    hashes = embeddings.records["perceptual_hash"]
    distances = hash_distances(hashes[one], hashes[other])
    cosines = row_cosines(embeddings.values[one], embeddings.values[other])
    return tuple(
        DuplicatePair(
            embeddings.images[pair[0]],
            embeddings.images[pair[1]],
            copies.get(pair) or found[pair],
            pair in copies,
            int(distance),
            float(cosine),
        )
        for pair, distance, cosine in zip(numbers, distances, cosines, strict=True)
    )


def _searched(
    values: npt.NDArray[np.float32], wanted: int, memory: int, progress: Progress
) -> list[tuple[int, int]]:
    """Return so many pairs of nearest others, i < j, in ascending order."""
    count = len(values)
    if count < 2 or wanted < 1:
        return []
    k = max(1, wanted // count)
    if count <= MOST_EXACT:
        found = nearest_others(values, k, memory=memory, progress=progress)
    else:
        found = approximate_nearest_others(values, k, progress=progress)
    pairs = {
        (min(i, j), max(i, j))
        for i, row in enumerate(found.numbers.tolist())
        for j in row
        if j >= 0
    }
    return sorted(pairs)


class _Album:
    """The pictures that are compared: sketches of all, views and outlines of the latest."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.sketches: dict[int, Sketch] = {}
        self.view = lru_cache(_KEPT_PICTURES)(self._view)
        self.outline = lru_cache(_KEPT_PICTURES)(self._outline)

    def read(self, numbers: Sequence[int], progress: Progress) -> None:
        """Sketch pictures; warn of those that are not what they were."""
        lost: list[GelkitError] = []
        for number in reported(numbers, "look at images alike", len(numbers), progress):
            try:
                self.sketches[number] = sketch(self.view(number))
            except GelkitError as error:
                lost.append(error)
        if lost:
            logger.warning(
                "%d of %d images are judged by their hashes alone, as they cannot be read again: "
                "%s%s",
                len(lost),
                len(numbers),
                " ".join(map(str, lost[:_SHOWN_NAMES])),
                " and more" if len(lost) > _SHOWN_NAMES else "",
            )

    def has(self, *numbers: int) -> bool:
        """Tell whether pictures could be read."""
        return all(number in self.sketches for number in numbers)

    def _view(self, number: int) -> View:
        its = self._embeddings
        image, sha256 = its.images[number], its.sha256s[number]
        return render(decode_again(image, sha256, its.recipe.decoding))

    def _outline(self, number: int) -> Outline:
        return outline(self.sketches[number])


def _compared_as_wholes(near: npt.NDArray[np.int64], album: _Album, progress: Progress) -> _Matches:
    """Confirm pairs of near hashes, each in the nearest of its orientations that confirms it."""
    matches: _Matches = {}
    rows = near.tolist()
    for i, j, _, number, inverted in reported(rows, "compare images alike", len(rows), progress):
        if (i, j) not in matches:
            match = _whole(i, j, ORIENTATIONS[number], album)
            if match is not None:
                matches[i, j] = replace(match, inverted=bool(inverted))
    return matches


def _whole(i: int, j: int, orientation: Orientation, album: _Album) -> Match | None:
    if not album.has(i, j):
        return Match(None, orientation)
    turned = np.ascontiguousarray(orientation.of_picture(album.sketches[i]))
    agreement = similarity(turned, album.sketches[j])
    if agreement < MIN_SIMILARITY:
        return None
    view = np.ascontiguousarray(orientation.of_picture(album.view(i)))
    details = compare_details(view, album.view(j))
    return Match(agreement, orientation, details=details) if details.agree else None


def _compared_as_crops(
    pairs: Sequence[tuple[int, int]], album: _Album, progress: Progress
) -> _Matches:
    matches: _Matches = {}
    for i, j in reported(pairs, "look for crops", len(pairs), progress):
        match = _crop(i, j, album) if album.has(i, j) else None
        if match is not None:
            matches[i, j] = match
    return matches


def _crop(i: int, j: int, album: _Album) -> Match | None:
    tried = _TRIED_PLACES
    places = best_places(album.outline(i), album.outline(j), _TRIED_ALIKE)
    for number, (place, first) in enumerate(places):
        if number == tried or abs(place.correlation) < MIN_CORRELATION:
            return None
        crop, whole = (i, j) if first else (j, i)
        shown = cut(album.view(whole), place.orientation, place.region)
        agreement = similarity(sketch(shown), album.sketches[crop])
        if agreement < MIN_SIMILARITY:
            continue
        tried = _TRIED_ALIKE
        details = compare_details(shown, album.view(crop))
        if details.agree:
            return Match(
                agreement,
                place.orientation.inverse if first else place.orientation,
                place.correlation < 0,
                None if place.share == 1 else "first" if first else "second",
                place.share,
                details,
                place.region,
            )
    return None
