"""Selection: the answer names the best, what it scores beyond its luck, and who may be as good."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.heads.intervals import Interval
from gelkit.heads.selection import Answer, Cost, choose_best, corrected_score, hull

Losses = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

AGAIN = settings(deadline=None, max_examples=25)

COSTS = (
    Cost(giga_operations=15.5, head_parameters=8194, model_id=5),
    Cost(giga_operations=0.2, head_parameters=2562, model_id=9),
    Cost(giga_operations=0.2, head_parameters=787_970, model_id=11),
    Cost(giga_operations=1.8, head_parameters=1026, model_id=1),
)


def _by_chance(configurations: int, repeats: int, images: int, seed: int) -> Losses:
    """Draw losses of configurations that are all right in 7 of 10 images, whatever they are."""
    shape = (configurations, repeats, images)
    return (np.random.default_rng(seed).uniform(size=shape) < 0.3).astype(np.float64)


def _alternating(images: int) -> tuple[Integers, Integers]:
    groups = np.arange(images)
    return groups % 2, groups


@st.composite
def _compared(draw: st.DrawFn) -> tuple[Losses, Integers, Integers]:
    groups = np.repeat(np.arange(16), draw(st.lists(st.integers(1, 3), min_size=16, max_size=16)))
    losses = _by_chance(draw(st.integers(1, 6)), draw(st.integers(1, 3)), len(groups), seed=0)
    return losses, groups % 2, groups


def test_the_corrected_score_is_free_of_the_winners_luck() -> None:
    """The answer would promise what the best scored because it was chosen for it."""
    raw, corrected = [], []
    for seed in range(60):
        losses = _by_chance(24, 1, 60, seed)
        raw.append(1 - losses.mean(axis=(1, 2)).min())
        corrected.append(corrected_score(losses, *_alternating(60), replicates=200))
    assert np.mean(raw) > 0.78
    assert np.mean(corrected) == pytest.approx(0.7, abs=0.02)


def test_the_corrected_score_of_a_clear_winner_is_its_own() -> None:
    """A winner that owes nothing to luck would be marked down."""
    losses = _by_chance(4, 2, 100, seed=0)
    losses[2] *= 0
    losses[2, :, ::10] = 1
    assert corrected_score(losses, *_alternating(100)) == pytest.approx(0.9, abs=0.005)


@pytest.mark.exhaustive("exhaustive grids")
def test_the_interval_holds_the_truth() -> None:
    """The answer's interval would be too short for what is known."""
    held = 0
    for seed in range(40):
        losses = _by_chance(4, 1, 50, seed)
        interval = choose_best(losses, *_alternating(50), costs=COSTS).interval
        held += interval.low <= 0.7 <= interval.high
    assert held >= 35  # P(fewer | 95%) < 2%


@AGAIN
@given(_compared(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    compared: tuple[Losses, Integers, Integers], random: np.random.Generator
) -> None:
    """Listing configurations in another order would change the corrected score."""
    losses, targets, groups = compared
    order = list(range(len(losses)))
    random.shuffle(order)
    one = corrected_score(losses, targets, groups, replicates=100)
    other = corrected_score(losses[order], targets, groups, replicates=100)
    assert other == pytest.approx(one)


@AGAIN
@given(_compared())
def test_a_corrected_score_is_no_better_than_the_best(
    compared: tuple[Losses, Integers, Integers],
) -> None:
    """The correction would flatter."""
    losses, targets, groups = compared
    corrected = corrected_score(losses, targets, groups, replicates=500)
    assert 0 <= corrected <= 1 - losses.mean(axis=(1, 2)).min() + 0.03


@AGAIN
@given(_compared())
def test_the_interval_holds_both_scores(compared: tuple[Losses, Integers, Integers]) -> None:
    """The summary would show an interval beside a score that it leaves out."""
    losses, targets, groups = compared
    answer = choose_best(losses[:4], targets, groups, costs=COSTS[: len(losses)])
    low, high = answer.interval.low, answer.interval.high
    assert 0 <= low <= answer.corrected_score <= high <= 1
    assert low <= answer.raw_score <= high


def test_groups_are_scored_only_where_all_their_images_are_left_out() -> None:
    """A near-duplicate of a choosing image would score the choice: luck would count as skill."""
    raw, corrected = [], []
    groups = np.repeat(np.arange(40), 3)
    for seed in range(40):
        losses = _by_chance(24, 1, 40, seed).repeat(3, axis=2)
        raw.append(1 - losses.mean(axis=(1, 2)).min())
        corrected.append(corrected_score(losses, groups % 2, groups, replicates=200))
    assert np.mean(raw) > 0.8
    assert np.mean(corrected) == pytest.approx(0.7, abs=0.03)


def _answer(accuracies: list[float], images: int = 200) -> Answer:
    """Choose among configurations that err on images drawn apart."""
    generator = np.random.default_rng(0)
    losses = np.zeros((len(accuracies), 1, images))
    for its, accuracy in zip(losses, accuracies, strict=True):
        its[0, generator.permutation(images)[: round((1 - accuracy) * images)]] = 1
    return choose_best(
        losses,
        *_alternating(images),
        costs=COSTS[: len(accuracies)],
    )


def test_the_answer_names_the_best_and_what_is_known_of_it() -> None:
    """The summary's first sentence would be wrong."""
    answer = _answer([0.95, 0.6, 0.6, 0.6])
    assert (answer.winner, answer.tied, answer.cheapest) == (5, (5,), 5)
    assert answer.raw_score == pytest.approx(0.95)
    assert answer.corrected_score == pytest.approx(0.95, abs=0.01)
    assert (answer.interval.low, answer.interval.high) == pytest.approx((0.91, 0.97), abs=0.015)
    assert answer.num_groups == 200
    assert answer.detectable_difference is not None
    assert 0.05 < answer.detectable_difference < 0.3


@pytest.mark.parametrize(
    ("accuracies", "tied", "cheapest"),
    [
        ([0.9, 0.89, 0.89, 0.89], (5, 9, 11, 1), 9),
        ([0.9, 0.5, 0.89, 0.89], (5, 11, 1), 11),
        ([0.9, 0.5, 0.5, 0.89], (5, 1), 1),
    ],
    ids=["smaller-head", "smaller-backbone-before-smaller-head", "smaller-backbone"],
)
def test_the_cheapest_of_the_tied(
    accuracies: list[float], tied: tuple[int, ...], cheapest: int
) -> None:
    """A reader would extract with 70 times the work for nothing, or with a worse configuration."""
    answer = _answer(accuracies)
    assert (answer.winner, answer.tied, answer.cheapest) == (5, tied, cheapest)


def test_of_equal_scores_the_first_wins() -> None:
    """The emulated TPU's twin would be named in place of the CPU's."""
    losses = np.zeros((2, 1, 20))
    losses[:, 0, :3] = 1
    answer = choose_best(losses, *_alternating(20), costs=COSTS[:2])
    assert (answer.winner, answer.tied, answer.detectable_difference) == (5, (5, 9), None)


def test_the_hull_holds_all_intervals() -> None:
    """The interval shown would leave out the raw or the corrected score's own."""
    assert hull(Interval(0.7, 0.8), Interval(0.6, 0.75)) == Interval(0.6, 0.8)
