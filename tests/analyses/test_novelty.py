"""Novelty: images of another kind are noticed, and false alarms are as rare as stated."""

from __future__ import annotations

import numpy as np
import pytest

from gelkit.analyses import novelty as rule
from gelkit.analyses.novelty import FAR, Novelty, assess_novelty, nearest

WIDTH = 16


def _draw(
    generator: np.random.Generator, groups: int, copies: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Draw embeddings around two classes, and near-copies of each, and their groups."""
    centers = np.zeros((2, WIDTH))
    centers[0, 0] = centers[1, 1] = 8
    values = centers[np.arange(groups) % 2] + generator.normal(size=(groups, WIDTH))
    copied = values.repeat(copies, axis=0)
    copied += 0.01 * generator.normal(size=copied.shape)
    return copied.astype(np.float32), np.arange(groups).repeat(copies)


def _share_far(novelty: Novelty, values: np.ndarray, known: np.ndarray) -> float:
    return float((novelty.distances(values, known) > novelty.threshold).mean())


@pytest.mark.parametrize("copies", [1, 3], ids=["single", "copies"])
def test_false_alarms_are_as_rare_as_stated(copies: int) -> None:
    """Users would learn to ignore the warning, or it would never come."""
    generator = np.random.default_rng(0)
    alarms, measured = [], []
    for seed in range(60):
        known, groups = _draw(generator, 60, copies)
        novelty, far = assess_novelty(known, groups, seed=seed)
        alarms.append(_share_far(novelty, _draw(generator, 200)[0], known))
        measured.append(novelty.measured_false_alarms)
        assert far.mean() <= FAR
        assert 0 < novelty.expected_false_alarms <= FAR
    assert np.mean(alarms) == pytest.approx(FAR, abs=0.015)
    assert np.mean(measured) == pytest.approx(FAR, abs=0.02)


def _turned(known: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return values of usual length in other directions."""
    return generator.permuted(known, axis=1)


def _longer(known: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return values of usual direction, and three times the length."""
    return 3 * known


def _noise(known: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return 5 * generator.normal(size=known.shape)


@pytest.mark.parametrize("strange", [_turned, _longer, _noise])
def test_images_of_another_kind_are_far(strange) -> None:
    """A cat would be a gel, without a word."""
    generator = np.random.default_rng(1)
    known, groups = _draw(generator, 60)
    novelty, _ = assess_novelty(known, groups)
    new = strange(_draw(generator, 60)[0], generator).astype(np.float32)
    assert _share_far(novelty, new, known) > 0.85


def test_distances_are_those_to_the_nearest_image_of_another_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Near-copies would make every training image familiar, and any other one far."""
    monkeypatch.setattr(rule, "_CELLS_AT_ONCE", 64)  # several blocks
    generator = np.random.default_rng(2)
    known, groups = _draw(generator, 9, copies=2)
    shuffled = generator.permutation(len(known))
    known, groups = known[shuffled], groups[shuffled]
    lengths = np.linalg.norm(known, axis=1)
    angles = 1 - known @ known.T / np.outer(lengths, lengths)
    gaps = np.linalg.norm(known[:, np.newaxis] - known, axis=2)
    for matrix in (angles, gaps):
        matrix[groups[:, np.newaxis] == groups] = np.inf
    expected = [angles.min(axis=1), gaps.min(axis=1)]
    found = nearest(known, known, groups, own=groups)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    to_itself = nearest(known, known)
    np.testing.assert_allclose(to_itself, np.zeros_like(to_itself), atol=2e-2)


def test_a_few_groups_state_a_higher_rate() -> None:
    """Ten groups would promise one false alarm in twenty, which they cannot know."""
    known, groups = _draw(np.random.default_rng(3), 10)
    novelty, far = assess_novelty(known, groups)
    assert novelty.expected_false_alarms == pytest.approx(1 / 11)
    assert not far.any()


def test_two_groups_are_enough_to_go_on() -> None:
    """The smallest data sets would end in a traceback."""
    known, groups = _draw(np.random.default_rng(3), 2)
    novelty, _ = assess_novelty(known, groups)
    assert np.isfinite(novelty.threshold)
    assert np.isnan(novelty.measured_false_alarms)


def test_an_embedding_of_zeros_is_far() -> None:
    """A division by zero would make a blank image's distance NaN, and NaN is never far."""
    known, groups = _draw(np.random.default_rng(3), 30)
    novelty, _ = assess_novelty(known, groups)
    assert _share_far(novelty, np.zeros((1, WIDTH), np.float32), known) == 1
