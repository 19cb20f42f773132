"""The verdict: which configuration is best, how sure that is, and what to take care of, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from gelkit.heads.assessment import Assessment

_WIDTH = 100
_SHOWN_ROWS = 5

_SHOWN_COLUMNS = {
    "model_id": "id",
    "hardware_type": "hardware",
    "pretrained_model": "backbone",
    "classifier_head": "head",
    "opt_alg": "optimizer",
    "accuracy": "accuracy",
    "interval": "95% interval",
    "balanced_accuracy": "balanced",
    "roc_auc": "roc_auc",
    "tied_with_best": "tied",
}
_TEST_COLUMNS = {"test_accuracy": "test accuracy", "test_interval": "95% interval"}


def describe_results(
    results: pd.DataFrame,
    assessment: Assessment | None,
    folder: Path,
    findings: Sequence[str] = (),
) -> str:
    """Say what a comparison shows, what it does not, and where the files are.

    :param assessment: None if it is lost.
    :param findings: what was found of the test set, sentences.
    """
    paragraphs = [
        say_what_was_compared(results),
        *([] if assessment is None else say_answer(results, assessment)),
    ]
    shown = min(_SHOWN_ROWS, len(results))
    cautions = find_cautions(results, assessment, findings)
    return "\n".join(
        [
            *map(_wrapped, paragraphs),
            "",
            f"The {shown} with the highest accuracy:",
            _best_rows(results),
            "",
            *(["Take care:", *map(_item, cautions), ""] if cautions else []),
            f"Results: {folder / 'results.csv'}",
            f"Heads:   {folder / 'heads'}",
        ]
    )


def say_what_was_compared(results: pd.DataFrame) -> str:
    """Say in a sentence what the figures rest on."""
    first = results.iloc[0]
    return (
        f"{_counted(len(results), 'configuration')}, {first['n_images']} images in "
        f"{first['n_groups']} groups, classes {', '.join(first['classes'])}; "
        f"{first['repeats']} x {first['folds']}-fold cross-validation."
    )


def say_answer(results: pd.DataFrame, assessment: Assessment) -> list[str]:
    """Say which is best and how sure that is; what ties with it; what the figures are of."""
    answer = assessment.answer
    low, high = answer.interval.low, answer.interval.high
    return [
        f"The best is {name_configuration(results, answer.winner)}, with an accuracy of "
        f"{answer.raw_score:.3f}. That is optimistic, as it was chosen for it; corrected for the "
        f"choice it is {answer.corrected_score:.3f} (95% interval {low:.3f} to {high:.3f}).",
        _separability(results, assessment),
        f"These are figures of {assessment.estimand}.",
    ]


def find_cautions(
    results: pd.DataFrame, assessment: Assessment | None, findings: Sequence[str] = ()
) -> list[str]:
    """List what makes the figures doubtful, as sentences."""
    return [
        *_of_weights_and_devices(results),
        *(() if assessment is None else assessment.cautions),
        *findings,
    ]


def name_configuration(results: pd.DataFrame, model_id: int) -> str:
    """Name a configuration by its id and its axes, such as ``3 (cpu, resnet18, multi, adam)``."""
    row = results.loc[results["model_id"] == model_id].iloc[0]
    parts = (row["hardware_type"], row["pretrained_model"], row["classifier_head"], row["opt_alg"])
    return f"{model_id} ({', '.join(parts)})"


def _separability(results: pd.DataFrame, assessment: Assessment) -> str:
    answer = assessment.answer
    others = len(results) - 1
    tied = len([model_id for model_id in answer.tied if model_id != answer.winner])
    groups = f"{answer.num_groups} groups"
    if not others:
        return "It is the only one: there is nothing to compare."
    if not tied:
        return f"It is separable from {_all(others)} with {groups}, at 95% confidence."
    missed = (
        "they predict the same"
        if answer.detectable_difference is None
        else f"a lead under {100 * answer.detectable_difference:.0f} points would usually be missed"
    )
    return (
        f"{_share(tied, others)} not separable from it with {groups}; {missed}. The cheapest of "
        f"these is {name_configuration(results, answer.cheapest)}."
    )


def _share(tied: int, others: int) -> str:
    if tied == others:
        return "The other is" if others == 1 else f"All {others} others are"
    return f"{tied} of the {others} others {'is' if tied == 1 else 'are'}"


def _all(others: int) -> str:
    return "the other" if others == 1 else f"all {others} others"


def _best_rows(results: pd.DataFrame) -> str:
    ranked = results.sort_values(["accuracy", "roc_auc"], ascending=False, kind="stable")
    tested = results["test_accuracy"].notna().any()
    columns = _SHOWN_COLUMNS | (_TEST_COLUMNS if tested else {})
    shown = ranked.head(_SHOWN_ROWS).assign(
        interval=lambda rows: _intervals(rows, "accuracy"),
        test_interval=lambda rows: _intervals(rows, "test_accuracy"),
    )
    named = shown[list(columns)].set_axis(list(columns.values()), axis="columns")
    return str(named.to_string(index=False, float_format="{:.3f}".format))


def _intervals(rows: pd.DataFrame, metric: str) -> list[str]:
    bounds: Any = zip(rows[f"{metric}_low"], rows[f"{metric}_high"], strict=True)
    return [f"{low:.3f} to {high:.3f}" for low, high in bounds]


def _of_weights_and_devices(results: pd.DataFrame) -> list[str]:
    doubts = []
    if (results["weights"] == "random").any():
        doubts.append("RANDOM weights: these figures say nothing of transfer learning.")
    emulated = sorted({device for device in results["device"] if "emulated" in device})
    if emulated:
        doubts.append(f"No TPU was used: the rows of tpu ran on {', '.join(emulated)}.")
    return doubts


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, _WIDTH)


def _item(sentence: str) -> str:
    return textwrap.fill(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
