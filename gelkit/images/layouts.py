"""Layouts: folders for training and testing above the folders of the classes.

``train/good/a.png`` beside ``test/good/b.png`` is how many collections are handed on. The folders
of the classes are then one level deeper, and what is in ``test`` is the held-out test set, as a
manifest's column ``split`` would say. Validation images train: cross-validation chooses without
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gelkit.images.spellings import spelling_key

_TRAINING = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation")

SPLIT_FOLDERS: Mapping[str, str] = {
    **dict.fromkeys(_TRAINING + _VALIDATION, "train"),
    **dict.fromkeys(_TEST, "test"),
}
"""The split of what is in a folder, by its name in lower case."""

_ROLES: Mapping[str, str] = {
    **dict.fromkeys(_TRAINING, "trains"),
    **dict.fromkeys(_TEST, "is held out for gelkit evaluate"),
    **dict.fromkeys(_VALIDATION, "trains, too: cross-validation needs no validation set"),
}

_MANIFEST = "give a CSV manifest with the columns path, label and split"


@dataclass(frozen=True)
class Layout:
    """How the first folder in the names of images is to be read."""

    splits: Mapping[str, str]
    """The split of each first folder; empty: the first folders are the classes."""
    remark: str = ""
    """What a person should know of that."""

    def label(self, name: str) -> str | None:
        """Return the folder that names an image's class, if it is in one."""
        folders = name.split("/")[:-1]
        return next(iter(folders[1:] if self.splits else folders), None)

    def split(self, name: str) -> str:
        """Return an image's split."""
        return self.splits.get(name.partition("/")[0], "train")


def find_layout(data: str, names: Sequence[str]) -> Layout:
    """Tell whether the first folders of images are splits or classes.

    They are splits if all are called so, one is for training, and it shares classes with another.

    :param data: what the data are called, for messages.
    :param names: paths below the data's folder, with ``/``.
    """
    folders = _classes_of(names)
    splits = {
        name: SPLIT_FOLDERS[name.lower()] for name in folders if name.lower() in SPLIT_FOLDERS
    }
    training = {name for name in splits if name.lower() in _TRAINING}
    if not training or training == splits.keys():
        return Layout({})
    trained = set().union(*(folders[name] for name in training))
    others = set().union(*(folders[name] for name in splits.keys() - training))
    if len(splits) < len(folders) or not trained & others:
        return Layout({}, _read_as_classes(data, splits))
    return Layout(splits, _read_as_splits(data, splits, names, sorted(others - trained)))


def _classes_of(names: Sequence[str]) -> dict[str, set[str]]:
    """Return the first folders, and the folders right in each, however these are spelled."""
    classes: dict[str, set[str]] = {}
    for name in names:
        first, *folders = name.split("/")[:-1] or [""]
        if first:
            classes.setdefault(first, set()).update(map(spelling_key, folders[:1]))
    return classes


def _read_as_classes(data: str, splits: Iterable[str]) -> str:
    return (
        f"the folders {_named(splits)} of {data!r} are read as classes, since there are others "
        f"beside them or they share no folders of classes. If they are splits, {_MANIFEST}"
    )


def _read_as_splits(
    data: str, splits: Mapping[str, str], names: Sequence[str], only_there: Sequence[str]
) -> str:
    counts = Counter(name.partition("/")[0] for name in names)
    says = [f"{name!r} ({counts[name]} images) {_ROLES[name.lower()]}" for name in splits]
    if only_there:
        says.append(f"{_named(only_there)} is in none of the folders for training")
    return (
        f"the folders of {data!r} are read as splits, and those in them as classes: "
        f"{'; '.join(says)}. If they are not, {_MANIFEST}"
    )


def _named(folders: Iterable[str]) -> str:
    return ", ".join(map(repr, folders))
