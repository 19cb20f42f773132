"""The verdict: a reader learns what is best, how sure that is, and what to doubt, and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gelkit.heads.assessment import Assessment
from gelkit.heads.intervals import Interval
from gelkit.heads.results import make_results
from gelkit.heads.selection import Answer
from gelkit.report.verdict import describe_results

ANSWER = Answer(
    winner=3,
    raw_score=0.9123,
    corrected_score=0.8765,
    interval=Interval(0.79, 0.95),
    tied=(1, 3, 4),
    cheapest=4,
    detectable_difference=0.071,
    num_groups=73,
)
ASSESSMENT = Assessment(
    answer=ANSWER,
    estimand="heads trained on 4/5 of these groups",
    contrasts=(),
    cautions=("A model that sees only brightness has an accuracy of 0.90.",),
)


def _results(count: int = 8, **columns: Any) -> pd.DataFrame:
    """Make result rows whose accuracy rises with the id."""
    row: dict[str, Any] = {
        "hardware_type": "cpu",
        "pretrained_model": "resnet18",
        "classifier_head": "single",
        "balanced_accuracy": 0.5,
        "accuracy_low": 0.25,
        "accuracy_high": 0.75,
        "roc_auc": 0.5,
        "tied_with_best": "yes",
        "n_images": 92,
        "n_groups": 73,
        "classes": ["gel", "001"],
        "conf_mat": [[40.0, 6.0], [6.0, 40.0]],
        "weights": "ResNet18_Weights.IMAGENET1K_V1",
        "device": "cpu (x86)",
        "folds": 5,
        "repeats": 4,
    }
    return make_results(
        [
            row
            | {"model_id": number, "opt_alg": f"adam{number}", "accuracy": number / 100}
            | columns
            for number in range(1, count + 1)
        ]
    )


def _said(results: pd.DataFrame, **changes: Any) -> str:
    """Describe results, with an answer changed, as one line."""
    assessment = replace(ASSESSMENT, answer=replace(ANSWER, **changes))
    return " ".join(describe_results(results, assessment, Path("out")).split())


def _shown_ids(text: str) -> list[int]:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["id", "hardware"])
    rows = [line.split() for line in lines[start + 1 :] if " resnet18 " in line]
    return [int(words[0]) for words in rows]


def test_it_says_what_was_compared_and_where_it_is() -> None:
    """A user would not know what the figures rest on, or where to find the rest."""
    lines = describe_results(_results(), ASSESSMENT, Path("results/gels")).splitlines()
    assert lines[0] == (
        "8 configurations, 92 images in 73 groups, classes gel, 001; 4 x 5-fold cross-validation."
    )
    assert lines[-2:] == ["Results: results/gels/results.csv", "Heads:   results/gels/heads"]
    assert max(map(len, lines)) <= 100


def test_the_best_is_named_with_its_corrected_figure_and_the_estimand() -> None:
    """The winner's own score, which luck has raised, would be quoted as its accuracy."""
    said = _said(_results())
    assert (
        "The best is 3 (cpu, resnet18, single, adam3), with an accuracy of 0.912. That is "
        "optimistic, as it was chosen for it; corrected for the choice it is 0.876 (95% interval "
        "0.790 to 0.950"
    ) in said
    assert "These are figures of heads trained on 4/5 of these groups." in said


SEPARABLE: dict[str, tuple[int, dict[str, Any], str]] = {
    "some": (
        8,
        {},
        "2 of the 7 others are not separable from it with 73 groups; a lead under 7 points would "
        "usually be missed.",
    ),
    "one": (8, {"tied": (3, 4)}, "1 of the 7 others is not separable from it with 73 groups;"),
    "all": (3, {"tied": (1, 2, 3), "cheapest": 1}, "All 2 others are not separable from it"),
    "none": (8, {"tied": (3,)}, "It is separable from all 7 others with 73 groups, at 95%"),
    "twins": (
        8,
        {"detectable_difference": None},
        "not separable from it with 73 groups; they predict the same.",
    ),
    "alone": (
        1,
        {"winner": 1, "tied": (1,), "cheapest": 1},
        "It is the only one: there is nothing",
    ),
}


@pytest.mark.parametrize("case", SEPARABLE)
def test_it_says_what_cannot_be_told_apart(case: str) -> None:
    """A winner by luck would be taken for the best, or a tie for equality."""
    count, changes, expected = SEPARABLE[case]
    said = _said(_results(count), **changes)
    assert expected in said
    assert "equal" not in said


USES: dict[str, tuple[dict[str, Any], str]] = {
    "another is cheaper": (
        {},
        "Use model 3, which predict takes; or, where seconds matter, 4 (cpu, resnet18, single, "
        "adam4), of these the cheapest to use (less arithmetic for an image, then a smaller head).",
    ),
    "none is cheaper": (
        {"cheapest": 3},
        "Use model 3, which predict takes; none of these is cheaper to use (less arithmetic",
    ),
    "separable": ({"cheapest": 3, "tied": (3,)}, "Use model 3, which predict takes. These"),
}


@pytest.mark.parametrize("case", USES)
def test_it_says_which_to_use_and_what_cheap_means(case: str) -> None:
    """Of a dozen that are tied, a user would not know which to take, or what predict takes."""
    changes, expected = USES[case]
    assert expected in _said(_results(), **changes)


@pytest.mark.parametrize("own", [(0.79, 0.95), (0.81, 0.94)], ids=["the same", "narrower"])
def test_two_intervals_of_the_best_are_explained(own: tuple[float, float]) -> None:
    """A user would find two intervals for one configuration, and believe neither."""
    said = _said(_results(accuracy_low=own[0], accuracy_high=own[1]))
    why = (
        "(95% interval 0.790 to 0.950, which holds both figures; that of the table, 0.810 to "
        "0.940, takes 3 as given, as if nobody had chosen)."
    )
    assert (why in said) == (own != (0.79, 0.95))


def test_the_answer_itself_says_that_weights_are_random_or_no_tpu_ran() -> None:
    """Who reads the first sentence only would quote a figure that means nothing."""
    doubted = {"weights": "random", "device": "XLA:CPU (emulated)"}
    assert (
        "with an accuracy of 0.912, with RANDOM weights: says nothing of transfer learning, "
        "without a TPU: ran on XLA:CPU (emulated)."
    ) in _said(_results(**doubted))
    others = _results()
    others.loc[others["model_id"] != 3, list(doubted)] = list(doubted.values())
    assert "with an accuracy of 0.912. That is" in _said(others)


def _on_two(hardware: list[str], accuracy: list[float]) -> pd.DataFrame:
    """Make results of two models on two hardware types, as ids 1 and 2, 3 and 4."""
    results = _results(count=4)
    results["hardware_type"], results["accuracy"] = hardware, accuracy
    results["opt_alg"] = ["adam", "sgd"] * 2
    return results


def test_a_model_that_hardware_makes_no_difference_to_is_listed_once() -> None:
    """Half of the few rows that are shown would be repetitions of the other half."""
    results = _on_two(["cpu", "cpu", "tpu", "tpu"], [0.9, 0.8, 0.9, 0.85])
    text = describe_results(results, ASSESSMENT, Path("out"))
    assert text.startswith("4 configurations (2 models, each on cpu and tpu), 92 images")
    rows = [line.split()[:4] for line in text.splitlines() if " resnet18 single" in line]
    assert rows == [
        ["1,", "3", "cpu", "and"],
        ["4", "tpu", "resnet18", "single"],
        ["2", "cpu", "resnet18", "single"],
    ]
    assert "The 3 with the highest accuracy:" in text


def test_half_a_comparison_is_not_called_a_whole_one() -> None:
    """A user would believe that every model was tried on both hardware types."""
    results = _on_two(["cpu", "cpu", "tpu", "tpu"], [0.9, 0.8, 0.9, 0.85]).head(3)
    assert "each on" not in _said(results, cheapest=3)


def test_a_test_set_without_what_training_has_seen_is_quoted_with_count_and_interval() -> None:
    """A user would quote 1.00 of five images as if it were exact."""
    tested = _results(
        **{"test_fingerprint": "f", "test_looks": 1, "test_n_images": 23, "test_overlap": 3},
        test_accuracy_without_overlap=0.9,
    )
    expected = "3 has an accuracy of 0.900 on 20 images (95% interval 0.6"
    assert expected in _said(tested)
    assert "To quote" not in _said(tested.assign(test_overlap=0))
    none = tested.assign(test_overlap=23, test_accuracy_without_overlap=float("nan"))
    assert "To quote" not in _said(none)


def test_the_best_rows_are_shown_the_best_first_with_their_intervals() -> None:
    """The highest figure would not be the first that one sees, or look exact."""
    text = describe_results(_results(), ASSESSMENT, Path("out"))
    assert _shown_ids(text) == [8, 7, 6, 5, 4]
    assert text.count("0.250 to 0.750") == 5 + 1  # and once in the answer
    few = describe_results(_results(count=4), ASSESSMENT, Path("out"))
    assert _shown_ids(few) == [4, 3, 2, 1]
    assert "The 4 with the highest" in few


def test_ties_are_ordered_by_area_and_then_by_id() -> None:
    """The order would differ from run to run."""
    results = _results(count=4, accuracy=0.9)
    results["roc_auc"] = [0.7, 0.9, 0.7, 0.8]
    assert _shown_ids(describe_results(results, ASSESSMENT, Path("out"))) == [2, 4, 1, 3]


def test_test_columns_are_shown_only_after_an_evaluation() -> None:
    """Empty columns would look like figures that failed, or figures not be shown."""
    assert "test accuracy" not in describe_results(_results(), ASSESSMENT, Path("out"))
    tested = _results(test_accuracy=0.625, test_accuracy_low=0.5, test_accuracy_high=0.7)
    text = describe_results(tested, ASSESSMENT, Path("out"))
    assert "test accuracy" in text
    assert "0.625 0.500 to 0.700" in text


RANDOM = "- RANDOM weights: these figures say nothing of transfer learning."
EMULATED = "- No TPU was used: the rows of tpu ran on XLA:CPU (emulated)."
CAUTION = "- A model that sees only brightness has an accuracy of 0.90."

DOUBTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({}, []),
    "random weights": ({"weights": "random"}, [RANDOM]),
    "emulated": ({"device": "XLA:CPU (emulated)"}, [EMULATED]),
    "both": ({"weights": "random", "device": "XLA:CPU (emulated)"}, [RANDOM, EMULATED]),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_what_makes_figures_doubtful_is_said(case: str) -> None:
    """Someone would quote figures that mean nothing."""
    columns, expected = DOUBTS[case]
    findings = ["Two test images are training images."]
    text = describe_results(_results(**columns), ASSESSMENT, Path("out"), findings)
    items = [line for line in text.splitlines() if line.startswith("- ")]
    assert items == [*expected, CAUTION, f"- {findings[0]}"]


def test_results_without_their_assessment_are_still_shown() -> None:
    """A lost file would hide the table."""
    text = describe_results(_results(), None, Path("out"))
    assert _shown_ids(text) == [8, 7, 6, 5, 4]
    assert "The best is" not in text


def test_where_nearly_all_are_of_one_class_accuracy_is_put_in_its_place() -> None:
    """An answer that never finds the rare class would be quoted as 95% accurate."""
    crowded = {"conf_mat": [[190.0, 0.0], [10.0, 0.0]], "classes": ["common", "rare"]}
    results = _results(4, **crowded).assign(
        accuracy=[0.95, 0.96, 0.98, 0.6], balanced_accuracy=[0.5, 0.6, 0.76, 0.9]
    )
    said = _said(results, tied=(3,), cheapest=3)
    assert (
        "95% of the images are common: always answering that has an accuracy of 0.950, more than 1 "
        "of the 4 reach. Look at the balanced accuracy, in which each class counts the same and "
        "that answer has 0.500: the highest is 0.900, of 4 (cpu, resnet18, single, adam4)."
    ) in said
    even = _said(results.assign(conf_mat=[[[70.0, 0.0], [30.0, 0.0]]] * 4), tied=(3,), cheapest=3)
    assert "always answering" not in even


def test_of_many_classes_some_are_named_and_all_counted() -> None:
    """The answer would stand below a screen of names."""
    classes = [f"class {number:03}" for number in range(100)]
    lines = describe_results(_results(classes=classes), ASSESSMENT, Path("out")).splitlines()
    assert "100 classes: class 000, class 001" in lines[0]
    assert "class 009 and 90 more; 4 x" in " ".join(lines[:3])
