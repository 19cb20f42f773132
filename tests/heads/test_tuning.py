"""Tuning: the choice is made within the training images, by group, and it is the better one."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.heads.fits import Fit, Task
from gelkit.heads.stacking import fit_all
from gelkit.heads.tuning import Tuning, best_epoch, inner_split, tune

COUNT = 40


def _task(**options: object) -> Task:
    """Make images of two classes that are well apart."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(COUNT, 20)).astype(np.float32)
    targets = np.arange(COUNT) % 2
    values[:, :5] += 3 * targets[:, np.newaxis]
    task = Task("single", "adam", values, targets, 2, batch_size=8, class_weights=False)
    return replace(task, **options)  # type: ignore[arg-type]


def _fit(seed: int = 0, epochs: int = 6) -> Fit:
    images = np.random.default_rng(seed).permutation(COUNT)
    return Fit(images[:30], images[30:], seed, learning_rate=0.01, epochs=epochs)


GROUPS = np.arange(COUNT)


def test_the_learning_rate_that_learns_is_chosen() -> None:
    """A choice of learning rates would be worse than none."""
    rates = (1e-6, 0.05, 1e-5)
    tuned = tune(_task(), [_fit(seed) for seed in range(4)], GROUPS, Tuning(rates), fit_all)
    assert [fit.learning_rate for fit in tuned] == [0.05] * 4
    assert [fit.epochs for fit in tuned] == [6] * 4


def test_a_learning_rate_that_diverges_is_not_chosen() -> None:
    """The configuration would be lost, though another learning rate serves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        (tuned,) = tune(_task(), [_fit()], GROUPS, Tuning((1e38, 0.01)), fit_all)
    assert tuned.learning_rate == 0.01


def test_training_stops_before_it_learns_noise_by_heart() -> None:
    """Early stopping would train for all epochs."""
    noise = np.random.default_rng(1).integers(2, size=COUNT)
    fits = [replace(_fit(seed, epochs=40), learning_rate=0.1) for seed in range(4)]
    tuned = tune(_task(targets=noise), fits, GROUPS, Tuning(patience=3), fit_all)
    assert max(fit.epochs for fit in tuned) < 20
    apart = tune(_task(), [_fit(epochs=10)], GROUPS, Tuning(patience=3), fit_all)
    assert apart[0].epochs == 10


def test_a_choice_depends_on_no_other_fit() -> None:
    """Results would change with what is trained beside them."""
    tuning, fits = Tuning((0.001, 0.05), patience=2), [_fit(seed) for seed in range(5)]
    together = tune(_task(), fits, GROUPS, tuning, fit_all)
    alone = [tune(_task(), [fit], GROUPS, tuning, fit_all)[0] for fit in fits]
    choices = [[(fit.learning_rate, fit.epochs) for fit in its] for its in (together, alone)]
    assert choices[0] == choices[1]


@pytest.mark.parametrize("class_weights", [False, True], ids=["plain", "class weights"])
def test_what_is_held_out_does_not_choose(class_weights: bool) -> None:
    """Scores would be those of heads that were chosen by them."""
    noise = np.random.default_rng(1).integers(2, size=COUNT)  # so that choices differ
    task, tuning = _task(class_weights=class_weights, targets=noise), Tuning((0.01, 0.1), 2)
    for fit in [_fit(seed) for seed in range(6)]:
        values, targets = task.values.copy(), task.targets.copy()
        values[fit.held_out] *= -9
        targets[fit.held_out] = 1 - targets[fit.held_out]
        other = replace(task, values=values, targets=targets)
        before, after = (tune(t, [fit], GROUPS, tuning, fit_all)[0] for t in (task, other))
        assert (before.learning_rate, before.epochs) == (after.learning_rate, after.epochs)
        assert np.array_equal(before.train, fit.train)
        assert np.array_equal(before.held_out, fit.held_out)
        assert before.seed == fit.seed


@st.composite
def _grouped(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw groups of one to three images, at least three in each of two or three classes."""
    classes = draw(st.integers(2, 3))
    sizes = [draw(st.lists(st.integers(1, 3), min_size=3, max_size=8)) for _ in range(classes)]
    targets = np.concatenate([np.full(sum(its), n) for n, its in enumerate(sizes)])
    flat = [size for its in sizes for size in its]
    return targets, np.repeat(np.arange(len(flat)), flat)


@settings(max_examples=40, deadline=None)
@given(grouped=_grouped(), seed=st.integers(0, 2**32 - 1))
def test_inner_splits_keep_groups_together_and_every_class_on_both_sides(
    grouped: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], seed: int
) -> None:
    """Pictures of one gel would train a head and choose among heads."""
    targets, groups = grouped
    scoring = inner_split(targets, groups, seed)
    assert not set(groups[scoring]) & set(groups[~scoring])
    assert set(targets[scoring]) == set(targets[~scoring]) == set(targets)
    assert np.array_equal(scoring, inner_split(targets, groups, seed))


def test_a_class_of_a_single_group_cannot_be_tuned() -> None:
    """A user would see the traceback of a splitter."""
    targets = np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(UsageError, match=r"at least 2 distinct .* Received: 1\. Add images"):
        inner_split(targets, np.array([0, 1, 2, 3, 4, 4]), 0)


CURVES = {
    "falling": ([3, 2, 1], 1, 3),
    "rising": ([1, 2, 3], 1, 1),
    "stopped before a later fall": ([3, 2, 4, 4, 1], 2, 2),
    "patient enough": ([3, 2, 4, 1, 5], 2, 4),
    "flat": ([2, 2, 2], 5, 1),
    "diverged": ([np.inf, np.inf], 1, 1),
    "diverged at last": ([2, 1, np.inf], 1, 2),
}


@pytest.mark.parametrize("case", CURVES)
def test_training_stops_where_the_loss_has_not_fallen_for_a_while(case: str) -> None:
    """Heads would be trained too long, or given up too early."""
    losses, patience, epoch = CURVES[case]
    assert best_epoch(np.array(losses, float), patience) == epoch
