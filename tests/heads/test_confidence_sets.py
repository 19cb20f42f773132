"""Confidence sets: what cannot be told from the best stays in, what is worse goes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from arch.bootstrap import MCS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gelkit.heads.confidence_sets import ConfidenceSet, model_confidence_set

Losses = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

AGAIN = settings(deadline=None, max_examples=25)


def _losses(accuracies: list[float], repeats: int, images: int, seed: int = 0) -> Losses:
    """Draw right and wrong predictions; half of what makes an image hard is common to all."""
    generator = np.random.default_rng(seed)
    shape = (len(accuracies), repeats, images)
    hard = generator.normal(size=images) + generator.normal(size=shape)
    wrong = [
        its > np.quantile(hard, accuracy) for its, accuracy in zip(hard, accuracies, strict=True)
    ]
    return np.array(wrong, dtype=np.float64)


def _one_by_one(losses: Losses, **options: int) -> ConfidenceSet:
    """Compute the set for images of one class, each a group of its own."""
    images = losses.shape[2]
    return model_confidence_set(
        losses, np.zeros(images, dtype=np.int64), np.arange(images), **options
    )


@st.composite
def _compared(draw: st.DrawFn) -> tuple[Losses, Integers, Integers]:
    """Draw losses of different configurations, targets and groups that have one target each."""
    seed = draw(st.integers(0, 10_000))
    accuracies = draw(st.lists(st.sampled_from([0.6, 0.7, 0.8, 0.9]), min_size=2, max_size=6))
    groups = np.repeat(np.arange(20), draw(st.lists(st.integers(1, 3), min_size=20, max_size=20)))
    losses = _losses(accuracies, draw(st.integers(1, 3)), len(groups), seed)
    return losses, groups % 2, groups


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("continuous", [False, True], ids=["right-or-wrong", "continuous"])
def test_the_set_is_that_of_the_reference_implementation(seed: int, continuous: bool) -> None:
    """``tied_with_best`` would be no model confidence set."""
    losses = _losses([0.84, 0.83, 0.81, 0.86, 0.79], 1, 400, seed)
    if continuous:
        losses = 0.5 * losses + 0.5 * np.random.default_rng(seed).uniform(size=losses.shape)
    ours = _one_by_one(losses, replicates=5000)
    theirs = MCS(losses[:, 0].T, size=0.05, reps=5000, block_size=1, method="R", seed=seed)
    theirs.compute()
    assert ours.eliminated == tuple(theirs.pvalues.index)
    expected = theirs.pvalues["Pvalue"].sort_index().to_numpy()
    assert all(ours.p_values >= expected - 0.03)
    if continuous:  # of right and wrong, many replicates are just as large as what was observed
        np.testing.assert_allclose(ours.p_values, expected, atol=0.03)


def test_the_worse_is_left_out_and_the_equal_is_kept() -> None:
    """The table would call a far worse configuration tied, or a good one worse."""
    accuracies = [0.9, 0.9, 0.6, 0.9, 0.62]
    assert _one_by_one(_losses(accuracies, 5, 200)).members == (0, 1, 3)


def test_a_set_of_one_is_its_member() -> None:
    """A comparison of a single configuration would fail."""
    assert _one_by_one(_losses([0.8], 5, 40)) == ConfidenceSet(p_values=(1.0,), eliminated=(0,))


@AGAIN
@given(_compared())
def test_the_best_is_always_in_the_set(compared: tuple[Losses, Integers, Integers]) -> None:
    """The winner would not be tied with itself."""
    losses, targets, groups = compared
    found = model_confidence_set(losses, targets, groups, replicates=200)
    means = losses.mean(axis=(1, 2))
    assert all(found.p_values[i] == 1 for i in np.flatnonzero(means == means.min()))


@AGAIN
@given(_compared())
def test_who_goes_later_is_no_less_likely_the_best(
    compared: tuple[Losses, Integers, Integers],
) -> None:
    """A configuration would be left out though a worse one stays."""
    found = model_confidence_set(*compared, replicates=200)
    in_order = [found.p_values[i] for i in found.eliminated]
    assert in_order == sorted(in_order)
    assert in_order[-1] == 1


@AGAIN
@given(_compared(), st.integers(0, 5))
def test_a_twin_changes_nothing_and_shares_the_answer(
    compared: tuple[Losses, Integers, Integers], which: int
) -> None:
    """An emulated TPU would change what is said of the CPU's configurations."""
    losses, targets, groups = compared
    twin = losses[which % len(losses)] + 1e-6
    alone = model_confidence_set(losses, targets, groups, replicates=200)
    together = model_confidence_set(np.array([*losses, twin]), targets, groups, replicates=200)
    assert together.p_values == (*alone.p_values, alone.p_values[which % len(losses)])
    assert together.eliminated == alone.eliminated


@AGAIN
@given(_compared(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    compared: tuple[Losses, Integers, Integers], random: np.random.Generator
) -> None:
    """Listing configurations in another order would change which are tied."""
    losses, targets, groups = compared
    means = losses.mean(axis=(1, 2))
    assume(len(set(means)) == len(means))
    order = list(range(len(losses)))
    random.shuffle(order)
    found = model_confidence_set(losses, targets, groups, replicates=200)
    shuffled = model_confidence_set(losses[order], targets, groups, replicates=200)
    expected = [found.p_values[i] for i in order]
    np.testing.assert_allclose(shuffled.p_values, expected, atol=1e-12)


def test_equal_means_are_never_separated() -> None:
    """Configurations that score the same would be called different."""
    losses = np.zeros((3, 1, 30))
    losses[0, 0, :6] = losses[1, 0, 6:12] = losses[2, 0, 12:18] = 1
    assert _one_by_one(losses).p_values == (1.0, 1.0, 1.0)


def test_a_constant_guess_is_not_tied_with_a_perfect_head() -> None:
    """A head that always says one class would be tied: within a class its lag never varies."""
    targets = np.repeat([0, 1], 20)
    losses = np.stack([targets, 0 * targets])[:, np.newaxis].astype(np.float64)
    assert model_confidence_set(losses, targets, np.arange(40)).members == (1,)


def test_copies_of_images_are_no_evidence() -> None:
    """Near-duplicates would make a difference of a few gels look certain."""
    losses = np.zeros((2, 1, 14))
    losses[1, 0, :3] = 1
    copied = np.repeat(losses, 10, axis=2)
    groups = np.repeat(np.arange(14), 10)
    apart = np.arange(140)
    targets = np.zeros(140, dtype=np.int64)
    assert model_confidence_set(copied, targets, groups).members == (0, 1)
    assert model_confidence_set(copied, targets, apart).members == (0,)


def test_equal_configurations_are_seldom_called_different() -> None:
    """The table would find differences among equals more often than in 1 of 20 data sets."""
    separated = 0
    for seed in range(60):
        losses = _losses([0.8] * 8, 3, 60, seed)
        # each image is as hard for all on the whole, but not one by one
        found = _one_by_one(losses, replicates=300, seed=seed)
        separated += len(found.members) < 8
    assert separated <= 6  # P(more | 5%) < 3%


def test_the_same_seed_gives_the_same_set() -> None:
    """results.csv would differ from run to run."""
    losses = _losses([0.8, 0.82, 0.7], 2, 60)
    assert _one_by_one(losses, seed=3) == _one_by_one(losses, seed=3)
    assert _one_by_one(losses, seed=3) != _one_by_one(losses, seed=4)


@pytest.mark.parametrize("num_groups", [10, 40], ids=str)
def test_few_groups_are_believed_less(num_groups: int) -> None:
    """A handful of groups would give differences as certain as a thousand do."""
    from scipy import stats

    noise = np.random.default_rng(0).normal(size=num_groups)
    lag = (noise - noise.mean()) / noise.std(ddof=1) + 2.2 / np.sqrt(num_groups)
    p_value = stats.ttest_1samp(lag, 0).pvalue
    losses = np.stack([0 * lag, lag])[:, np.newaxis]
    assert _one_by_one(losses, replicates=20_000).p_values[1] == pytest.approx(p_value, abs=0.01)


def test_a_group_with_two_classes_is_refused() -> None:
    """Resampling within classes would tear the group apart unseen."""
    with pytest.raises(ValueError, match=r"one target.*two in group 1"):
        model_confidence_set(np.zeros((2, 1, 3)), np.array([0, 0, 1]), np.array([0, 1, 1]))
