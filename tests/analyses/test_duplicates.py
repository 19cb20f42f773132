"""Duplicates: a picture is known again however it was turned, inverted, cropped or saved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gelkit.analyses.crops import best_places, outline
from gelkit.analyses.duplicates import (
    DUPLICATE_COLUMNS,
    MIN_CORRELATION,
    find_duplicates,
    lay_pair,
    write_duplicates,
)
from gelkit.analyses.hashes import hash_distances, near_hashes
from gelkit.analyses.orientations import ORIENTATIONS, Orientation
from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.images.catalog import CatalogImage
from gelkit.images.formats import decode
from gelkit.images.likeness import perceptual_hash
from gelkit.images.registration import sketch
from gelkit.images.similarity import MAX_DISTANCE
from gelkit.images.views import render
from gelkit.report.sheet import draw_pairs
from gelkit.tables import read_table

HEIGHT, WIDTH, LANES = 280, 360, 9
COPIES = 3
"""Pictures that are altered, of as many others that are not."""


def _gel(seed: int) -> np.ndarray:
    """Draw bands at random heights below a comb."""
    rng = np.random.default_rng([9, seed])
    rows, columns = np.arange(HEIGHT), np.arange(WIDTH)
    picture = 0.2 + rng.normal(0, 0.01, (HEIGHT, WIDTH))
    for lane in range(LANES):
        across = np.exp(-(((columns - WIDTH * (lane + 0.5) / LANES) / 13) ** 4))
        for place in rng.uniform(20, HEIGHT - 10, rng.integers(2, 6)):
            along = np.exp(-(((rows - place) / 4) ** 2)) * rng.uniform(0.3, 0.7)
            picture += along[:, None] * across
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def _cropped(height: float, width: float, top: float, left: float) -> Callable[..., np.ndarray]:
    """Return what cuts a window out, given in fractions of the picture."""
    return lambda p: p[
        round(top * p.shape[0]) : round((top + height) * p.shape[0]),
        round(left * p.shape[1]) : round((left + width) * p.shape[1]),
    ]


def _toned(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * (picture / 255) ** 0.6).astype(np.uint8)


def _small(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((WIDTH // 2, HEIGHT // 2)))


CORNER = _cropped(0.8, 0.75, 0.2, 0.05)
HASH, EMBEDDING = "the hash", "the embedding"

CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, str, str | None]] = {
    "smaller": (_small, HASH, "same picture", None),
    "lighter": (_toned, HASH, "same picture", None),
    "inverted": (lambda p: 255 - p, HASH, "inverted", None),
    "mirrored": (np.fliplr, HASH, "mirrored", None),
    "turned": (lambda p: np.rot90(p, 2), HASH, "upside down", None),
    "turned, inverted, lighter": (
        lambda p: _toned(255 - np.rot90(p)),
        HASH,
        "inverted, turned left",
        None,
    ),
    "cropped": (CORNER, EMBEDDING, "cropped", "second"),
    "lanes cut off": (_cropped(1, 0.66, 0, 0.3), EMBEDDING, "cropped", "second"),
    "cropped and mirrored": (
        lambda p: np.fliplr(CORNER(p)),
        EMBEDDING,
        "mirrored, cropped",
        "second",
    ),
    "cropped, turned, inverted": (
        lambda p: 255 - np.rot90(CORNER(p)),
        EMBEDDING,
        "inverted, turned left, cropped",
        "second",
    ),
}


def _embedded(folder: Path, pictures: dict[str, np.ndarray], likeness: np.ndarray) -> Embeddings:
    """Save pictures, and embed them; those of one number of ``likeness`` near to one another."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(likeness) + 1, 32))
    paths, digests, hashes = [], [], []
    for name, picture in pictures.items():
        paths.append(folder / name)
        Image.fromarray(picture).save(paths[-1], "PNG", compress_level=1)
        data = paths[-1].read_bytes()
        digests.append(sha256(data).hexdigest())
        hashes.append(perceptual_hash(render(decode(data))))
    values = centres[likeness] + 0.1 * rng.normal(size=(len(likeness), 32))
    return Embeddings(
        values=values.astype(np.float32),
        images=tuple(CatalogImage(path, path.name) for path in paths),
        sha256s=tuple(digests),
        recipe=make_recipe("resnet18", "cpu", RecipeOptions(weights="random")),
        device="cpu (drawn)",
        extraction_secs=0.0,
        records={"perceptual_hash": np.array(hashes, dtype=np.uint64)},
    )


def _altered(folder: Path, change: Callable[[np.ndarray], np.ndarray], near: str) -> Embeddings:
    """Return gels, then copies of the first few; only by ``near`` are these near to one another."""
    gels = [_gel(seed) for seed in range(2 * COPIES)]
    copies = [np.ascontiguousarray(change(gel)) for gel in gels[:COPIES]]
    likeness = np.arange(3 * COPIES)
    if near == EMBEDDING:
        likeness[2 * COPIES :] = np.arange(COPIES)
    pictures = {f"{number}.png": picture for number, picture in enumerate(gels + copies)}
    return _embedded(folder, pictures, likeness)


@pytest.mark.parametrize("name", CHANGES)
def test_altered_copies_are_found_and_nothing_else(name: str, tmp_path: Path) -> None:
    """A figure that was used twice would not be noticed, or two figures be taken for one."""
    change, near, kind, crop = CHANGES[name]
    embeddings = _altered(tmp_path, change, near)
    searched = 0 if near == HASH else len(embeddings)
    pairs = find_duplicates(embeddings, searched_pairs=searched)
    assert [(pair.first.name, pair.second.name) for pair in pairs] == [
        (f"{number}.png", f"{number + 2 * COPIES}.png") for number in range(COPIES)
    ]
    assert {pair.kind for pair in pairs} == {kind}
    assert {pair.match.crop for pair in pairs} == {crop}
    assert all((pair.cosine > 0.8) == (near == EMBEDDING) for pair in pairs)
    assert all((pair.hash_distance <= 10) == (near == HASH) for pair in pairs)
    assert all(pair.match.is_certain for pair in pairs)
    for first, second in (lay_pair(pair, embeddings) for pair in pairs):
        inner = np.s_[20:-20, 20:-20]  # what was cut off is not there to be compared
        assert np.corrcoef(first[inner].ravel(), second[inner].ravel())[0, 1] > 0.97


@pytest.mark.parametrize("change", ["mirrored", "cropped, turned, inverted"])
def test_a_sheet_shows_grey_where_a_pair_agrees(change: str, tmp_path: Path) -> None:
    """Whoever is to judge a pair would see differences where there are none."""
    embeddings = _altered(tmp_path / "gels", CHANGES[change][0], EMBEDDING)
    pairs = find_duplicates(embeddings)
    (path,) = draw_pairs(pairs, partial(lay_pair, embeddings=embeddings), tmp_path / "pairs.png")
    with Image.open(path) as sheet:
        shown = np.asarray(sheet.convert("RGB"), np.int64)
    assert len(pairs) == COPIES
    grey = np.abs(shown[..., 0] - shown[..., 1]) < 60
    assert grey.mean() > 0.97
    assert (shown[..., 1] == shown[..., 2]).mean() > 0.98  # captions may be coloured


def test_different_gels_are_no_pair_however_closely_one_looks(tmp_path: Path) -> None:
    """Gels of one comb would be taken for copies, because someone allowed for more differences."""
    gels = {f"{seed}.png": _gel(seed) for seed in range(8)}
    embeddings = _embedded(tmp_path, gels, np.zeros(8, np.int64))
    assert len(near_hashes(embeddings.records["perceptual_hash"], 31)) > 100
    assert find_duplicates(embeddings, max_distance=31) == ()


def test_gels_with_lanes_in_common_are_no_pair(tmp_path: Path) -> None:
    """What agrees at a glance would be reported without a closer look."""
    spliced = [_gel(seed) for seed in range(4)]
    for gel in spliced:
        gel[:, : WIDTH // 2] = _gel(99)[:, : WIDTH // 2]
    pictures = {f"{number}.png": gel for number, gel in enumerate(spliced)}
    embeddings = _embedded(tmp_path, pictures, np.zeros(4, np.int64))
    outlines = [
        outline(sketch(np.asarray(Image.fromarray(gel).resize((224, 224))))) for gel in spliced
    ]
    (place, _), *_ = best_places(*outlines[:2], 1)
    assert abs(place.correlation) > MIN_CORRELATION
    assert find_duplicates(embeddings) == ()


def test_of_a_crop_and_the_whole_either_may_come_first(tmp_path: Path) -> None:
    """The crop would be taken for the original, and be turned the wrong way."""
    gel = _gel(0)
    pictures = {"crop.png": np.ascontiguousarray(np.rot90(CORNER(gel))), "whole.png": gel}
    (pair,) = find_duplicates(_embedded(tmp_path, pictures, np.array([0, 0])))
    assert pair.match.crop == "first"
    assert pair.kind == "turned right, cropped"
    assert pair.match.share == pytest.approx(0.6, abs=0.12)


def test_equal_bytes_are_one_picture_that_is_compared_once(tmp_path: Path) -> None:
    """Three copies beside an original would be twelve pairs instead of what one can look at."""
    gel = _gel(0)
    pictures = {"a.png": gel, "b.png": _gel(1), "c.png": gel, "d.png": 255 - gel, "e.png": gel}
    pairs = find_duplicates(_embedded(tmp_path, pictures, np.arange(5)))
    assert [(pair.first.name, pair.second.name, pair.kind) for pair in pairs] == [
        ("a.png", "c.png", "equal bytes"),
        ("a.png", "d.png", "inverted"),
        ("a.png", "e.png", "equal bytes"),
    ]
    assert pairs[0].match.similarity == 1
    assert pairs[1].match.similarity == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("loss", ["gone", "changed"])
def test_lost_pictures_are_named_and_judged_by_their_hashes(
    loss: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One file that was moved would end the search, or be passed over in silence."""
    embeddings = _altered(tmp_path, np.fliplr, HASH)
    lost = tmp_path / "0.png"
    lost.unlink() if loss == "gone" else lost.write_bytes((tmp_path / "1.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        pairs = find_duplicates(embeddings)
    assert [pair.kind for pair in pairs] == ["mirrored, not confirmed", "mirrored", "mirrored"]
    assert pairs[0].match.similarity is None
    assert "1 of 9 images are judged by their hashes alone" in caplog.text
    assert str(lost) in caplog.text


def test_few_images_have_few_pairs(tmp_path: Path) -> None:
    """A data set of one image, or of one picture, would end in an error."""
    one = _embedded(tmp_path, {"0.png": _gel(0)}, np.array([0]))
    assert find_duplicates(one) == ()
    twice = one.take(np.array([0, 0]))
    assert [pair.kind for pair in find_duplicates(twice)] == ["equal bytes"]


def test_too_many_near_hashes_are_refused() -> None:
    """A search over one layout would run for days without a word."""
    with pytest.raises(UsageError, match=r"at most 100 pairs.*Allow fewer differing bits"):
        near_hashes(np.zeros(30, dtype=np.uint64), most=100)


def test_progress_ends_where_it_said(tmp_path: Path) -> None:
    """A bar would stop half way, or run over."""
    embeddings = _altered(tmp_path, CORNER, EMBEDDING)
    last: dict[str, tuple[int, int]] = {}
    find_duplicates(
        embeddings, progress=lambda what, done, total: last.update({what: (done, total)})
    )
    assert len(last) >= 4
    assert all(done == total for done, total in last.values())


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12
) | st.sampled_from(["=1+1", "-a", "'=b", "a\nb", "\udcff.png", '"', "<script>"])


@settings(deadline=None, max_examples=30)
@given(first=NAMES, second=NAMES)
def test_the_table_keeps_any_name(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    """A pair's files could not be found again, or a name would run in a spreadsheet."""
    folder = tmp_path_factory.mktemp("table")
    images = (CatalogImage(Path("a") / first, first), CatalogImage(Path("b") / second, second))
    embeddings = replace(_one_picture_twice(), images=images)
    pairs = find_duplicates(embeddings)
    write_duplicates(pairs, folder / "duplicates.csv")
    columns, (row,) = read_table(folder / "duplicates.csv")
    assert columns == list(DUPLICATE_COLUMNS)
    assert row == [
        *(first, second, "equal bytes", "1.0000", "1.0000", "True", "0", "1.000000"),
        *("upright", "False", "", "1.00"),
        *(str(Path("a") / first), str(Path("b") / second)),
    ]


def _one_picture_twice() -> Embeddings:
    return Embeddings(
        values=np.ones((2, 3), np.float32),
        images=(),
        sha256s=("a", "a"),
        recipe=make_recipe("resnet18", "cpu", RecipeOptions(weights="random")),
        device="cpu (drawn)",
        extraction_secs=0.0,
        records={"perceptual_hash": np.array([5, 5], dtype=np.uint64)},
    )


def _name(orientation: Orientation) -> str:
    return orientation.name


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=_name)
def test_orientations_are_what_they_are_called(orientation: Orientation) -> None:
    """A user would be told to look for the wrong turn."""
    picture = np.arange(16).reshape(4, 4)
    turns = {"upright": 0, "turned left": 1, "upside down": 2, "turned right": 3, "mirrored": 0}
    first, *mirrored = orientation.name.split(", ")
    expected = np.rot90(picture, turns[first])
    if mirrored or first == "mirrored":
        expected = np.fliplr(expected)
    assert np.array_equal(orientation.of_picture(picture), expected)
    assert np.array_equal(orientation.inverse.of_picture(expected), picture)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=_name)
def test_a_turned_pictures_hash_follows_from_its_hash(orientation: Orientation) -> None:
    """Turned copies would not be proposed, since no picture is read to hash it in eight ways."""
    views = [np.asarray(Image.fromarray(_gel(seed)).resize((224, 224))) for seed in range(10)]
    hashes = np.array([perceptual_hash(view) for view in views], dtype=np.uint64)
    turned = [np.ascontiguousarray(orientation.of_picture(view)) for view in views]
    expected = np.array([perceptual_hash(view) for view in turned], dtype=np.uint64)
    derived = orientation.of_hashes(hashes)
    differing = np.bitwise_count(derived ^ expected)
    assert np.median(differing) <= 4  # of 63 bits: those near the median may fall either way
    assert differing.max() <= MAX_DISTANCE
    assert (hash_distances(hashes, expected) <= differing).all()


@settings(deadline=None, max_examples=40)
@given(
    starts=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    copies=st.lists(
        st.tuples(st.integers(0, 7), st.booleans(), st.lists(st.integers(0, 63), max_size=12)),
        max_size=8,
    ),
    distance=st.integers(0, 12),
)
def test_near_hashes_are_those_of_counting_bits(
    starts: list[int], copies: list[tuple[int, bool, list[int]]], distance: int
) -> None:
    """A pair of copies would be overlooked by the search in blocks, or its turn be mistaken."""
    hashes = list(starts)
    for number, (orientation, inverted, bits) in enumerate(copies):
        start = np.array([starts[number % len(starts)]], dtype=np.uint64)
        turned = int(ORIENTATIONS[orientation].of_hashes(start)[0])
        mask = sum(1 << bit for bit in set(bits))
        hashes.append(turned ^ mask ^ (2**64 - 1) * inverted)
    array = np.array(hashes, dtype=np.uint64)
    expected = []
    for i in range(len(hashes)):
        for number, orientation in enumerate(ORIENTATIONS):
            own = int(orientation.of_hashes(array[[i]])[0])
            for j in range(i + 1, len(hashes)):
                differing = ((own ^ hashes[j]) % 2**63).bit_count()
                nearer = min(differing, 63 - differing)
                if nearer <= distance:
                    expected.append([i, j, nearer, number, int(differing > 31)])
    assert near_hashes(array, distance).tolist() == sorted(expected)


def test_near_hashes_are_found_across_blocks() -> None:
    """Copies far from one another in a large data set would be overlooked."""
    hashes = np.random.default_rng(0).integers(0, 2**63, 4400, dtype=np.uint64)
    planted = [(0, 4399), (255, 256), (4095, 4096), (4351, 4352)]
    for number, (i, j) in enumerate(planted):
        hashes[[j]] = ~ORIENTATIONS[2 * number].of_hashes(hashes[[i]]) ^ np.uint64(0b1011)
    found = near_hashes(hashes, 3).tolist()
    assert [row[:2] for row in found] == [list(pair) for pair in planted]
    assert [row[3:] for row in found] == [[2 * number, 1] for number in range(4)]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=_name)
@pytest.mark.parametrize("inverted", [False, True])
def test_a_crop_is_placed_where_it_was_cut(orientation: Orientation, inverted: bool) -> None:
    """The wrong part of the picture would be compared, and the copy be missed."""
    whole = np.asarray(Image.fromarray(_gel(1)).resize((224, 224)))
    turned = np.ascontiguousarray(orientation.of_picture(whole))
    crop = np.asarray(Image.fromarray(turned[40:200, 20:190]).resize((224, 224)))
    crop = 255 - crop if inverted else crop
    (place, is_first), *_ = best_places(outline(sketch(crop)), outline(sketch(whole)), 1)
    assert is_first
    assert place.orientation == orientation
    assert (place.correlation < 0) == inverted
    found = (place.top, place.left, place.height, place.width)
    assert found == pytest.approx((40 / 224, 20 / 224, 160 / 224, 170 / 224), abs=0.08)
