"""Approximate neighbours: for collections too large to compare every pair, through faiss.

An inverted file: embeddings are sorted into cells around centres (k-means), and each is compared
with those of the nearest cells alone (Jegou, Douze, Schmid, Product quantization for nearest
neighbor search, IEEE TPAMI 33 (2011) 117; without the quantization). Unlike a graph of neighbours
(HNSW) that threads build together, it finds the same at every run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gelkit.analyses.neighbors import Nearest, directions, to_cosines, to_levels
from gelkit.errors import UsageError
from gelkit.progress import Progress, reported, silent

CELLS_A_ROOT = 4
"""Cells, times the square root of the number of embeddings."""
SEARCHED_CELLS = 64

_BLOCK = 4096
_SEED = 1
_TRAINING_A_CELL = 64


def approximate_nearest_others(
    collection: npt.NDArray[np.float32],
    k: int,
    *,
    searched_cells: int = SEARCHED_CELLS,
    progress: Progress = silent,
) -> Nearest:
    """Find most of the ``k`` nearest others of each embedding of a collection.

    Takes memory for a copy of the collection. What a row lacks is -1, with a cosine of -1.

    :param collection: (images x width), at least two.
    :param searched_cells: more find more, and take longer in proportion.
    :raises UsageError: faiss is not installed; or values that are not finite.
    """
    index = _index(collection, searched_cells)
    k = min(k, len(collection) - 1)
    numbers = np.empty((len(collection), k), np.int64)
    cosines = np.empty((len(collection), k), np.float32)
    tops = range(0, len(collection), _BLOCK)
    for top in reported(tops, "search neighbours", len(tops), progress):
        rows = slice(top, top + _BLOCK)
        found, itself = index.search(directions(collection[rows]), k + 1)
        numbers[rows], cosines[rows] = _without_itself(itself, found, top)
    return Nearest(numbers, cosines)


def _index(collection: npt.NDArray[np.float32], searched_cells: int) -> Any:
    faiss = _faiss()
    count, width = collection.shape
    cells = min(count, round(CELLS_A_ROOT * math.sqrt(count)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.cp.min_points_per_centroid = 1  # small collections are no reason to warn
    index.nprobe = searched_cells
    index.train(directions(collection[_sample(count, cells * _TRAINING_A_CELL)]))
    for top in range(0, count, _BLOCK):
        index.add(directions(collection[top : top + _BLOCK]))
    return index


def _sample(count: int, wanted: int) -> npt.NDArray[np.int64]:
    chosen = np.random.default_rng(_SEED).permutation(count)[:wanted]
    return np.sort(chosen)


def _without_itself(
    numbers: npt.NDArray[np.int64], cosines: npt.NDArray[np.float32], top: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Drop each row's own number, or the last of its neighbours if that was not found."""
    rounded = np.where(numbers < 0, np.float32(-1), to_cosines(to_levels(cosines)))
    own = np.arange(top, top + len(numbers))[:, None]
    order = np.lexsort((numbers, -rounded, numbers == own), axis=1)[:, :-1]
    return np.take_along_axis(numbers, order, axis=1), np.take_along_axis(rounded, order, axis=1)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "Expected faiss, which finds neighbours among so many images. Received: an environment "
            "without it. Install gelkit's extra 'index': pip install 'gelkit[index]'"
        ) from error
    return faiss
