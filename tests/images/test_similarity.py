"""Similarity: copies of one exposure are found, different gels of one comb are not."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import rotate

from gelkit.images.formats import decode
from gelkit.images.likeness import perceptual_hash
from gelkit.images.registration import similarity, sketch
from gelkit.images.similarity import (
    MIN_SIMILARITY,
    TooManyCandidatesError,
    candidate_pairs,
    near_duplicates,
)
from gelkit.images.views import render

HEIGHT, WIDTH, LANES = 300, 420, 10


Lane = dict[float, float]
"""How bright the bands are at which heights, from 0 to 1."""


def _gel(lanes: Sequence[Lane], noise: int = 0) -> np.ndarray:
    """Draw the bands of each lane below one and the same comb."""
    rows, columns = np.arange(HEIGHT), np.arange(WIDTH)
    middles = WIDTH * (np.arange(LANES)[:, None] + 0.5) / LANES
    across = np.exp(-(((columns - middles) / 14) ** 4))
    along = np.tile(0.3 * np.exp(-(((rows - 25) / 5) ** 2)), (LANES, 1))
    for number, bands in enumerate(lanes):
        for height, amount in bands.items():
            along[number] += amount * np.exp(-(((rows - 50 - 230 * height) / 4) ** 2))
    picture = 0.15 + along.T @ across
    picture += np.random.default_rng(noise).normal(0, 0.01, picture.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def _some_gel(seed: int) -> np.ndarray:
    rng = np.random.default_rng([4, seed])
    lanes = [dict.fromkeys(rng.random(rng.integers(0, 6)), 0.6) for _ in range(LANES)]
    return _gel(lanes, noise=seed)


def _encoded(picture: np.ndarray, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def _view(picture: np.ndarray) -> np.ndarray:
    return render(decode(_encoded(picture, "PNG", compress_level=1)))


def _hashes(views: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([perceptual_hash(view) for view in views], dtype=np.uint64)


def _found(views: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    pairs = near_duplicates(_hashes(views), lambda number: views[number])
    return [(pair.first, pair.second) for pair in pairs]


def _toned(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda p: np.rint(change(p / 255).clip(0, 1) * 255).astype(np.uint8)


def _resaved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(_encoded(picture, "JPEG", quality=50))))


def _halved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((WIDTH // 2, HEIGHT // 2)))


def _noisy(picture: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 0.04, picture.shape)
    return _toned(lambda p: p + noise)(picture)


def _everything(picture: np.ndarray) -> np.ndarray:
    return 255 - _resaved(_toned(lambda p: p**0.8)(picture[3:-4, 5:-4]))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "saved as JPEG": _resaved,
    "darker": _toned(lambda p: p**1.6),
    "lighter": _toned(lambda p: p**0.6),
    "less contrast": _toned(lambda p: 0.25 + 0.5 * p),
    "more contrast": _toned(lambda p: 1.5 * p - 0.2),
    "inverted": lambda p: 255 - p,
    "half the size": _halved,
    "turned by a degree": lambda p: rotate(p, 1, reshape=False, order=1, mode="nearest"),
    "noise": _noisy,
    "cropped by 2%": lambda p: p[3:-3, 4:-4],
    "cropped by 5%": lambda p: p[7:-7, 10:-10],
    "cropped by 5% at one side": lambda p: p[15:, 21:],
    "inverted, cropped, saved": _everything,
}
FAR_FOR_THE_HASH = ("cropped by 5%", "cropped by 5% at one side")


@pytest.mark.parametrize("name", [name for name in CHANGES if name not in FAR_FOR_THE_HASH])
def test_copies_are_found_and_nothing_else(name: str) -> None:
    """A copy in the test fold would be recognised instead of classified."""
    gels = [_some_gel(seed) for seed in range(6)]
    views = [_view(gel) for gel in gels] + [_view(CHANGES[name](gel)) for gel in gels]
    assert _found(views) == [(i, i + 6) for i in range(6)]


@pytest.mark.parametrize("name", FAR_FOR_THE_HASH)
def test_cropped_copies_are_confirmed_once_proposed(name: str) -> None:
    """A copy whose hash is just near enough would still be taken for another gel."""
    for seed in range(6):
        gel = _some_gel(seed)
        assert similarity(sketch(_view(gel)), sketch(_view(CHANGES[name](gel)))) >= MIN_SIMILARITY


@pytest.mark.exhaustive("exhaustive grids")
def test_different_gels_of_one_comb_are_not_confirmed() -> None:
    """A laboratory with one comb would be told that it has a single gel."""
    rng = np.random.default_rng(0)
    amounts = 0.4 * rng.lognormal(0, 0.4, (200, LANES, 2)) * (rng.random((200, LANES, 2)) < 0.7)
    views = [
        _view(_gel([{0.3: upper, 0.6: lower} for upper, lower in gel], noise))
        for noise, gel in enumerate(amounts)
    ]
    assert len(candidate_pairs(_hashes(views))) > 20
    assert _found(views) == []


LADDER: Lane = dict.fromkeys((0.1, 0.2, 0.3, 0.4, 0.6, 0.9), 0.6)
HIGH: Lane = {0.3: 0.6}
LOW: Lane = {0.75: 0.6}
NOTHING: Lane = {}
SMEAR: Lane = dict.fromkeys(np.linspace(0, 1, 40).tolist(), 0.12)
SMEARED_HIGH, SMEARED_LOW = SMEAR | {0.3: 0.3}, SMEAR | {0.75: 0.3}
LOOKALIKES = {
    "the ladder": ([LADDER] + [HIGH] * 9, [LADDER] + [LOW] * 9),
    "the product": ([HIGH] * 5 + [NOTHING] * 5, [HIGH, NOTHING] * 5),
    "smeared lanes": ([SMEARED_HIGH] * 3 + [SMEARED_LOW] * 7, [SMEARED_HIGH, SMEARED_LOW] * 5),
    "the comb": ([HIGH] * 3 + [LOW] * 7, [HIGH, LOW] * 5),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_gels_have_in_common_confirms_nothing(name: str) -> None:
    """Every gel with one laboratory's ladder or product would be the same gel."""
    one, other = (sketch(_view(_gel(lanes, noise))) for noise, lanes in enumerate(LOOKALIKES[name]))
    assert similarity(one, other) < MIN_SIMILARITY


def test_blank_pictures_are_alike_and_like_nothing_else() -> None:
    """An empty exposure would end the comparison, or join all groups."""
    grey, white = (sketch(np.full((224, 224), level, np.uint8)) for level in (100, 255))
    assert similarity(grey, white) == 1
    assert similarity(grey, sketch(_view(_some_gel(0)))) == 0


def test_similarity_does_not_depend_on_which_picture_comes_first() -> None:
    """The same images in another order would be split otherwise."""
    one, other = (sketch(_view(gel)) for gel in (_some_gel(0), _everything(_some_gel(0))))
    assert similarity(one, other) == similarity(other, one)
    assert similarity(one, other) == pytest.approx(similarity(one, -other), abs=1e-6)


def test_copies_that_only_the_original_is_near_to_are_one_group() -> None:
    """Two crops of one gel would be separated, because their hashes know only the original."""
    view = _view(_some_gel(0))
    hashes = np.array([1 << 63, 1 << 63 | 0xFF, 1 << 63 | 0xFF00], dtype=np.uint64)
    assert len(candidate_pairs(hashes)) == 2
    pairs = near_duplicates(hashes, lambda number: np.roll(view, number))
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]


def test_views_are_read_once_and_only_of_candidates() -> None:
    """A search among many images would decode them all, again and again."""
    view, read = _view(_some_gel(0)), []

    def view_of(number: int) -> np.ndarray:
        read.append(number)
        return view

    hashes = np.array([5, (1 << 40) - 1, 5, 5], dtype=np.uint64)
    assert len(near_duplicates(hashes, view_of)) == 3
    assert sorted(read) == [0, 0, 2, 2, 3, 3]


@settings(deadline=None, max_examples=50)
@given(
    starts=st.lists(st.integers(0, 2**64 - 1), max_size=6),
    flips=st.lists(st.lists(st.integers(0, 63), max_size=14), max_size=12),
    distance=st.integers(0, 12),
)
def test_candidates_are_those_of_counting_bits(
    starts: list[int], flips: list[list[int]], distance: int
) -> None:
    """A pair of copies would be overlooked by the search in blocks."""
    hashes = list(starts)
    for number, bits in enumerate(flips if starts else []):
        mask = sum(1 << bit for bit in set(bits))
        hashes.append(starts[number % len(starts)] ^ mask ^ (2**64 - 1) * (number % 2))
    expected = []
    for i, j in combinations(range(len(hashes)), 2):
        differing = ((hashes[i] ^ hashes[j]) % 2**63).bit_count()
        if min(differing, 63 - differing) <= distance:
            expected.append([i, j])
    found = candidate_pairs(np.array(hashes, dtype=np.uint64), distance)
    assert found.tolist() == expected


def test_candidates_are_found_across_blocks() -> None:
    """Copies far from one another in a large data set would be overlooked."""
    hashes = np.random.default_rng(0).integers(0, 2**63, 9000, dtype=np.uint64)
    planted = [(0, 8999), (255, 256), (4095, 4096), (4351, 4352), (5000, 5001)]
    for i, j in planted:
        hashes[j] = ~hashes[i] ^ np.uint64(0b1011)
    assert [tuple(pair) for pair in candidate_pairs(hashes, 3).tolist()] == planted


def test_too_many_candidates_are_refused_before_any_picture_is_read() -> None:
    """A search over one layout would run for days without a word."""

    def view_of(number: int) -> np.ndarray:
        raise AssertionError(f"view {number} was read")

    with pytest.raises(TooManyCandidatesError, match=r"at most 100 pairs.*'group'.*--no-near"):
        near_duplicates(np.zeros(30, dtype=np.uint64), view_of, most_candidates=100)


def test_a_test_set_is_compared_with_what_is_known_alone() -> None:
    """Looking for test images in the training data would compare all of the latter again."""
    pictures = [_some_gel(0), _some_gel(1), _some_gel(1), _some_gel(0), _some_gel(2)]
    views = [_view(picture) for picture in pictures]
    pairs = near_duplicates(_hashes(views), views.__getitem__, known=2)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 3), (1, 2)]
    pairs = near_duplicates(_hashes(views), views.__getitem__, known=4)
    assert pairs == ()
