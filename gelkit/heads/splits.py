"""Splits: which images train and which are predicted, the same for all configurations."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError

Folds = npt.NDArray[np.int64]
"""(repeats x images): the fold that predicts the image; it trains in all others of the repeat.

Two numbers are no folds: :data:`TRAINS_ALWAYS` and :data:`LEFT_OUT`.
"""

TRAINS_ALWAYS = -1
"""The image trains in every fold of the repeat, and none predicts it."""
LEFT_OUT = -2
"""The image takes no part in the repeat."""

_ATTEMPTS = 20


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
    """Split, and split again with another seed where a fold came out without some class."""
    for attempt in range(_ATTEMPTS):
        assigned = _assign(targets, groups, folds, derived_seed(seed, attempt))
        _require_whole_groups(assigned, groups)
        if _has_every_class(assigned, targets, folds):
            return assigned
    raise UsageError(
        f"Expected every class in each of {folds} folds. Received: {_ATTEMPTS} splits that left a "
        "class out of one, since its groups are few or large. Use fewer --folds, or finer groups."
    )


def _assign(
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
    return assigned


def _require_whole_groups(assigned: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> None:
    """Check what came from elsewhere: all honesty rests on it."""
    numbers, first, position = np.unique(groups, return_index=True, return_inverse=True)
    separated = numbers[np.unique(position[assigned != assigned[first][position]])]
    if len(separated) or assigned.min() < 0:
        raise AssertionError(f"groups were separated by a split, or not split at all: {separated}")


def _has_every_class(
    assigned: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], folds: int
) -> bool:
    """Whether each fold holds every class, so that the others train on every class too."""
    pairs = np.unique(np.stack([assigned, targets]), axis=1)
    return len(pairs.T) == folds * len(np.unique(targets))
