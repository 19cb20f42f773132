"""Sources: how heads do on images from an instrument, laboratory or date they never saw."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.heads.metrics import Probabilities, Scores, Targets, score_out_of_fold
from gelkit.heads.splits import Folds
from gelkit.images.catalog import Catalog
from gelkit.text import counted

logger = logging.getLogger(__name__)

_SHOWN_NAMES = 5

MIN_GROUPS = 10
"""A source is held out if it has as many groups, and the others together, too: of ten that are all
classified right, the 95% interval still reaches down to 0.72 (Wilson 1927)."""

UNKNOWN_ELSEWHERE = (
    "Accuracy on other imagers is unknown: no sources were given. Name each image's instrument, "
    "laboratory or date in the manifest's column 'source' or with --source-regex."
)
"""What the summary says of a data set without sources."""

NONE_HELD_OUT = (
    "Accuracy on other imagers is unknown: sources were given, but none of them could be held out, "
    f"as a warning of gelkit heads says. Each needs {MIN_GROUPS} groups, and all classes elsewhere."
)
"""What the summary says where no source can be held out."""


@dataclass(frozen=True)
class Source:
    """The images of one source."""

    name: str
    count: int
    classes: tuple[str, ...]
    """The classes that it has images of."""
    num_training: int
    """The images that train while it is held out."""


@dataclass(frozen=True)
class SourceSplits:
    """Splits that hold out each source once."""

    kept: npt.NDArray[np.intp]
    """The images that take part, in order; :func:`split_by_source` says which do not."""
    folds: Folds
    """(1 x kept images): fold k is ``sources[k]``; of sources that cannot be held out
    :data:`gelkit.heads.splits.TRAINS_ALWAYS`."""
    sources: tuple[Source, ...]
    """Those that are held out, sorted by name."""
    skipped: Mapping[str, str]
    """Sources that cannot be held out, and why: too few groups, or a class that only they have."""
    without_source: int
    """Images left out because they have no source."""
    separated: int
    """Images left out because others of their group are from another source."""


def read_sources(names: Sequence[str], pattern: str) -> tuple[str | None, ...]:
    """Return the source of each image: what the pattern's first group captures in its name.

    The pattern may match anywhere in the name. Where it does not, or captures nothing, there is no
    source.

    :raises UsageError: the pattern is no regular expression, has no group, or matches no name.
    """
    expression = _compiled(pattern)
    matches = [expression.search(name) for name in names]
    sources = tuple(match.group(1) or None if match else None for match in matches)
    if not any(sources):
        raise UsageError(
            f"Expected --source-regex to find a source in the images' names, such as {names[0]!r}. "
            f"Received: {pattern!r}, which finds none in {len(names)} names. Names are paths below "
            "the data's folder, with '/'."
        )
    return sources


def with_sources(catalog: Catalog, pattern: str | None) -> Catalog:
    """Return a catalog whose images have the sources that a pattern finds, if there is one.

    Images whose names it does not match are logged as a warning, and have no source.

    :raises UsageError: as of :func:`read_sources`.
    """
    if pattern is None:
        return catalog
    names = [image.name for image in catalog.images]
    sources = read_sources(names, pattern)
    unmatched = without_source(names, sources)
    if unmatched:
        logger.warning(
            "--source-regex finds no source in %d of %d names: %s",
            len(unmatched),
            len(names),
            _shortened(unmatched),
        )
    images = zip(catalog.images, sources, strict=True)
    return replace(catalog, images=tuple(replace(i, source=source) for i, source in images))


def without_source(names: Sequence[str], sources: Sequence[str | None]) -> tuple[str, ...]:
    """Return the names of the images that have no source, in their order."""
    return tuple(name for name, source in zip(names, sources, strict=True) if source is None)


def split_by_source(
    sources: Sequence[str | None],
    targets: Targets,
    groups: npt.NDArray[np.int64],
    classes: Sequence[str],
    min_groups: int = MIN_GROUPS,
) -> SourceSplits:
    """Make splits that hold out each source once and train on the others.

    Images without a source are left out: they might come from the one that is held out. Of a group
    that spans sources only the images from one source are kept, from the source with most of them
    (if several have, from the one that has the fewest images so far), so that a gel recorded on two
    imagers is never trained on and predicted. A source that alone has a class cannot be held out,
    nor can one of which too little could be said; their images train always.

    :param targets: class numbers, (images,), into ``classes``.
    :param groups: (images,).
    :param min_groups: a source needs as many to be held out, and so do the others together.
    :raises UsageError: fewer than two sources, or none that can be held out.
    """
    texts = np.array([source or "" for source in sources])
    kept = np.flatnonzero(_own(texts, targets, groups))
    missing = _missing_classes(_require_two(texts, kept), texts[kept], targets[kept], classes)
    skipped = {
        name: f"alone has class {classes[numbers[0]]!r}"
        for name, numbers in missing.items()
        if numbers
    }
    few = _with_few_groups(list(missing), texts[kept], groups[kept], min_groups)
    skipped = {name: few.get(name) or skipped[name] for name in missing if name in few | skipped}
    held_out = [name for name in missing if name not in skipped]
    if not held_out:
        raise UsageError(
            f"Expected a source with {min_groups} groups or more, and as many elsewhere, without "
            f"which every class can still be trained. Received: {_listed(skipped)}. Add images of "
            "these sources or, of their classes, from others."
        )
    return SourceSplits(
        kept=kept,
        folds=_folds(texts[kept], held_out),
        sources=tuple(_source(name, texts[kept], targets[kept], classes) for name in held_out),
        skipped=skipped,
        without_source=int(np.sum(texts == "")),
        separated=int(np.sum(texts != "")) - len(kept),
    )


@dataclass(frozen=True)
class SourceScores:
    """How well the images of sources that took no part in training were classified."""

    accuracies: Mapping[str, float]
    """By source; of a source with one class, the recall of that class."""
    pooled: Scores
    """Over all images that were held out; ROC AUC counts pairs of the same source."""

    @property
    def macro_accuracy(self) -> float:
        """The mean over the sources, each counting alike."""
        return float(np.mean(list(self.accuracies.values())))

    @property
    def worst(self) -> str:
        """The source with the lowest accuracy, the first of several."""
        return min(self.accuracies, key=lambda name: self.accuracies[name])


def score_sources(
    targets: Targets, probabilities: Probabilities, splits: SourceSplits
) -> SourceScores:
    """Score predictions of held-out sources.

    :param targets: class numbers of the kept images, (kept images,).
    :param probabilities: (1 x kept images x classes), predicted on ``splits.folds``.
    """
    folds = splits.folds[0]
    right = probabilities[0].argmax(axis=1) == targets
    accuracies = {
        source.name: float(right[folds == fold].mean())
        for fold, source in enumerate(splits.sources)
    }
    tested = folds >= 0
    pooled = score_out_of_fold(targets[tested], probabilities[:, tested], splits.folds[:, tested])
    return SourceScores(accuracies, pooled)


def source_sentences(splits: SourceSplits, scores: SourceScores, accuracy: float) -> list[str]:
    """Say how the best does on sources that it never saw, and what took no part in that.

    :param accuracy: its cross-validated accuracy, images of all sources in training.
    """
    sentences = [_said_of_held_out(splits, scores, accuracy)]
    if splits.skipped:
        sentences.append(
            f"Never held out, as nothing could be said of them: {_listed(splits.skipped)}. A "
            f"source needs {MIN_GROUPS} groups, and other sources with its classes."
        )
    if splits.without_source:
        sentences.append(
            f"{splits.without_source} images without a source took no part in this. Complete the "
            "column 'source' or --source-regex."
        )
    if splits.separated:
        sentences.append(
            f"{splits.separated} images took no part in this, because others of their group are "
            "from another source."
        )
    return sentences


def _said_of_held_out(splits: SourceSplits, scores: SourceScores, accuracy: float) -> str:
    """Say how the best does without a source; of one source there is no mean and no worst."""
    first, *others = splits.sources
    if not others:
        return (
            f"Trained without the source {first.name!r} ({first.num_training} images) and tested "
            f"on it ({first.count}), the best has an accuracy of {scores.macro_accuracy:.2f}, "
            f"beside {accuracy:.2f} where all sources are in training. One source says little of "
            "another."
        )
    worst = next(source for source in splits.sources if source.name == scores.worst)
    tested = [f"{its.name!r} {its.count} ({its.num_training})" for its in splits.sources]
    return (
        f"Trained without a source and tested on it, the best has an accuracy of "
        f"{scores.macro_accuracy:.2f} as a mean over {len(splits.sources)} sources, and "
        f"{scores.accuracies[worst.name]:.2f} on the worst ({worst.name!r}), beside {accuracy:.2f} "
        "where all sources are in training: expect the former on another imager. Images that test "
        f"each source (and train without it): {_shortened(tested)}."
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"Expected --source-regex to be a regular expression. Received: {pattern!r} ({error})."
        ) from error
    if expression.groups == 0:
        raise UsageError(
            "Expected --source-regex to have a group in parentheses that captures the source. "
            f"Received: {pattern!r}. Write for example '/([^_/]+)_[^/]*$'."
        )
    return expression


def _own(
    sources: npt.NDArray[np.str_], targets: Targets, groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which images are from the source that their group is kept for, (images,)."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    label: dict[int, int] = {}
    for i in np.flatnonzero(sources != ""):
        counts[groups[i]][sources[i]] += 1
        label[groups[i]] = targets[i]
    owner: dict[int, str] = {}
    taken: Counter[tuple[int, str]] = Counter()
    for group in sorted(counts, key=lambda group: len(counts[group])):
        most = counts[group].most_common(1)[0][1]
        candidates = sorted(name for name, count in counts[group].items() if count == most)
        owner[group] = min(candidates, key=lambda name: taken[label[group], name])
        taken[label[group], owner[group]] += most
    pairs = zip(sources.tolist(), groups.tolist(), strict=True)
    return np.array([source != "" and owner[group] == source for source, group in pairs])


def _require_two(sources: npt.NDArray[np.str_], kept: npt.NDArray[np.intp]) -> list[str]:
    """Return the names of the sources that are left."""
    left: list[str] = np.unique(sources[kept]).tolist()
    if len(left) < 2:
        lost = set(sources.tolist()) - {"", *left}
        raise UsageError(
            "Expected images from at least 2 sources, to hold out one and train on the other. "
            f"Received: {', '.join(map(repr, left)) or 'none'}"
            f"{', since groups span sources' if lost else ''}. Name each image's source in the "
            "manifest's column 'source' or with --source-regex."
        )
    return left


def _missing_classes(
    names: Sequence[str], sources: npt.NDArray[np.str_], targets: Targets, classes: Sequence[str]
) -> dict[str, list[int]]:
    """Return the classes that no image trains when a source is held out, by its name."""
    everything = set(range(len(classes)))
    return {name: sorted(everything - set(targets[sources != name].tolist())) for name in names}


def _with_few_groups(
    names: Sequence[str],
    sources: npt.NDArray[np.str_],
    groups: npt.NDArray[np.int64],
    min_groups: int,
) -> dict[str, str]:
    """Return the sources that have too few groups, or leave the others too few, and how many."""
    counts = {name: len(np.unique(groups[sources == name])) for name in names}
    elsewhere = {name: len(np.unique(groups[sources != name])) for name in names}
    return {
        name: counted(counts[name], "group")
        if counts[name] < min_groups
        else f"{counted(elsewhere[name], 'group')} elsewhere"
        for name in names
        if min(counts[name], elsewhere[name]) < min_groups
    }


def _folds(sources: npt.NDArray[np.str_], held_out: Sequence[str]) -> Folds:
    numbers = {name: number for number, name in enumerate(held_out)}
    return np.array([[numbers.get(name, -1) for name in sources.tolist()]], dtype=np.int64)


def _source(
    name: str, sources: npt.NDArray[np.str_], targets: Targets, classes: Sequence[str]
) -> Source:
    mine = targets[sources == name]
    present = tuple(classes[number] for number in np.unique(mine))
    return Source(name, len(mine), present, len(targets) - len(mine))


def _listed(skipped: Mapping[str, str]) -> str:
    return _shortened([f"{name!r} ({reason})" for name, reason in skipped.items()])


def _shortened(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN_NAMES
    return ", ".join(words[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
