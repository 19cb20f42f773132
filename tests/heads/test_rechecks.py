"""Rechecks: a person is pointed to the labels that are likely wrong, and not to the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gelkit.heads.rechecks import find_rechecks, write_rechecks
from gelkit.tables import read_table

Probabilities = npt.NDArray[np.float64]


def _once(*of_second_class: float) -> Probabilities:
    """Return one prediction of each image by one configuration, by the probability of class 1."""
    second = np.array(of_second_class)
    return np.stack([1 - second, second], axis=-1)[np.newaxis, np.newaxis]


@st.composite
def _judged(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], Probabilities]:
    classes = draw(st.integers(2, 4))
    images = draw(st.integers(classes, 12))
    rest = draw(arrays(np.int64, images - classes, elements=st.integers(0, classes - 1)))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), images, classes)
    scores = draw(arrays(np.float64, shape, elements=st.floats(0.01, 1)))
    return np.concatenate([np.arange(classes), rest]), scores / scores.sum(axis=-1, keepdims=True)


def test_an_image_under_the_wrong_label_is_named_with_what_it_looks_like() -> None:
    """A user would not find the mistake, or be sent to images that are right."""
    targets = np.array([0, 0, 0, 1, 1, 1])
    found = find_rechecks(targets, _once(0.1, 0.2, 0.9, 0.8, 0.9, 0.7))
    assert [its.position for its in found] == [2]
    assert (found[0].label, found[0].suggested) == (0, 1)
    assert found[0].probability_of_label == pytest.approx(0.1)
    assert found[0].probability_of_suggested == pytest.approx(0.9)
    assert found[0].disagreeing == 1


def test_a_head_that_prefers_a_class_does_not_accuse_its_neighbours() -> None:
    """Where one class is overpredicted, all images of the other would be called mislabelled."""
    targets = np.array([0, 0, 0, 1, 1, 1])
    probabilities = _once(0.55, 0.6, 0.58, 0.95, 0.9, 0.93)
    assert (probabilities.argmax(axis=-1) != targets).sum() == 3
    assert find_rechecks(targets, probabilities) == ()


def test_the_least_likely_label_comes_first() -> None:
    """A user who looks at a few would miss the clearest mistakes."""
    targets = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    found = find_rechecks(targets, _once(0.1, 0.1, 0.8, 0.99, 0.9, 0.7, 0.7, 0.7))
    assert [its.position for its in found] == [3, 4, 2]


def test_all_repeats_and_configurations_are_asked() -> None:
    """One unlucky split would decide what is called a mistake."""
    targets = np.array([0, 0, 0, 1, 1, 1])
    calm, unlucky = _once(0.1, 0.2, 0.1, 0.7, 0.7, 0.7), _once(0.1, 0.2, 0.95, 0.7, 0.7, 0.7)
    mostly_calm = np.concatenate([unlucky, calm, calm, calm], axis=1)
    assert find_rechecks(targets, mostly_calm) == ()
    mostly_unlucky = np.concatenate([unlucky, unlucky, unlucky, calm], axis=1)
    (found,) = find_rechecks(targets, mostly_unlucky)
    assert (found.position, found.disagreeing) == (2, 0.75)
    configurations_for_repeats = mostly_unlucky.transpose(1, 0, 2, 3)
    assert find_rechecks(targets, configurations_for_repeats) == (found,)


@given(_judged(), st.integers(0, 2**32 - 1))
def test_what_is_doubted_does_not_depend_on_the_order_of_images(
    judged: tuple[npt.NDArray[np.int64], Probabilities], seed: int
) -> None:
    """Another order of the files would give another list."""
    targets, probabilities = judged
    order = np.random.default_rng(seed).permutation(len(targets))
    before = {its.position for its in find_rechecks(targets, probabilities)}
    after = find_rechecks(targets[order], probabilities[:, :, order])
    assert {int(order[its.position]) for its in after} == before


@given(_judged())
def test_what_is_doubted_has_another_label_than_the_one_suggested(
    judged: tuple[npt.NDArray[np.int64], Probabilities],
) -> None:
    """The list would tell someone to change a label into itself."""
    targets, probabilities = judged
    for its in find_rechecks(targets, probabilities):
        assert its.label == targets[its.position] != its.suggested
        assert its.probability_of_suggested <= 1
        assert 0 <= its.disagreeing <= 1


def test_the_table_names_files_and_classes(tmp_path: Path) -> None:
    """A user could not find the files that are to be looked at."""
    found = find_rechecks(np.array([0, 0, 1, 1]), _once(0.25, 0.875, 0.75, 0.875))
    paths = ["a.png", "=b\n.png", "c.png", "d.png"]
    write_rechecks(found, paths, list("1234"), ("gel", "0x1"), tmp_path / "recheck.csv")
    columns, rows = read_table(tmp_path / "recheck.csv")
    assert dict(zip(columns, rows[0], strict=True)) == {
        "path": "=b\n.png",
        "sha256": "2",
        "label": "gel",
        "suggested": "0x1",
        "probability_of_label": "0.125",
        "probability_of_suggested": "0.875",
        "disagreeing": "1.0",
    }
    assert len(rows) == 1
