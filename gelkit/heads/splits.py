"""Splits: which images train and which are predicted, the same for all configurations."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings

Folds = npt.NDArray[np.int64]
"""(repeats x images): the fold that predicts the image; it trains in all others of the repeat."""


def group_images(embeddings: Embeddings) -> npt.NDArray[np.int64]:
    """Return the group of each image, (images,), numbered from 0.

    Images belong to one group if their bytes are equal or if the user's catalog says so; both
    together are transitive.

    :raises UsageError: images of equal bytes have different labels.
    """
    _require_one_label(embeddings)
    keys = [
        [f"bytes {digest}", *([f"group {image.group}"] if image.group is not None else [])]
        for digest, image in zip(embeddings.sha256s, embeddings.images, strict=True)
    ]
    return _connected(keys)


def make_splits(
    targets: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    classes: Sequence[str],
    *,
    folds: int = 5,
    repeats: int = 5,
    seed: int = 0,
) -> Folds:
    """Split images for repeated cross-validation, stratified by class, groups kept together.

    :raises UsageError: a class has fewer groups than there are folds, or the seed is out of range.
    """
    if folds < 2 or repeats < 1:
        raise UsageError(
            f"Expected at least 2 folds and 1 repeat. Received: {folds} and {repeats}."
        )
    _require_enough(targets, groups, classes, folds)
    seeds = [derived_seed(seed, repeat) for repeat in range(repeats)]
    return np.stack([_split_once(targets, groups, folds, its_seed) for its_seed in seeds])


def derived_seed(seed: int, *place: int) -> int:
    """Return a seed of its own, 0 to 2**32 - 1, for each place that one seed is used in.

    Neighbouring seeds share none, as they would if places were added to them.

    :param place: such as the repeat, or the repeat and the fold.
    :raises UsageError: the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"Expected a seed from 0 to {2**32 - 1}. Received: {seed}.")
    return int(np.random.SeedSequence(seed, spawn_key=place).generate_state(1)[0])


def splits_fingerprint(splits: Folds, names: Iterable[str]) -> str:
    """Return the SHA-256 over the images' identities and their folds."""
    digest = sha256("\n".join(names).encode())
    digest.update(np.ascontiguousarray(splits.astype("<i8")).data)
    return digest.hexdigest()


def _require_one_label(embeddings: Embeddings) -> None:
    first: dict[str, int] = {}
    for i, digest in enumerate(embeddings.sha256s):
        j = first.setdefault(digest, i)
        if embeddings.labels[i] != embeddings.labels[j]:
            raise UsageError(
                "Expected one label for images whose bytes are equal. Received: "
                f"{str(embeddings.images[j].path)!r} as {embeddings.labels[j]!r} and "
                f"{str(embeddings.images[i].path)!r} as {embeddings.labels[i]!r}. "
                "Decide which is right and remove the other."
            )


def _connected(keys: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    """Number the connected components of images that share a key (union-find)."""
    parents = list(range(len(keys)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    owner: dict[str, int] = {}
    for i, image_keys in enumerate(keys):
        for key in image_keys:
            parents[root(i)] = root(owner.setdefault(key, i))
    _, numbers = np.unique([root(i) for i in range(len(keys))], return_inverse=True)
    return numbers.astype(np.int64)


def _require_enough(
    targets: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    classes: Sequence[str],
    folds: int,
) -> None:
    for number, name in enumerate(classes):
        available = len(np.unique(groups[targets == number]))
        if available < folds:
            raise UsageError(
                f"Expected at least {folds} distinct images or groups in each class, one for each "
                f"fold. Received: {available} in {name!r}. Add images, or use "
                f"--folds {max(2, available)}."
            )


def _split_once(
    targets: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], folds: int, seed: int
) -> npt.NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    assigned = np.full(len(targets), -1, dtype=np.int64)
    with warnings.catch_warnings():
        # it counts images where _require_enough has counted groups, the stricter of the two
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(targets, targets, groups)):
            assigned[held_out] = fold
    _require_sound(assigned, targets, groups, folds)
    return assigned


def _require_sound(
    assigned: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    folds: int,
) -> None:
    """Check what came from elsewhere: all honesty rests on it."""
    for group in np.unique(groups):
        if len(np.unique(assigned[groups == group])) != 1:
            raise AssertionError(f"group {group} was separated by a split")
    for fold in range(folds):
        if len(np.unique(targets[assigned != fold])) != len(np.unique(targets)):
            raise UsageError(
                "Expected every class among the training images of each fold. Received: groups so "
                "large that one fold would hold a whole class. Use fewer folds or finer groups."
            )
