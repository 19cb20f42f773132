"""Sources: each is held out once, nothing of it trains, and who cannot be is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.heads.probes import cross_validate
from gelkit.heads.sources import (
    MIN_GROUPS,
    SourceSplits,
    read_sources,
    score_sources,
    source_sentences,
    split_by_source,
    without_source,
)

CLASSES = ("gel", "other")


def _split(
    sources: Sequence[str | None],
    targets: Sequence[int],
    groups: Sequence[int] | None = None,
    min_groups: int = 1,
) -> SourceSplits:
    numbers = np.arange(len(targets)) if groups is None else np.array(groups)
    return split_by_source(sources, np.array(targets), numbers, CLASSES, min_groups)


@pytest.mark.parametrize(
    ("pattern", "sources"),
    [
        (r"^([^/]+)/", ("labA", "labA", "labB")),
        (r"(\d{4})", ("2021", None, "2023")),
        (r"_(x)?", (None, "x", None)),
        (r"_(\d*)", ("2021", None, "2023")),
        (r"(?:lab)(.)/(.)", ("A", "A", "B")),
    ],
    ids=["folder", "not in every name", "optional group", "empty capture", "first of two groups"],
)
def test_the_first_group_of_the_pattern_is_the_source(
    pattern: str, sources: tuple[str | None, ...]
) -> None:
    """Images would be taken for another instrument's, or several instruments for one."""
    names = ("labA/gel_2021.png", "labA/gel_x.png", "labB/gel_2023.png")
    found = read_sources(names, pattern)
    assert found == sources
    expected = tuple(n for n, source in zip(names, sources, strict=True) if source is None)
    assert without_source(names, found) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(lab", "to be a regular expression. Received: '\\(lab' \\(missing \\)"),
        ("lab.", "to have a group in parentheses that captures the source. Received: 'lab.'"),
        ("(zzz)", "such as 'a/1.png'. Received: '\\(zzz\\)', which finds none in 1 names"),
    ],
    ids=["no regular expression", "no group", "no match"],
)
def test_a_pattern_that_names_no_source_is_refused(pattern: str, message: str) -> None:
    """A typing error would end as a data set without sources."""
    with pytest.raises(UsageError, match=message):
        read_sources(["a/1.png"], pattern)


def test_each_source_is_held_out_once() -> None:
    """A source would be scored by heads that have seen it."""
    splits = _split(["b", "a", "b", "a", "c", "c"], [0, 0, 1, 1, 0, 0])
    assert splits.kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.folds.tolist() == [[1, 0, 1, 0, 2, 2]]
    assert [source.name for source in splits.sources] == ["a", "b", "c"]
    assert [source.count for source in splits.sources] == [2, 2, 2]
    assert [source.classes for source in splits.sources] == [CLASSES, CLASSES, ("gel",)]
    assert (splits.skipped, splits.without_source, splits.separated) == ({}, 0, 0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 7)),
        min_size=6,
        max_size=40,
    )
)
def test_nothing_of_a_source_or_its_groups_trains_while_it_is_held_out(
    images: list[tuple[str | None, int]],
) -> None:
    """A copy of a test image, or a class that was never trained, would decide a source's score."""
    sources = [source for source, _ in images]
    groups = np.array([group for _, group in images])
    targets = groups % 2
    try:
        splits = split_by_source(sources, targets, groups, CLASSES)
    except UsageError:
        return
    folds, kept = splits.folds[0], splits.kept
    assert None not in {sources[i] for i in kept}
    assert len(kept) + splits.without_source + splits.separated == len(images)
    assert splits.without_source == sources.count(None)
    for fold, source in enumerate(splits.sources):
        held_out = {i for i, its_fold in zip(kept, folds, strict=True) if its_fold == fold}
        training = set(kept) - held_out
        assert held_out == {i for i in kept if sources[i] == source.name}
        assert {groups[i] for i in held_out}.isdisjoint(groups[i] for i in training)
        assert {targets[i] for i in training} == {0, 1}
        assert source.count == len(held_out)
    for i, fold in zip(kept, folds, strict=True):
        assert (fold == -1) == (sources[i] in splits.skipped)
    assert {groups[i] for i in kept} == {g for s, g in images if s is not None}


def test_a_class_that_one_source_alone_has_always_trains() -> None:
    """Heads would be blamed for a class that they were never shown."""
    splits = _split(["a", "a", "b", "b", "c"], [0, 1, 0, 0, 0])
    assert splits.skipped == {"a": "alone has class 'other'"}
    assert [source.name for source in splits.sources] == ["b", "c"]
    assert splits.folds.tolist() == [[-1, -1, 0, 0, 1]]


def test_a_group_is_kept_for_the_source_with_most_of_it() -> None:
    """A gel recorded on two imagers would be trained on and predicted."""
    splits = _split(["a", "b", "b", "a", "a", "b"], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 2])
    assert splits.kept.tolist() == [1, 2, 3, 4, 5]
    assert splits.separated == 1


@pytest.mark.parametrize("targets", [[0, 0, 1, 1] * 4, [0] * 8 + [1] * 8], ids=["mixed", "sorted"])
def test_gels_that_were_all_recorded_twice_are_shared_out(targets: list[int]) -> None:
    """One imager would be left without images, or a class, and nothing could be said of it."""
    splits = _split(["a", "b"] * 8, targets, np.repeat(np.arange(8), 2).tolist())
    assert [source.count for source in splits.sources] == [4, 4]
    assert [source.classes for source in splits.sources] == [CLASSES, CLASSES]
    assert splits.separated == 8


@pytest.mark.parametrize(
    ("sources", "targets", "groups", "message"),
    [
        ([None, None], [0, 1], [0, 1], "at least 2 sources.*Received: none\\. Name"),
        (["a", "a"], [0, 1], [0, 1], "Received: 'a'\\. Name"),
        (["a", "b", "b"], [0, 0, 0], [0, 0, 0], "Received: 'b', since groups span sources\\. Name"),
        (
            ["a", "b"],
            [0, 1],
            [0, 1],
            "'a' \\(alone has class 'gel'\\), 'b' \\(alone has class 'other'\\)",
        ),
        (
            ["a", "b", None],
            [0, 0, 1],
            [0, 1, 2],
            "'a' \\(alone has class 'other'\\), 'b' \\(alone has",
        ),
    ],
    ids=["none", "one", "one, groups apart", "a class each", "a class without a source"],
)
def test_sources_that_cannot_be_held_out_are_refused(
    sources: list[str | None], targets: list[int], groups: list[int], message: str
) -> None:
    """A score would be made of nothing."""
    with pytest.raises(UsageError, match=message):
        _split(sources, targets, groups)


def _predicted(splits: SourceSplits, classes: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return probabilities of .8 for these classes, NaN where nothing is predicted."""
    probabilities = np.where(np.eye(2)[list(classes)] == 1, 0.8, 0.2).astype(np.float32)
    return np.where(splits.folds[0][:, np.newaxis] >= 0, probabilities, np.nan)[np.newaxis]


def test_sources_count_alike_however_many_images_they_have() -> None:
    """The largest source would hide how bad the others are."""
    splits = _split(["a"] * 6 + ["b"] * 2, [0, 1] * 4)
    scores = score_sources(np.array([0, 1] * 4), _predicted(splits, [0, 1] * 3 + [0, 0]), splits)
    assert scores.accuracies == {"a": 1.0, "b": 0.5}
    assert scores.macro_accuracy == 0.75
    assert scores.worst == "b"
    assert scores.pooled.accuracy == pytest.approx(7 / 8)


def test_images_that_always_train_are_not_scored() -> None:
    """What was never predicted would count as right or wrong."""
    targets = np.array([0, 1, 0, 0, 0])
    splits = _split(["a", "a", "b", "b", "c"], targets.tolist())
    scores = score_sources(targets, _predicted(splits, [1, 0, 0, 1, 0]), splits)
    assert scores.accuracies == {"b": 0.5, "c": 1.0}
    assert scores.pooled.accuracy == pytest.approx(2 / 3)


def test_a_brightness_that_goes_with_the_source_does_not_pass_for_knowledge() -> None:
    """What holds on one imager alone would be promised for another."""
    generator = np.random.default_rng(0)
    targets, is_b = np.arange(80) % 2, np.arange(80) >= 40
    sources = np.where(is_b, "b", "a").tolist()
    values = generator.normal(size=(80, 2)) * 0.3
    values[:, 0] += np.where(is_b, -1, 1) * (2 * targets - 1)  # the classes trade places
    splits = _split(sources, targets.tolist())
    scores = score_sources(targets, cross_validate(values, targets, splits.folds), splits)
    assert scores.macro_accuracy < 0.1


def test_the_summary_names_the_worst_source_and_who_took_no_part() -> None:
    """The reader would expect the cross-validated accuracy on another imager."""
    sources = ["a", "a", "b", "b", "c", "c", None, "b"]
    targets = np.array([0, 0, 0, 0, 0, 1, 1, 0])
    splits = _split(sources, targets.tolist(), [0, 1, 2, 3, 4, 5, 6, 0])
    kept = targets[splits.kept]
    scores = score_sources(kept, _predicted(splits, [0, 1, 0, 0, 0, 1]), splits)
    first, *others = source_sentences(splits, scores, 0.95)
    assert "0.75 as a mean over 2 sources, and 0.50 on the worst ('a'), beside 0.95" in first
    assert "(and train without it): 'a' 2 (4), 'b' 2 (4)." in first
    assert [sentence.split(":")[-1].split(".")[0].strip() for sentence in others] == [
        "'c' (alone has class 'other')",
        "1 images without a source took no part in this",
        "1 images took no part in this, because others of their group are from another source",
    ]


def test_nothing_is_said_of_a_handful_of_images() -> None:
    """One image of another imager would promise an accuracy of 1.00 there."""
    sources = ["a"] * 12 + ["b"] * 11 + ["c"] * 9 + ["d"]
    targets = np.arange(len(sources)) % 2
    splits = _split(sources, targets.tolist(), min_groups=MIN_GROUPS)
    assert [its.name for its in splits.sources] == ["a", "b"]
    assert splits.skipped == {"c": "9 groups", "d": "1 group"}
    assert set(splits.folds[0][23:]) == {-1}
    scores = score_sources(targets, _predicted(splits, targets.tolist()), splits)
    first, second = source_sentences(splits, scores, 0.9)
    assert "1.00 as a mean over 2 sources" in first
    assert "(and train without it): 'a' 12 (21), 'b' 11 (22)." in first
    assert (
        "nothing could be said of them: 'c' (9 groups), 'd' (1 group). A source needs 10" in second
    )


def test_copies_of_one_gel_do_not_make_a_source() -> None:
    """Ten photographs of one gel would count as ten."""
    groups = [*range(12), *range(12, 24), *([24, 25] * 6)]
    splits = _split(["a"] * 12 + ["b"] * 12 + ["c"] * 12, [0, 1] * 18, groups, MIN_GROUPS)
    assert splits.skipped == {"c": "2 groups"}


def test_a_single_source_is_no_mean() -> None:
    """A mean over 1 source, and the worst of 1, would be said of other imagers."""
    targets = np.array([0, 1] * 5 + [0] * 5 + [1] * 5)
    sources = ["a"] * 10 + ["b"] * 5 + ["c"] * 5
    splits = _split(sources, targets.tolist(), min_groups=MIN_GROUPS)
    scores = score_sources(targets, _predicted(splits, targets.tolist()), splits)
    first = source_sentences(splits, scores, 0.9)[0]
    assert "without the source 'a' (10 images) and tested on it (10), the best has" in first
    assert "mean" not in first


def test_too_few_images_elsewhere_are_told() -> None:
    """Heads that were trained on three images would be blamed."""
    with pytest.raises(UsageError, match=r"'a' \(3 groups elsewhere\), 'b' \(3 groups\)\. Add"):
        _split(["a"] * 12 + ["b"] * 3, [0, 1] * 7 + [0], min_groups=MIN_GROUPS)


def test_a_plain_data_set_gets_one_sentence() -> None:
    """The reader would look for a problem that is not there."""
    splits = _split(["a", "a", "b", "b"], [0, 1, 0, 1])
    scores = score_sources(np.array([0, 1, 0, 1]), _predicted(splits, [0, 1, 0, 1]), splits)
    assert len(source_sentences(splits, scores, 1.0)) == 1
