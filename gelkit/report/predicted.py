"""Predicted: what a head says of new images, and how far that can be trusted, as text."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from gelkit.text import quoted, shown

if TYPE_CHECKING:
    from gelkit.analyses.prediction import Predicted, Prediction

_WIDTH = 100
_SHOWN_ROWS = 50
_LONGEST_NAME = 60
_TITLES = (
    *("image", "outcome", "predicted", "probability"),
    *("nearest training image", "its label", "cosine", ""),
)


def describe_predictions(predicted: Predicted) -> str:
    """Show each image's outcome, probability and nearest neighbour, and what these rest on.

    Of many images the first 50 are shown.
    """
    rows = [_row(its, predicted) for its in predicted.predictions[:_SHOWN_ROWS]]
    more = len(predicted.predictions) - len(rows)
    return "\n".join(
        [
            *_aligned([_TITLES, *rows]),
            *([f"and {more} more"] if more else []),
            "",
            *(textwrap.fill(sentence, _WIDTH) for sentence in _sentences(predicted)),
        ]
    )


def _row(prediction: Prediction, predicted: Predicted) -> tuple[str, ...]:
    number = predicted.head.classes.index(prediction.predicted)
    nearest = prediction.neighbors[0]
    return (
        _shortened(shown(prediction.image)),
        shown(prediction.outcome),
        quoted(prediction.predicted),
        f"{prediction.probabilities[number]:.3f}",
        _shortened(shown(nearest.image)),
        quoted(nearest.label),
        f"{nearest.cosine:.3f}",
        shown(_remark(prediction)),
    )


def _remark(prediction: Prediction) -> str:
    if prediction.copy_of is not None:
        return f"copy of {prediction.copy_of}: the head has seen it"
    if prediction.near_copy_of is not None:
        return f"nearly a copy of {prediction.near_copy_of}: the head has seen it"
    return f"{prediction.warning} (distance {prediction.distance:.2f})" if prediction.far else ""


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _sentences(predicted: Predicted) -> list[str]:
    return [
        _of_head(predicted),
        _of_probabilities(predicted),
        _of_certainty(predicted),
        _of_novelty(predicted),
        *_of_weights_and_devices(predicted),
    ]


def _of_head(predicted: Predicted) -> str:
    name = predicted.head.configuration.name
    if not predicted.is_best:
        return f"By {name}, which was asked for; cross-validation chose another."
    others = ", ".join(map(str, predicted.tied))
    tied = f" Not separable from it: {others}." if others else ""
    return f"By {name}, the best by cross-validation.{tied}"


def _of_probabilities(predicted: Predicted) -> str:
    its = predicted.reliability.temperature
    figures = (
        f"(log loss {its.log_loss:.3f} before, {its.scaled_log_loss:.3f} after, p = "
        f"{its.p_value:.2g})"
    )
    if its.applied:
        return (
            f"Probabilities are calibrated by temperature scaling, T = {its.temperature:.2f}: it "
            f"helps on held-out groups {figures}."
        )
    return (
        "Probabilities are the head's own: temperature scaling is not shown to help on held-out "
        f"groups {figures}."
    )


def _of_certainty(predicted: Predicted) -> str:
    its = predicted.reliability.abstention
    bound = _at_most(its.error_bound)
    if its.threshold is None:
        return (
            f"All are unsure: that at most {its.max_error:.1%} of sure answers are wrong cannot be "
            f"shown with {its.num_groups} groups. The least that can is {bound}, with "
            f"{its.unsure:.0%} unsure; ask for it by "
            f"--max-error {_rounded_up(its.error_bound):.3f}."
        )
    where = f"from a probability of {its.threshold:.3f} on" if its.threshold else "in any case"
    return (
        f"Answers are sure {where}, unless the image is far. In cross-validation {its.error:.1%} "
        f"of these were wrong (with 95% confidence at most {bound}; {its.num_groups} groups), and "
        f"{its.unsure:.0%} of all were unsure. That holds for images like the training ones."
    )


def _at_most(share: float) -> str:
    """Return a share in percent, rounded up: what is shown must be reached when asked for."""
    return f"{_rounded_up(share):.1%}"


def _rounded_up(share: float) -> float:
    return math.ceil(1000 * share) / 1000


def _of_novelty(predicted: Predicted) -> str:
    its = predicted.reliability.novelty
    far = sum(prediction.far for prediction in predicted.predictions)
    measured = (
        ""
        if its.measured_false_alarms != its.measured_false_alarms
        else f" ({its.measured_false_alarms:.1%} in cross-validation)"
    )
    return (
        f"Far from everything the head was trained on, by a distance above {its.threshold:.2f}: "
        f"{far} of {len(predicted.predictions)}. Of images like the training ones "
        f"{its.expected_false_alarms:.1%} would be called so"
        f"{measured}."
    )


def _of_weights_and_devices(predicted: Predicted) -> list[str]:
    recipe = predicted.head.recipe
    doubts = []
    if recipe.weights == "random":
        doubts.append("RANDOM weights: these answers say nothing of transfer learning.")
    if recipe.hardware == "tpu-emulated":
        doubts.append("No TPU was used: the backbone ran on XLA:CPU (emulated).")
    return doubts
