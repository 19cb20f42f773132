"""Plots: they show the figures of the results, whatever classes are called, and never crash."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gelkit.errors import UsageError
from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.files import write_atomically
from gelkit.heads.assessment import ASSESSMENT_FILE, BASELINES_FILE, Assessment
from gelkit.heads.calibration import calibration
from gelkit.heads.comparison import PREDICTIONS_FILE, RESULTS_FILE
from gelkit.heads.configurations import Configuration, choose_configurations
from gelkit.heads.contrasts import (
    assess_contrasts,
    axis_contrasts,
    fold_scores,
    predicted_to_trained,
)
from gelkit.heads.intervals import bound_columns, intervals
from gelkit.heads.metrics import score_out_of_fold
from gelkit.heads.predictions import predicted_columns, write_predictions
from gelkit.heads.probes import make_baselines, write_baselines
from gelkit.heads.results import make_results, write_results
from gelkit.heads.saved import SavedHead, head_path, write_head
from gelkit.heads.selection import Cost, choose_best
from gelkit.heads.splits import make_splits
from gelkit.heads.training import Settings
from gelkit.report.plots import (
    PLOTS,
    Figures,
    Plot,
    Predictions,
    draw_plots,
    read_figures,
    save_plots,
)
from gelkit.report.plots.calibration import draw_calibration
from gelkit.report.plots.canvas import Drawing, house_style, render

FOLDS, REPEATS = 3, 2
HOSTILE = ("$x^2$ <b>&\"'", "_a\nb\u202e", "泳道 " + "long " * 20)


def _draw_figures(
    classes: tuple[str, ...] = ("gel", "not_gel"),
    *,
    ids: Collection[int] = (1, 2, 13, 14),
    images: int = 24,
) -> Figures:
    """Draw what a comparison of some of the 24 would leave."""
    generator = np.random.default_rng(0)
    groups = np.arange(images) // 2
    targets = groups % len(classes)
    splits = make_splits(targets, groups, classes, folds=FOLDS, repeats=REPEATS)
    configurations = [its for its in choose_configurations() if its.model_id in ids]
    probabilities = {}
    for each in configurations:
        scores = generator.normal(size=(REPEATS, images, len(classes)))
        powers = np.exp(scores + np.eye(len(classes))[targets])
        probabilities[each.model_id] = (powers / powers.sum(axis=2, keepdims=True)).astype("f4")
    losses = np.stack([its.argmax(axis=2) != targets for its in probabilities.values()])
    scored = [
        _row(each, classes, targets, probabilities[each.model_id], splits, groups)
        for each in configurations
    ]
    return Figures(
        results=make_results(scored),
        assessment=Assessment(
            answer=choose_best(
                losses.astype(np.float32),
                targets,
                groups,
                costs=[Cost(1.0, 1, each.model_id) for each in configurations],
            ),
            estimand="heads",
            contrasts=assess_contrasts(
                axis_contrasts(configurations),
                fold_scores(1 - losses.astype(np.float32), splits),
                predicted_to_trained(splits),
            ),
            cautions=(),
        ),
        baselines=make_baselines([{"name": "majority", "accuracy": 0.5, "conf_mat": [[1]]}]),
        predictions=Predictions(targets, groups, splits, probabilities),
        embeddings=generator.normal(size=(images, 6)).astype(np.float32),
    )


def _row(each: Configuration, classes, targets, predicted, splits, groups) -> dict[str, object]:
    calibrated = calibration(targets, predicted, groups, seed=0)
    return {
        "model_id": each.model_id,
        "hardware_type": each.hardware,
        "pretrained_model": each.backbone,
        "classifier_head": each.head,
        "opt_alg": each.optimizer,
        "training_time_secs": 2.5,
        "inference_time_secs": 0.01,
        "extraction_time_secs": 60.0,
        **score_out_of_fold(targets, predicted, splits).columns(),
        **bound_columns(intervals(targets, predicted, splits, groups)),
        "ece": calibrated.ece,
        "ece_if_calibrated": calibrated.ece_if_calibrated,
        "n_images": len(targets),
        "n_groups": int(groups.max()) + 1,
        "classes": list(classes),
        "device": "cpu (drawn)" if each.hardware == "cpu" else "XLA:CPU (emulated)",
        "weights": "random",
        "folds": FOLDS,
        "repeats": REPEATS,
        "splits_fingerprint": "splits",
    }


FIGURES = _draw_figures()


@pytest.fixture(scope="module")
def plots() -> dict[str, Plot]:
    """Return the plots of an ordinary comparison, by name."""
    return {plot.name: plot for plot in draw_plots(FIGURES)}


@pytest.fixture(scope="module")
def hostile() -> dict[str, Plot]:
    """Return the plots of 24 configurations and ten classes, some of which are called anything."""
    classes = (*HOSTILE, *(f"class {number} of the gels" for number in range(7)))
    figures = _draw_figures(classes, images=100)
    rows = figures.results.to_dict("records")
    everything = make_results([rows[i % len(rows)] | {"model_id": i + 1} for i in range(24)])
    return {plot.name: plot for plot in draw_plots(replace(figures, results=everything))}


def _texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter() if _is_text(text)]


def _is_text(element: ElementTree.Element) -> bool:
    return element.tag.endswith("text")


def test_all_plots_come_in_the_order_of_the_report(plots: dict[str, Plot]) -> None:
    """The page would lack a plot, or show them in another order than it says."""
    assert list(plots) == list(PLOTS)
    assert list(plots) == [
        "answer",
        "heatmap",
        "axes",
        "roc",
        "precision_recall",
        "confusion",
        "calibration",
        "learning_curve",
        "time",
        "map",
    ]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_words_and_both_pictures(plots: dict[str, Plot], name: str) -> None:
    """Someone who cannot see it, or wants it in a paper, would have nothing."""
    plot = plots[name]
    assert plot.title
    assert plot.caption.endswith(".")
    assert re.search(r"\d", plot.alt)
    assert ElementTree.fromstring(plot.svg).get("aria-label") == plot.alt
    picture = Image.open(io.BytesIO(plot.png))
    assert picture.width >= 1000
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", PLOTS)
def test_an_svg_needs_nothing_and_disturbs_nothing(hostile: dict[str, Plot], name: str) -> None:
    """A strict page would show it without its styles, or two plots would mix up their parts."""
    svg = hostile[name].svg
    elements = list(ElementTree.fromstring(svg).iter())
    assert not [each for each in elements if "style" in each.attrib]
    assert {each.tag.rpartition("}")[2] for each in elements} <= {
        *("svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "image")
    }
    ids = [each.get("id", "") for each in elements if "id" in each.attrib]
    assert len(ids) == len(set(ids))
    assert all(each.startswith(f"{name}-") for each in ids)
    references = re.findall(r'(?:url\(|href=")#([^)"]+)', svg)
    assert set(references) <= set(ids)
    assert not re.findall(r'https?://(?!www\.w3\.org/2000/svg")', svg)


@pytest.mark.parametrize("name", PLOTS)
def test_text_has_the_colour_of_the_page(plots: dict[str, Plot], name: str) -> None:
    """On a dark page nobody could read it, or what stands on the colours of a cell."""
    root = ElementTree.fromstring(plots[name].svg)
    assert root.get("fill") == "currentColor"
    on_cells = {"heatmap": r"\d\.\d+", "confusion": r"\d+ %|[\d.]+"}.get(name, "nothing")
    for each in filter(_is_text, root.iter()):
        on_cell = re.fullmatch(on_cells, each.text or "")
        expected = {"#010101", "#ffffff"} if on_cell else {"currentColor"}
        assert each.get("fill") in expected, each.text


def test_the_same_figures_give_the_same_bytes(plots: dict[str, Plot]) -> None:
    """A report made again would differ for no reason."""
    import matplotlib

    with matplotlib.rc_context({"xtick.labelsize": 30, "font.size": 30, "svg.fonttype": "path"}):
        again = draw_plots(_draw_figures())
    assert {plot.name: plot for plot in again} == plots


def test_class_names_are_shown_as_they_are(hostile: dict[str, Plot]) -> None:
    """A class would be missing from a plot, set as a formula, or end the report with an error."""
    for name in ("confusion", "roc", "map"):
        said = " ".join(_texts(hostile[name].svg))
        assert "$x^2$ <b>&\"'" in said
        assert r"_a\nb\u202e" in said
        assert "泳道" in said
    assert not re.search(r"[\x00-\x1f\u202e]", "".join(plot.alt for plot in hostile.values()))


def test_the_answer_shows_every_configuration_best_first(plots: dict[str, Plot]) -> None:
    """A configuration would be hidden, or the best not be on top."""
    texts = [text for text in _texts(plots["answer"].svg) if re.match(r"\d+ [a-z]|best", text)]
    ranked = FIGURES.results.sort_values(["accuracy", "roc_auc"], ascending=False)
    assert texts == ["best, corrected", *(FIGURES.label(i) for i in ranked["model_id"])]
    answer = FIGURES.assessment.answer
    assert f"corrected {answer.corrected_score:.3f}" in plots["answer"].alt


def test_the_heat_map_shows_each_metric(plots: dict[str, Plot]) -> None:
    """A figure of the plot would not be that of the table."""
    texts = _texts(plots["heatmap"].svg)
    for metric in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc"):
        for value in FIGURES.results[metric]:
            assert f"{value:.3f}" in texts


def test_the_confusion_matrix_adds_up_to_the_images(plots: dict[str, Plot]) -> None:
    """Images would be lost or counted twice."""
    matrices = len(FIGURES.leaders)
    cells = [
        float(text) for text in _texts(plots["confusion"].svg) if re.fullmatch(r"[\d.]+", text)
    ]
    assert len(cells) == 4 * matrices
    assert sum(cells) == pytest.approx(24 * matrices)


def test_the_roc_plot_names_the_area_of_the_results(plots: dict[str, Plot]) -> None:
    """The plot and the table would show two figures of the same thing."""
    winner = FIGURES.row(FIGURES.winner)
    assert f"{winner['roc_auc']:.3f} ({winner['roc_auc_low']:.3f}" in plots["roc"].alt


def test_differences_are_drawn_with_the_interval_that_their_test_has(
    plots: dict[str, Plot],
) -> None:
    """A difference would look sure that its own test calls chance."""
    from scipy.stats import t as student

    from gelkit.report.plots.contributions import reach

    freedom = FOLDS * REPEATS - 1
    for contrast in FIGURES.assessment.contrasts:
        half = reach(contrast, freedom)
        if np.isnan(half):
            continue
        assert (half < abs(contrast.difference)) == (contrast.p_value < 0.05)
        error = half / student.ppf(0.975, freedom)
        assert contrast.difference / error == pytest.approx(contrast.t)
        assert f"{contrast.name} {contrast.difference:+.3f}" in plots["axes"].alt


def test_hardware_is_shown_as_agreement(plots: dict[str, Plot]) -> None:
    """Someone would take the noise between two devices for a finding."""
    predicted = {i: its.argmax(axis=2) for i, its in FIGURES.predictions.probabilities.items()}
    share = np.mean([predicted[1] == predicted[13], predicted[2] == predicted[14]])
    assert f"{100 * share:.1f} %" in plots["axes"].alt
    assert "No TPU was used: tpu ran on XLA:CPU (emulated)." in plots["axes"].caption


def test_a_metric_that_is_not_defined_is_a_dash() -> None:
    """A class alone would end the report with an error."""
    results = FIGURES.results.assign(roc_auc=float("nan"))
    drawn = draw_plots(Figures(results))
    svg = next(plot.svg for plot in drawn if plot.name == "heatmap")
    dashes = [each for each in ElementTree.fromstring(svg).iter() if each.text == "-"]
    assert len(dashes) == len(results)
    assert {each.get("fill", "currentColor") for each in dashes} == {"currentColor"}


def test_what_is_not_at_hand_is_left_out() -> None:
    """A lost file would cost the whole report, or a plot would be made up."""
    drawn = draw_plots(Figures(FIGURES.results))
    assert [plot.name for plot in drawn] == ["answer", "heatmap", "confusion", "time"]
    assert "corrected" not in drawn[0].alt


def test_one_configuration_on_few_images_is_drawn() -> None:
    """The report of the smallest data set would end with an error."""
    drawn = [plot.name for plot in draw_plots(_draw_figures(ids=(1,), images=12))]
    assert drawn == [name for name in PLOTS if name not in ("axes", "learning_curve")]


def test_the_plots_of_ten_classes_and_24_configurations_stay_light(
    hostile: dict[str, Plot],
) -> None:
    """A report would be too heavy for an attachment."""
    assert list(hostile) == list(PLOTS)
    assert sum(len(plot.svg) for plot in hostile.values()) < 600_000


BELIEVED: dict[str, tuple[float, float, str]] = {
    "within chance": (0.02, 1.0, "They can be believed as far as these images show: they are off"),
    "too sure": (0.2, 0.5, "off by more than chance (expected calibration error 0.200; by chance"),
    "too sure, said": (0.2, 0.5, "and heads are too sure of themselves (slope 0.50 instead of 1)"),
    "not sure enough": (0.2, 1.5, "and heads are not sure enough (slope 1.50 instead of 1)"),
    "no slope": (0.2, float("nan"), "by chance up to 0.050). gelkit predict calibrates them"),
}


@pytest.mark.parametrize("case", BELIEVED)
def test_whether_probabilities_can_be_believed_is_said(case: str) -> None:
    """A user would be left with two numbers, and no idea whether 0.9 means nine of ten."""
    error, slope, expected = BELIEVED[case]
    changed = {"ece": error, "ece_if_calibrated": 0.05, "calibration_slope": slope}
    drawing = draw_calibration(replace(FIGURES, results=FIGURES.results.assign(**changed)))
    assert drawing is not None
    assert expected in drawing.caption


CROWDED = ("confusion", "roc", "precision_recall", "map")


@pytest.fixture(scope="module")
def drawings() -> dict[str, Drawing]:
    """Draw 32 classes whose long names differ in the middle."""
    classes = tuple(f"gel of the {number:03}th preparation, long name" for number in range(32))
    figures = _draw_figures(classes, ids=(1,), images=6 * 32)
    with house_style():
        return {name: PLOTS[name](figures) for name in CROWDED}


@pytest.fixture(scope="module")
def crowded(drawings: dict[str, Drawing]) -> dict[str, Plot]:
    """Return the same as pictures."""
    with house_style():
        return {name: render(name, drawing) for name, drawing in drawings.items()}


@pytest.mark.exhaustive("exhaustive grids")
@pytest.mark.parametrize("name", CROWDED)
def test_a_plot_of_many_classes_fits_on_a_page(crowded: dict[str, Plot], name: str) -> None:
    """One would scroll past metres of what nobody can read."""
    width, height = Image.open(io.BytesIO(crowded[name].png)).size
    assert height < 1.2 * width
    assert len(crowded[name].svg) < 2e6
    assert len(crowded[name].alt) < 9000


@pytest.mark.exhaustive("exhaustive grids")
@pytest.mark.parametrize("name", ["confusion", "roc", "map"])
def test_names_that_differ_in_the_middle_are_told_apart(
    crowded: dict[str, Plot], name: str
) -> None:
    """All classes would be called 'gel of the...long name'."""
    texts = _texts(crowded[name].svg)
    told = {found[0] for text in texts if (found := re.search(r"…\d{3}th…", text))}
    assert len(told) >= 10
    assert not any("gel of" in text for text in texts)


@pytest.mark.exhaustive("exhaustive grids")
def test_of_many_classes_the_hardest_have_curves(crowded: dict[str, Plot]) -> None:
    """Ten classes would be drawn because they come first, and be taken for all."""
    texts = _texts(crowded["roc"].svg)
    assert "the best one's 10 hardest classes" in texts
    areas = [float(text.rsplit(" ", 1)[1]) for text in texts if re.search("…: [01][.]", text)]
    (mean,) = [float(text.split(" ")[0]) for text in texts if re.match(r"0\.\d+ \(", text)][:1]
    assert len(areas) == 10
    assert max(areas) < mean


@pytest.mark.exhaustive("exhaustive grids")
def test_of_many_classes_the_map_marks_some_and_no_two_alike(
    drawings: dict[str, Drawing],
) -> None:
    """The eleventh class would look like the first."""
    assert "The 30 largest of 32 classes are marked." in drawings["map"].caption
    others, *classes, wrong = drawings["map"].figure.axes[0].get_lines()
    assert (others.get_label(), wrong.get_label()) == ("other classes", "mostly predicted wrong")
    assert len(others.get_xdata()) == 2 * 6
    assert len({(line.get_color(), line.get_marker()) for line in classes}) == 30


@pytest.mark.exhaustive("exhaustive grids")
def test_the_confusion_of_many_classes_names_what_is_mistaken(crowded: dict[str, Plot]) -> None:
    """A grid of colours without a number would leave the reader with nothing."""
    assert crowded["confusion"].caption.count("th preparation, long name for gel of the") == 5
    assert not [text for text in _texts(crowded["confusion"].svg) if "%" in text]


def test_a_map_of_many_images_draws_some_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large data set would make a huge file, or hide that not all images are shown."""
    monkeypatch.setattr("gelkit.report.plots.embedding_map.MOST_POINTS", 10)
    drawing = PLOTS["map"](FIGURES)
    assert drawing is not None
    assert drawing.caption.startswith("10 of the 24 images, drawn by lot,")


def test_saved_plots_are_files_of_their_names(plots: dict[str, Plot], tmp_path: Path) -> None:
    """Nobody would find the picture for the paper."""
    save_plots(list(plots.values()), tmp_path / "new" / "plots")
    for plot in plots.values():
        assert (tmp_path / "new" / "plots" / f"{plot.name}.svg").read_text() == plot.svg
        assert (tmp_path / "new" / "plots" / f"{plot.name}.png").read_bytes() == plot.png
    assert len(list((tmp_path / "new" / "plots").iterdir())) == 2 * len(plots)


def _leave(figures: Figures, out: Path, cache: Path) -> None:
    """Write what ``heads`` would have left of figures."""
    predictions, recipe = figures.predictions, make_recipe("resnet18", "cpu", RecipeOptions())
    digests = tuple(f"{number:064x}" for number in range(len(predictions.targets)))
    labels = [figures.classes[number] for number in predictions.targets]
    out.mkdir()
    rows = figures.results.to_dict("records")
    for each, row in zip(figures.configurations, rows, strict=True):
        saved = SavedHead(
            each,
            figures.classes,
            recipe,
            RecipeOptions(),
            Settings(),
            "",
            digests,
            {"splits_fingerprint": row["splits_fingerprint"]},
        )
        write_head(out, saved, b"head", predictions.probabilities[each.model_id])
    write_results(figures.results, out / RESULTS_FILE)
    write_baselines(figures.baselines, out / BASELINES_FILE)
    assessment = json.dumps(asdict(figures.assessment)).encode()
    write_atomically(out / ASSESSMENT_FILE, assessment)
    pieces = [
        {
            "model_id": [model_id] * predictions.splits.size,
            "repeat": np.repeat(np.arange(REPEATS), len(digests)),
            "fold": predictions.splits.ravel(),
            "image": digests * REPEATS,
            "sha256": digests * REPEATS,
            "group": np.tile(predictions.groups, REPEATS),
            "label": labels * REPEATS,
            **predicted_columns(figures.classes, its.reshape(-1, len(figures.classes))),
        }
        for model_id, its in predictions.probabilities.items()
    ]
    write_predictions(pieces, out / PREDICTIONS_FILE)
    columns = dict.fromkeys(COLUMNS, np.zeros(len(digests)))
    columns |= {
        "sha256": digests,
        "embedding": figures.embeddings,
        "intensity": np.zeros((len(digests), 13)),
        **dict.fromkeys(("format", "mode"), np.full(len(digests), "L", "S16")),
    }
    Cache(cache, recipe).publish(make_rows(columns, {"weights_sha256": "", "device": "cpu"}))


HARM = {
    "nothing": ("", (), ()),
    "assessment": (ASSESSMENT_FILE, ("assessment",), ("No assessment fits",)),
    "baselines": (BASELINES_FILE, ("baselines",), ("No baselines.csv",)),
    "predictions": (
        PREDICTIONS_FILE,
        ("predictions", "embeddings"),
        ("Out-of-fold predictions", "The winner's embeddings"),
    ),
}


@pytest.mark.parametrize("case", HARM)
@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_figures_are_read_as_they_were_left(tmp_path: Path, case: str, how: str) -> None:
    """A plot would show other figures than the run had, or a lost file end the report."""
    file, missing, gaps = HARM[case]
    figures = _draw_figures(HOSTILE, images=36)
    _leave(figures, tmp_path / "out", tmp_path / "cache")
    if file and how == "lost":
        (tmp_path / "out" / file).unlink()
    elif file:
        (tmp_path / "out" / file).write_text('a,b\n"1')
    read = read_figures(tmp_path / "out", tmp_path / "cache")
    assert [sentence.startswith(gap) for sentence, gap in zip(read.gaps, gaps, strict=True)] == (
        [True] * len(gaps)
    )
    assert read.classes == HOSTILE
    for name in ("assessment", "baselines", "predictions", "embeddings"):
        assert (getattr(read, name) is None) == (name in missing), name
    if "assessment" not in missing:
        assert read.assessment == figures.assessment
    if "predictions" not in missing:
        for name in ("targets", "groups", "splits"):
            assert np.array_equal(
                getattr(read.predictions, name), getattr(figures.predictions, name)
            )
        for model_id, its in figures.predictions.probabilities.items():
            assert np.array_equal(read.predictions.probabilities[model_id], its)
    if "embeddings" not in missing:
        assert np.array_equal(read.embeddings, figures.embeddings)


def test_predictions_of_another_run_are_not_drawn(tmp_path: Path) -> None:
    """A head trained again since would be drawn beside figures that are not its own."""
    _leave(FIGURES, tmp_path / "out", tmp_path / "cache")
    winner = next(its for its in FIGURES.configurations if its.model_id == FIGURES.winner)
    head_path(tmp_path / "out", winner).with_suffix(".npy").write_bytes(b"other")
    read = read_figures(tmp_path / "out", tmp_path / "cache")
    assert FIGURES.winner not in read.predictions.probabilities
    assert read.embeddings is None
    assert len(read.gaps) == 2
    assert not {"roc", "calibration", "map"} & {plot.name for plot in draw_plots(read)}


def test_a_lost_cache_costs_only_what_needs_embeddings(tmp_path: Path) -> None:
    """A cache that was pruned would cost the whole report."""
    _leave(FIGURES, tmp_path / "out", tmp_path / "cache")
    read = read_figures(tmp_path / "out", tmp_path / "elsewhere")
    assert read.embeddings is None
    assert read.predictions is not None
    assert ["--cache" in gap for gap in read.gaps] == [True]


def test_without_results_the_command_is_named(tmp_path: Path) -> None:
    """A user would not know what to run first."""
    with pytest.raises(UsageError, match="gelkit heads DATA"):
        read_figures(tmp_path, tmp_path)
