"""The verdict: which configuration is best, how sure that is, and what to take care of, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gelkit.heads.results import is_competing
from gelkit.report.tested import describe_test
from gelkit.text import inline, quoted

if TYPE_CHECKING:
    import pandas as pd

    from gelkit.heads.assessment import Assessment

_WIDTH = 100
_MOST_CLASSES = 10
"""Of more only some are named."""
_CROWDED = 0.75
"""The share of one class above which accuracy is spoken of: an idle answer looks good there."""
_SHOWN_ROWS = 5
_DIGITS = 3

_CHEAPER = "less arithmetic for an image, then a smaller head"

_MODEL = ["pretrained_model", "classifier_head", "opt_alg"]
"""What makes a model, on whatever hardware."""

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
    rows = _best_rows(results)
    tested = describe_test(results, assessment.answer.winner) if assessment else None
    cautions = find_cautions(results, assessment, findings)
    return "\n".join(
        [
            *map(_wrapped, paragraphs),
            "",
            f"The {len(rows)} with the highest accuracy:",
            str(rows.to_string(index=False, float_format="{:.3f}".format)),
            *([_wrapped(tested.quoted)] if tested and tested.quoted else []),
            "",
            *(["Take care:", *map(_item, cautions), ""] if cautions else []),
            f"Results: {folder / 'results.csv'}",
            f"Heads:   {folder / 'heads'}",
        ]
    )


def say_what_was_compared(results: pd.DataFrame) -> str:
    """Say in a sentence what the figures rest on."""
    first = results.iloc[0]
    idle = len(results) - len(_rivals(results))
    apart = (
        f" {_counted(idle, 'row')} with RANDOM weights {'is' if idle == 1 else 'are'} listed, and "
        f"{'has' if idle == 1 else 'have'} no part in the answer."
    )
    return (
        f"{_counted(len(results), 'configuration')}{_twice(results)}, {first['n_images']} images "
        f"in {first['n_groups']} groups, {_named_classes(first['classes'])}; "
        f"{first['repeats']} x {first['folds']}-fold cross-validation.{apart if idle else ''}"
    )


def _named_classes(classes: Sequence[str]) -> str:
    names = inline([quoted(name) for name in classes])
    return (
        f"classes {names}" if len(classes) <= _MOST_CLASSES else f"{len(classes)} classes: {names}"
    )


def say_answer(results: pd.DataFrame, assessment: Assessment) -> list[str]:
    """Say which is best, how sure that is, what ties with it, which to use, of what figures are."""
    answer = assessment.answer
    doubts = doubt_best(results, answer.winner)
    return [
        f"The best is {name_configuration(results, answer.winner)}, with an accuracy of "
        f"{answer.raw_score:.3f}{''.join(f', {doubt}' for doubt in doubts)}.",
        _correction(results, assessment),
        _separability(results, assessment),
        _use(results, assessment),
        f"These are figures of {assessment.estimand}.",
    ]


def doubt_best(results: pd.DataFrame, model_id: int) -> list[str]:
    """Say what the figures of one configuration say nothing of, such as ``with RANDOM weights``."""
    row = _row(results, model_id)
    doubts = []
    if row["weights"] == "random":
        doubts.append("with RANDOM weights: says nothing of transfer learning")
    if "emulated" in row["device"]:
        doubts.append(f"without a TPU: ran on {row['device']}")
    return doubts


def find_cautions(
    results: pd.DataFrame, assessment: Assessment | None, findings: Sequence[str] = ()
) -> list[str]:
    """List what makes the figures doubtful, as sentences."""
    return [
        *_of_weights_and_devices(results),
        *_of_proportions(results),
        *(() if assessment is None else assessment.cautions),
        *findings,
    ]


def name_configuration(results: pd.DataFrame, model_id: int) -> str:
    """Name a configuration by its id and its axes, such as ``3 (cpu, resnet18, multi, adam)``."""
    row = _row(results, model_id)
    parts = (row["hardware_type"], row["pretrained_model"], row["classifier_head"], row["opt_alg"])
    return f"{model_id} ({', '.join(parts)})"


def _separability(results: pd.DataFrame, assessment: Assessment) -> str:
    answer = assessment.answer
    others = len(_rivals(results)) - 1
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
    return f"{_share(tied, others)} not separable from it with {groups}; {missed}."


def _correction(results: pd.DataFrame, assessment: Assessment) -> str:
    """Say what is left of the accuracy, and why its interval is not the one of the table."""
    answer, row = assessment.answer, _row(results, assessment.answer.winner)
    low, high = (f"{its:.3f}" for its in (answer.interval.low, answer.interval.high))
    own = [f"{row[f'accuracy_{end}']:.3f}" for end in ("low", "high")]
    why = (
        ""
        if [low, high] == own
        else f", which holds both figures; that of the table, {own[0]} to {own[1]}, takes "
        f"{answer.winner} as given, as if nobody had chosen"
    )
    return (
        f"That is optimistic, as it was chosen for it; corrected for the choice it is "
        f"{answer.corrected_score:.3f} (95% interval {low} to {high}{why})."
    )


def _use(results: pd.DataFrame, assessment: Assessment) -> str:
    winner, cheapest = assessment.answer.winner, assessment.answer.cheapest
    if winner == cheapest:
        also = f"; none of these is cheaper to use ({_CHEAPER})" * (len(assessment.answer.tied) > 1)
        return f"Use model {winner}, which predict takes{also}."
    return (
        f"Use model {winner}, which predict takes; or, where seconds matter, "
        f"{name_configuration(results, cheapest)}, of these the cheapest to use ({_CHEAPER})."
    )


def _rivals(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that can be the best."""
    return results[is_competing(results["weights"])]


def _row(results: pd.DataFrame, model_id: int) -> Mapping[Any, Any]:
    return results.set_index("model_id", drop=False).loc[model_id].to_dict()


def _twice(results: pd.DataFrame) -> str:
    """Say on which hardware each model was compared, if all were on the same several."""
    hardware = list(dict.fromkeys(results["hardware_type"]))
    models = len(results.drop_duplicates(_MODEL))
    if len(hardware) < 2 or models * len(hardware) != len(results):
        return ""
    return f" ({_counted(models, 'model')}, each on {' and '.join(hardware)})"


def _share(tied: int, others: int) -> str:
    if tied == others:
        return "The other is" if others == 1 else f"All {others} others are"
    return f"{tied} of the {others} others {'is' if tied == 1 else 'are'}"


def _all(others: int) -> str:
    return "the other" if others == 1 else f"all {others} others"


def _best_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Return the first rows, as they are shown; a model whose hardware makes no difference once."""
    rivals = _rivals(results)
    ranked = rivals.sort_values(["accuracy", "roc_auc"], ascending=False, kind="stable")
    tested = results["test_accuracy"].notna().any()
    columns = _SHOWN_COLUMNS | (_TEST_COLUMNS if tested else {})
    every = ranked.assign(
        interval=lambda rows: _intervals(rows, "accuracy"),
        test_interval=lambda rows: _intervals(rows, "test_accuracy"),
        model_id=lambda rows: rows["model_id"].astype(str),
    )[list(columns)].round(_DIGITS)
    merged = {"model_id": ", ".join, "hardware_type": " and ".join}
    same = [name for name in columns if name not in merged]
    twins = every.sort_index().groupby(same, sort=False, dropna=False).agg(merged).reset_index()
    order = every.drop_duplicates(same)[same].merge(twins, on=same)
    return order.head(_SHOWN_ROWS)[list(columns)].set_axis(list(columns.values()), axis="columns")


def _intervals(rows: pd.DataFrame, metric: str) -> list[str]:
    bounds: Any = zip(rows[f"{metric}_low"], rows[f"{metric}_high"], strict=True)
    return [f"{low:.3f} to {high:.3f}" for low, high in bounds]


def _of_weights_and_devices(results: pd.DataFrame) -> list[str]:
    doubts = []
    random = results[results["weights"] == "random"]
    if len(random) == len(results):
        doubts.append("RANDOM weights: these figures say nothing of transfer learning.")
    elif len(random):
        names = ", ".join(dict.fromkeys(random["pretrained_model"]))
        doubts.append(
            f"The rows of {names} have RANDOM weights, which say nothing of transfer learning. To "
            "compare them, bring their pretrained weights (gelkit doctor names the files)."
        )
    emulated = sorted({device for device in results["device"] if "emulated" in device})
    if emulated:
        doubts.append(f"No TPU was used: the rows of tpu ran on {', '.join(emulated)}.")
    return doubts


def _of_proportions(results: pd.DataFrame) -> list[str]:
    """Say what accuracy hides where nearly all images are of one class."""
    first = results.iloc[0]
    sizes = np.asarray(first["conf_mat"], dtype=float).sum(axis=1)
    share = float(sizes.max() / sizes.sum())
    if share < _CROWDED:
        return []
    rivals = _rivals(results)
    below = int((rivals["accuracy"] < share).sum())
    fairest = rivals.sort_values("balanced_accuracy", ascending=False, kind="stable").iloc[0]
    name = quoted(first["classes"][int(sizes.argmax())])
    worse = f", more than {below} of the {len(rivals)} reach" if below else ""
    return [
        f"{share:.0%} of the images are {name}: always answering that has an accuracy of "
        f"{share:.3f}{worse}. Look at the balanced accuracy, in which each class counts the same "
        f"and that answer has {1 / len(sizes):.3f}: the highest is "
        f"{fairest['balanced_accuracy']:.3f}, of "
        f"{name_configuration(results, fairest['model_id'])}. "
        "Add images of the rarer classes, or train with --class-weights."
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, _WIDTH)


def _item(sentence: str) -> str:
    return textwrap.fill(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
