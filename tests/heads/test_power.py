"""Power: the smallest lead that data like these would usually show."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm

from gelkit.heads.confidence_sets import model_confidence_set
from gelkit.heads.power import detectable_difference

Losses = npt.NDArray[np.float64]


def _losses(lags: list[float], images: int, seed: int, common: float = 0.5) -> Losses:
    """Draw one repeat of predictions, right in 85% less the lag; ``common`` correlates them."""
    generator = np.random.default_rng(seed)
    hard = np.sqrt(common) * generator.normal(size=images) + np.sqrt(1 - common) * generator.normal(
        size=(len(lags), images)
    )
    wrong = hard > norm.ppf(0.85 - np.array(lags))[:, np.newaxis]
    return wrong[:, np.newaxis].astype(np.float64)


def _detectable(losses: Losses, groups: npt.NDArray[np.int64] | None = None) -> float:
    images = losses.shape[2]
    groups = np.arange(images) if groups is None else groups
    found = detectable_difference(losses, groups % 2, groups)
    assert found is not None
    return found


def test_a_lead_of_that_size_is_seen_in_four_of_five_data_sets() -> None:
    """The summary would promise to show leads that it misses, or deny those that it shows."""
    lead = _detectable(_losses([0] * 4, 200, seed=0))
    groups = np.arange(200)
    left_out = []
    for seed in range(1, 61):
        found = model_confidence_set(
            _losses([0, lead, lead, lead], 200, seed), groups % 2, groups, replicates=500
        )
        left_out.append(4 - len(found.members))
    assert 0.7 <= np.mean(left_out) / 3 <= 0.93


def test_more_images_show_smaller_leads() -> None:
    """The reader would be told to collect more images for nothing."""
    few, more, many = (_detectable(_losses([0] * 4, n, seed=0)) for n in (50, 200, 800))
    assert few > more > many > 0
    assert more / many == pytest.approx(2, rel=0.3)


def test_configurations_that_err_together_are_told_apart_more_easily() -> None:
    """Pairing by image would be wasted."""
    apart = _detectable(_losses([0] * 4, 200, seed=0, common=0.1))
    together = _detectable(_losses([0] * 4, 200, seed=0, common=0.9))
    assert together < apart


def test_more_configurations_hide_a_lead() -> None:
    """The price of comparing 24 would be left out."""
    many = _losses([0] * 16, 200, seed=0)
    assert _detectable(many[:2]) < _detectable(many)


def test_a_hopeless_configuration_is_not_what_leads() -> None:
    """One head that learnt nothing would decide what can be seen among the good ones."""
    good = _detectable(_losses([0, 0, 0, 0], 200, seed=0))
    assert _detectable(_losses([0, 0, 0, 0.4], 200, seed=0)) == pytest.approx(good, rel=0.25)


def test_copies_of_images_show_nothing_more() -> None:
    """Near-duplicates would promise the power of so many gels."""
    losses = _losses([0] * 4, 60, seed=0)
    copied = _detectable(np.repeat(losses, 5, axis=2), np.repeat(np.arange(60), 5))
    assert copied == _detectable(losses)


def test_twins_alone_have_no_lead_to_detect() -> None:
    """A run of one configuration would fail, or name a difference of nothing."""
    losses = np.repeat(_losses([0], 40, seed=0), 2, axis=0)
    assert detectable_difference(losses, np.arange(40) % 2, np.arange(40)) is None


def test_the_figure_is_the_same_in_every_run() -> None:
    """The summary would change from run to run."""
    losses = _losses([0] * 4, 60, seed=0)
    assert _detectable(losses) == _detectable(losses)
