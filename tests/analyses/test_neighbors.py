"""Neighbours: the nearest by cosine, whatever the blocks, the scale and the ties."""

from __future__ import annotations

import logging
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.analyses.approximate import CELLS_A_ROOT, approximate_nearest_others
from gelkit.analyses.neighbors import (
    Nearest,
    nearest,
    nearest_others,
    pairs_above,
    row_cosines,
)
from gelkit.analyses.similar import SIMILAR_COLUMNS, find_similar, write_similar
from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.images.catalog import CatalogImage
from gelkit.tables import read_table

LITTLE = 2**17
"""Bytes that make many blocks of small data."""


def _values(seed: int, count: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1, (count, width)).astype(np.float32)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute all cosines at once, in double precision."""
    one, other = (its.astype(np.float64) for its in (one, other))
    norms = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    return np.divide(one @ other.T, norms, out=np.zeros_like(norms), where=norms > 0)


def _assert_nearest(found: Nearest, cosines: np.ndarray, k: int) -> None:
    best = -np.sort(-cosines, axis=1)[:, :k]
    assert found.numbers.shape == best.shape
    assert all(len(set(row)) == len(row) for row in found.numbers.tolist())
    at_numbers = np.take_along_axis(cosines, found.numbers, axis=1)
    np.testing.assert_allclose(found.cosines, best, atol=2e-6)
    np.testing.assert_allclose(found.cosines, at_numbers, atol=2e-6)


sizes = {
    "seed": st.integers(0, 1000),
    "count": st.integers(1, 300),
    "width": st.integers(1, 20),
    "k": st.integers(1, 12),
}


@settings(deadline=None, max_examples=40)
@given(queries=st.integers(1, 150), **sizes)
def test_the_nearest_are_those_of_comparing_all(
    seed: int, queries: int, count: int, width: int, k: int
) -> None:
    """A search in blocks would miss a neighbour that stands in another block."""
    asked, collection = _values(seed + 1, queries, width), _values(seed, count, width)
    found = nearest(asked, collection, k, memory=LITTLE)
    _assert_nearest(found, _cosines(asked, collection), min(k, count))


@settings(deadline=None, max_examples=40)
@given(**sizes)
def test_the_nearest_others_are_those_of_comparing_all(
    seed: int, count: int, width: int, k: int
) -> None:
    """An image would be its own neighbour, or miss one of a later block."""
    collection = _values(seed, count, width)
    cosines = _cosines(collection, collection)
    np.fill_diagonal(cosines, -2)
    found = nearest_others(collection, k, memory=LITTLE)
    _assert_nearest(found, cosines, min(k, count - 1))


@settings(deadline=None, max_examples=40)
@given(
    kinds=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    scales=st.lists(st.sampled_from([1e-30, 0.1, 1.0, 7.0, 1e30]), min_size=1, max_size=7),
    k=st.integers(1, 9),
)
def test_ties_go_by_number(kinds: list[int], scales: list[float], k: int) -> None:
    """Copies would be listed in another order from run to run, or by how bright they are."""
    rows = _values(5, 3, 40)
    rows = np.concatenate([rows, np.zeros((1, 40), np.float32)])
    collection = rows[kinds] * np.resize(scales, len(kinds)).astype(np.float32)[:, None]
    expected = []
    levels = np.rint(_cosines(rows, rows) * 2**20)[kinds][:, kinds]
    for number, row in enumerate(levels):
        others = [i for i in np.argsort(-row, kind="stable") if i != number]
        expected.append(others[:k])
    found = nearest_others(collection, k, memory=LITTLE)
    assert found.numbers.tolist() == expected
    everything = nearest(collection, collection, len(kinds), memory=LITTLE).numbers
    assert everything.tolist() == np.argsort(-levels, axis=1, kind="stable").tolist()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), count=st.integers(1, 300), least=st.floats(-0.5, 1))
def test_pairs_above_are_those_of_comparing_all(seed: int, count: int, least: float) -> None:
    """A pair would be lost between blocks, or listed twice."""
    collection = _values(seed, count, 6)
    pairs, cosines = pairs_above(collection, least, memory=LITTLE)
    expected = np.triu(_cosines(collection, collection) >= least, 1)
    listed = [tuple(pair) for pair in pairs.tolist()]
    assert listed == sorted(set(listed))
    doubtful = np.abs(_cosines(collection, collection) - least) < 2e-6
    found = np.zeros_like(expected)
    found[pairs[:, 0], pairs[:, 1]] = True
    assert np.array_equal(found | doubtful, expected | doubtful)
    np.testing.assert_allclose(cosines, row_cosines(*collection[pairs].swapaxes(0, 1)), atol=2e-6)


def test_too_many_pairs_are_refused() -> None:
    """A threshold too low would fill the memory."""
    with pytest.raises(UsageError, match=r"at most 100 pairs.*Received: .*Ask for a higher one"):
        pairs_above(np.ones((50, 4), np.float32), 0.5, most=100)


@pytest.mark.parametrize(("count", "width"), [(3000, 32), (3000, 512)])
def test_memory_is_bounded(count: int, width: int) -> None:
    """A search over a large data set would be killed for its memory."""
    collection, memory = _values(0, count, width), 4 * 2**20
    tracemalloc.start()
    nearest_others(collection, 5, memory=memory)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    result = count * 5 * (8 + 8 + 4 + 8)
    assert peak < memory + result


def test_an_embedding_of_zeros_is_like_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A dead image would be everyone's neighbour, or fill the answer with NaN."""
    collection = np.array([[0, 0], [1, 0], [1, 1]], np.float32)
    with caplog.at_level(logging.WARNING):
        found = nearest_others(collection, 2)
    assert found.cosines[0].tolist() == [0, 0]
    assert found.numbers.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert "1 of 3 embeddings are all zeros" in caplog.text


REFUSED: dict[str, tuple[np.ndarray, int, int, str]] = {
    "another width": (np.ones((2, 3)), 1, 2**28, "one width. Received: 3 and 4"),
    "NaN": (np.array([[1, np.nan, 1, 1]]), 1, 2**28, "finite embeddings"),
    "infinite": (np.array([[1, -np.inf, 1, 1]]), 1, 2**28, "finite embeddings"),
    "no neighbour": (np.ones((2, 4)), 0, 2**28, "at least 1 neighbour. Received: 0"),
    "too little memory": (np.ones((2, 4)), 1, 1000, r"at least [\d,]+ bytes .*Received: 1,000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_answer_is_refused(case: str) -> None:
    """A user would get neighbours that mean nothing."""
    queries, k, memory, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        nearest(queries.astype(np.float32), np.ones((5, 4), np.float32), k, memory=memory)


def _clustered(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(count // 20, 16))
    return (centres[np.arange(count) % len(centres)] + 0.3 * rng.normal(size=(count, 16))).astype(
        np.float32
    )


def test_the_approximate_index_finds_most() -> None:
    """Beyond the size that is compared exactly, most neighbours would be missed."""
    pytest.importorskip("faiss")
    collection = _clustered(2000)
    exact = nearest_others(collection, 10)
    found = approximate_nearest_others(collection, 10)
    shared = [len({*a} & {*b}) for a, b in zip(exact.numbers, found.numbers, strict=True)]
    assert np.mean(shared) / 10 > 0.95
    assert not (found.numbers == np.arange(2000)[:, None]).any()
    again = approximate_nearest_others(collection, 10)
    assert np.array_equal(found.numbers, again.numbers)


def test_the_approximate_index_that_looks_everywhere_is_exact() -> None:
    """Its cosines and its order would not be those of the exact search."""
    pytest.importorskip("faiss")
    collection = np.repeat(_clustered(300), 2, axis=0)
    exact = nearest_others(collection, 5)
    found = approximate_nearest_others(collection, 5, searched_cells=CELLS_A_ROOT * 25)
    np.testing.assert_allclose(found.cosines, exact.cosines, atol=2e-6)
    assert np.array_equal(found.numbers[:, 0], exact.numbers[:, 0])


def test_a_missing_index_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would see an ImportError and not know what to install."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"Received.*without it.*gelkit\[index\]"):
        approximate_nearest_others(_clustered(100), 3)


def _embeddings(values: np.ndarray, hashes: list[int], prefix: str = "") -> Embeddings:
    return Embeddings(
        values=values.astype(np.float32),
        images=tuple(
            CatalogImage(Path(f"{prefix}{i}.png"), f"{prefix}{i}.png") for i in range(len(values))
        ),
        sha256s=tuple(f"{value}" for value in hashes),
        recipe=make_recipe("resnet18", "cpu", RecipeOptions(weights="random")),
        device="cpu (drawn)",
        extraction_secs=0.0,
        records={"perceptual_hash": np.array(hashes, dtype=np.uint64)},
    )


RANDOM_HASHES = [int(its) for its in np.random.default_rng(3).integers(0, 2**63, 5)]


def test_similar_images_are_ranked_copies_first() -> None:
    """An inverted copy, whose embedding is far, would be lost among what merely looks alike."""
    values = np.array([[1, 0], [9, 1], [0, 1], [1, 1], [-1, 0.1]])
    inverted = RANDOM_HASHES[0] ^ (2**64 - 1)
    collection = _embeddings(values, [*RANDOM_HASHES[1:], inverted], "c")
    query = _embeddings(np.array([[1, 0.0], [0, 3]]), RANDOM_HASHES[:2], "q")
    found = find_similar(query, collection, 3)
    assert [(its.query.name, its.rank, its.image.name) for its in found] == [
        ("q0.png", 1, "c4.png"),
        ("q0.png", 2, "c0.png"),
        ("q0.png", 3, "c1.png"),
        ("q1.png", 1, "c0.png"),
        ("q1.png", 2, "c2.png"),
        ("q1.png", 3, "c3.png"),
    ]
    assert found[0].hash_distance == 0
    assert found[0].cosine == pytest.approx(-1 / np.hypot(1, 0.1), abs=1e-6)
    assert [its.same_image for its in found] == [False, False, False, True, False, False]


def test_similar_images_of_another_recipe_are_refused() -> None:
    """Cosines between two backbones would be taken for likeness."""
    query = _embeddings(np.ones((1, 2)), [1])
    other = make_recipe("resnet18", "cpu", RecipeOptions(weights="random", weights_seed=1))
    collection = Embeddings(**{**vars(query), "recipe": other})
    with pytest.raises(UsageError, match=r"one recipe. Received: .*weights"):
        find_similar(query, collection, 1)


def test_the_table_of_similar_images_keeps_any_name(tmp_path: Path) -> None:
    """A name that begins like a formula would run in a spreadsheet, or come back changed."""
    name = '=1+1,\n\udcff".png'
    query = _embeddings(np.ones((1, 2)), [1])
    collection = Embeddings(**{**vars(query), "images": (CatalogImage(Path("a") / name, name),)})
    write_similar(find_similar(query, collection, 1), tmp_path / "similar.csv")
    columns, (row,) = read_table(tmp_path / "similar.csv")
    assert columns == list(SIMILAR_COLUMNS)
    assert row[:4] == ["0.png", "1", name, f"a/{name}"]
    assert row[4:] == ["", "1.000000", "0", "True"]
