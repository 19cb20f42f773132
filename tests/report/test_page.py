"""The page: everything of the report is there, shown as text, whatever files are called or lost."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import gelkit
from gelkit.heads.contrasts import AssessedContrast, corrected_t_test
from gelkit.heads.held_out import keep_findings
from gelkit.heads.results import write_results
from gelkit.images.catalog import CatalogImage, image_identity
from gelkit.report.contents import ComparedImages, Contents, read_contents
from gelkit.report.contributions import describe_difference
from gelkit.report.gallery import hang_gallery, list_copies, nearest
from gelkit.report.numbers import MISSING, Scale, percent, scale_of_fractions
from gelkit.report.page import keep_rechecks, render_page
from gelkit.report.ranking import choose_columns, rank_configurations
from gelkit.report.thumbnails import Uses, draw_thumbnails
from gelkit.report.words import WORDS
from gelkit.tables import read_table

if TYPE_CHECKING:
    from conftest import Comparison

PLOT_NAMES = (
    *("answer", "heatmap", "axes", "roc", "precision_recall", "confusion", "calibration"),
    *("learning_curve", "time", "map"),
)
SECTIONS = [
    *("answer", "recheck", "warnings", "configurations", "axes", "curves", "calibration"),
    *("learning", "time", "gallery", "map", "copies", "words", "methods"),
]


@dataclass(frozen=True)
class DrawnPlot:
    """What the page needs of a plot."""

    name: str
    title: str
    caption: str
    svg: str


PLOTS = tuple(
    DrawnPlot(
        name, f"Title of {name}", "Caption & <b>", f'<svg role="img" id="{name}-figure_1"></svg>'
    )
    for name in PLOT_NAMES
)


class Elements(HTMLParser):
    """What a browser makes of a page: its elements, and the text that is to be read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.found.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        """Leave style and script."""
        self._hidden = self._hidden and tag not in ("style", "script")

    def handle_data(self, data: str) -> None:
        """Keep what is read."""
        self.text += "" if self._hidden else data

    def of(self, tag: str) -> Iterator[dict[str, str | None]]:
        """Yield the attributes of the elements of one kind."""
        return (attributes for name, attributes in self.found if name == tag)

    @property
    def said(self) -> str:
        """The text on one line."""
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def contents(comparison: Comparison) -> Contents:
    """Return what is known of the comparison."""
    return read_contents(comparison.out, comparison.cache)


@pytest.fixture(scope="module")
def page(contents: Contents) -> str:
    """Return the page of the comparison."""
    return render_page(contents, PLOTS)


@pytest.fixture
def copied(comparison: Comparison, tmp_path: Path) -> Comparison:
    """Return a copy of the comparison's results, to be damaged."""
    shutil.copytree(comparison.out, tmp_path / "out")
    return replace(comparison, out=tmp_path / "out")


def test_everything_is_there_in_its_order(page: str, contents: Contents) -> None:
    """A user would miss a part of the report, or find the details before the answer."""
    elements = Elements(page)
    ids = [its["id"] for its in elements.of("section")]
    assert ids == SECTIONS
    assert contents.gaps == ()
    assert "not at hand" not in elements.said
    assert [name for name in PLOT_NAMES if f"Title of {name}" not in elements.said] == []
    assert "Caption & <b>" in elements.said
    links = {its["href"] for its in elements.of("a")}
    assert {f"#{its}" for its in ids} <= links


def test_the_answer_is_corrected_for_choosing_and_comes_with_its_interval(
    page: str, contents: Contents
) -> None:
    """The winner's lucky figure would be quoted as its accuracy."""
    assert contents.assessment is not None
    answer = contents.assessment.answer
    said = Elements(page).said
    assert f"corrected for the choice it is {answer.corrected_score:.3f}" in said
    assert f"{answer.interval.low:.3f} to {answer.interval.high:.3f}" in said
    assert "not separable from it" in said


def test_what_makes_figures_doubtful_is_there(page: str) -> None:
    """Someone would quote figures of random weights, or take an emulation for a TPU."""
    answer = Elements(page[page.index('id="answer"') : page.index('id="recheck"')]).said
    assert "with RANDOM weights: says nothing of transfer learning" in answer
    said = Elements(page[page.index('id="warnings"') :]).said
    assert "RANDOM weights: these figures" in said
    assert "No TPU was used" in said
    assert "32 images are only 31 groups" in said


def test_mislabelled_images_are_named_in_the_page_and_in_a_table(
    comparison: Comparison, contents: Contents, page: str, tmp_path: Path
) -> None:
    """A wrong label would stay wrong."""
    keep_rechecks(contents, tmp_path)
    columns, rows = read_table(tmp_path / "recheck.csv")
    first = dict(zip(columns, rows[0], strict=True))
    assert first["path"] == str((comparison.data / "gel" / "plain-11.png").resolve())
    assert first["label"] == "gel"
    assert len(rows) <= 3
    section = page[page.index('id="recheck"') : page.index('id="warnings"')]
    assert "gel/plain-11.png" in Elements(section).said


def test_all_configurations_are_ranked_with_their_intervals(page: str, contents: Contents) -> None:
    """A user would not see which is best, or take the figures for exact."""
    table = page[page.index('id="results"') : page.index("</table>", page.index('id="results"'))]
    ids = re.findall(r'<th scope="row" class="number" data-value="(\d+)">', table)
    accuracy = contents.results.set_index("model_id")["accuracy"]
    ranked = accuracy[list(map(int, ids))].tolist()
    assert ranked == sorted(accuracy, reverse=True)
    assert table.count('class="bar"') == len(contents.results) == 4
    for low, high in zip(
        contents.results["accuracy_low"], contents.results["accuracy_high"], strict=True
    ):
        assert f"{low:.3f} to {high:.3f}" in table
    assert table.count("★") == 1


def test_of_equal_accuracy_the_best_comes_first(contents: Contents) -> None:
    """The answer would name one configuration, and the table begin with another."""
    level = contents.results.assign(accuracy=0.9, roc_auc=[0.7, 0.8, 0.9, 0.6])
    ranked = rank_configurations(level, choose_columns(level), best=15)
    assert [row.cells["model_id"].text for row in ranked] == ["15", "13", "3", "1"]
    assert [row.sign for row in ranked[:1]] == ["\N{BLACK STAR}"]


def test_names_and_labels_of_any_kind_are_shown_as_text(page: str, contents: Contents) -> None:
    """A file called like a script would run in the browser of whoever opens the report."""
    elements = Elements(page)
    assert [its for its in elements.of("img") if not str(its["src"]).startswith("data:")] == []
    assert len(list(elements.of("script"))) == len(list(elements.of("style"))) == 1
    handlers = [name for _, its in elements.found for name in its if name.startswith("on")]
    assert handlers == []
    assert "<img src=x onerror=window.pwned=1>" in elements.said
    every_image = Elements(render_page(replace(contents, rechecks=_all_of(contents)), ())).said
    for expected in (
        "<script>window.pwned=1<!--.png",
        '"><img src=x onerror=window.pwned=1>.png',
        r"a\nb.png",
        r"\u202egnp.evil.png",
        "\u0647\u0644\u0627\u0645.png",
        "{{ 7 * 7 }}.png",
        "&lt;b&gt;.png",
        r"\udcff\udcfe.png",
    ):
        assert expected in every_image


def _all_of(contents: Contents) -> tuple[object, ...]:
    assert contents.rechecks
    hostile = [i for i, label in enumerate(contents.images.labels) if label != "gel"]
    return tuple(replace(contents.rechecks[0], position=i) for i in hostile)


def test_the_page_loads_nothing_and_lets_no_other_script_run(page: str) -> None:
    """The report would need a network, or run what somebody put into it."""
    elements = Elements(page)
    policy = next(its["content"] for its in elements.of("meta") if "http-equiv" in its)
    for tag in ("style", "script"):
        inside = page[page.index(f"<{tag}>") + len(tag) + 2 : page.index(f"</{tag}>")]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert [its for _, its in elements.found if "style" in its] == []
    sources = [value for _, its in elements.found for name, value in its.items() if name == "src"]
    assert all(source.startswith("data:image/webp") for source in sources)
    assert list(elements.of("link")) == list(elements.of("iframe")) == []


def test_headings_pictures_and_tables_have_what_a_screen_reader_needs(page: str) -> None:
    """Someone who cannot see the page could not find their way in it."""
    elements = Elements(page)
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert [its for its in elements.of("img") if not its.get("alt")] == []
    assert [its for its in elements.of("th") if its.get("scope") not in ("row", "col")] == []
    assert [tag for tag, _ in elements.found if tag in ("main", "nav", "header", "footer")] == [
        "header",
        "nav",
        "main",
        "footer",
    ]
    assert next(elements.of("html"))["lang"] == "en"
    ids = [its["id"] for _, its in elements.found if "id" in its]
    assert len(ids) == len(set(ids))


def test_without_thumbnails_no_picture_is_in_the_page_and_all_names_are(contents: Contents) -> None:
    """Unpublished images would leave the house with the report."""
    page = render_page(contents, PLOTS, thumbnails=False)
    elements = Elements(page)
    assert list(elements.of("img")) == []
    assert "data:image" not in page
    assert "gel/plain-11.png" in elements.said
    assert "No picture" not in elements.said


def test_neighbours_and_groups_are_shown(page: str, contents: Contents) -> None:
    """A user could not see what an image was taken for, or which images are copies."""
    walls = hang_gallery(contents)
    assert [wall.title for wall in walls] == ["Most wrong", "Most uncertain", "Most confident"]
    images = contents.images
    assert images is not None
    for its in (its for wall in walls for its in wall.exhibits):
        assert len(its.neighbors) == 3
        assert all(images.groups[i.position] != images.groups[its.position] for i in its.neighbors)
    twins = {f"gel/plain-{number}.png" for number in (12, 13)}
    (group,) = list_copies(images.groups)
    assert {images.names[i] for i in group} == twins
    assert all(name in page.partition('id="copies"')[2] for name in twins)


def test_the_gallery_tells_wrong_from_right(contents: Contents) -> None:
    """Images would hang on the wrong wall, or the clearest case not come first."""
    wrong, uncertain, confident = hang_gallery(contents)
    assert all(its.label != its.predicted for its in wrong.exhibits)
    assert all(its.label == its.predicted for its in confident.exhibits)
    of_label = [its.probability_of_label for its in wrong.exhibits]
    assert of_label == sorted(of_label)
    surest = [its.probability_of_label for its in confident.exhibits]
    assert surest == sorted(surest, reverse=True)
    assert min(surest) > max(its.probability_of_predicted for its in uncertain.exhibits[:1])


def test_methods_have_the_numbers_of_this_run_and_references_to_what_they_name(page: str) -> None:
    """A paper would describe another protocol than the one that was used."""
    said = Elements(page).said.partition("For a paper")[2]
    for expected in (
        "32 images in 31 groups",
        "2 repeats of 3-fold cross-validation",
        "a learning rate of 0.02 in batches of 23 over 40 epochs",
        "weights random",
        "XLA:CPU (emulated)",
        f"gelkit {gelkit.__version__}",
        "https://doi.org/10.1007/s10994-018-5714-4",
        "https://doi.org/10.1613/jair.1.12125",
    ):
        assert expected in said


def _write_others(path: Path) -> None:
    np.save(path, np.full((2, 3, 2), 0.5, np.float32))


LOSSES: dict[str, tuple[Callable[[Path], None], str]] = {
    "assessment": (lambda out: (out / "assessment.json").unlink(), "The answer is not at hand"),
    "assessment damaged": (
        lambda out: (out / "assessment.json").write_text("{}") and None,
        "The answer is not at hand",
    ),
    "baselines": (lambda out: (out / "baselines.csv").unlink(), "The baselines are not at hand"),
    "images": (
        lambda out: (out / "training.csv").unlink(),
        "The images' names and labels are not at hand",
    ),
    "other images": (
        lambda out: (out / "training.csv").write_text("path,label,group\na.png,gel,1\n") and None,
        "expected 32 images in training.csv, received 1",
    ),
    "heads": (lambda out: shutil.rmtree(out / "heads"), "The record of the best head is not"),
    "predictions": (
        lambda out: [path.unlink() for path in (out / "heads").glob("*.npy")] and None,
        "The predictions of the best are not at hand",
    ),
    "predictions of other images": (
        lambda out: [_write_others(path) for path in (out / "heads").glob("*.npy")] and None,
        "expected predictions of (2, 32, 2), received (2, 3, 2)",
    ),
    "predictions damaged": (
        lambda out: [path.write_bytes(b"no") for path in (out / "heads").glob("*.npy")] and None,
        "The predictions of the best are not at hand",
    ),
}


@pytest.mark.parametrize("case", LOSSES)
def test_what_is_lost_is_named_and_the_rest_is_shown(copied: Comparison, case: str) -> None:
    """One lost file would take the whole report with it, or leave a hole that nobody sees."""
    lose, expected = LOSSES[case]
    lose(copied.out)
    said = Elements(render_page(read_contents(copied.out, copied.cache), ())).said
    assert expected in said
    assert "All configurations" in said
    assert said.count("could not be drawn") == len(PLOT_NAMES)


def test_without_a_cache_the_neighbours_are_missing_and_said_to_be(
    copied: Comparison, tmp_path: Path
) -> None:
    """The report would fail on a machine that has the results alone."""
    contents = read_contents(copied.out, tmp_path / "nowhere")
    assert contents.embeddings is None
    said = Elements(render_page(contents, PLOTS)).said
    assert "The embeddings of the best are not at hand" in said
    assert "No neighbours" in said
    assert "Most wrong" in said


def test_without_results_it_says_what_to_do(tmp_path: Path) -> None:
    """A user would see a traceback."""
    with pytest.raises(gelkit.UsageError, match="gelkit heads"):
        read_contents(tmp_path, tmp_path)


def test_images_that_moved_or_changed_are_not_shown_but_named(
    contents: Contents, comparison: Comparison, tmp_path: Path
) -> None:
    """Another picture would be shown under an image's name, or the report fail."""
    images, best = contents.images, contents.best
    assert images is not None
    assert best is not None
    first, second, third = images.images[:3]
    gone = replace(first, path=tmp_path / "gone.png")
    changed = replace(second, path=third.path)
    moved = replace(images, images=(gone, changed, *images.images[2:]))
    drawn = draw_thumbnails(moved, dict.fromkeys(range(3), Uses(1, 1)), best.recipe)
    assert [bool(drawn[i].original) for i in range(3)] == [False, False, True]
    assert [drawn[i].gap for i in range(2)] == ["file has gone", "file has other bytes"]
    page = Elements(render_page(replace(contents, images=moved, rechecks=_all_of(contents)), ()))
    assert "No picture: file has other bytes." in page.said
    groups = np.zeros_like(images.groups)
    strip = render_page(replace(contents, images=replace(moved, groups=groups)), ())
    assert strip.partition('id="copies"')[2].count("no picture") == 2


def test_moved_images_are_counted_and_explained_once(
    contents: Contents, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A user would see a report without a picture, and nothing that says why."""
    assert contents.images is not None
    images = [replace(its, path=tmp_path / its.path.name) for its in contents.images.images]
    moved = replace(contents, images=replace(contents.images, images=tuple(images)))
    page = Elements(render_page(moved, PLOTS))
    (warning,) = caplog.messages
    found = re.search(r"Pictures that are not shown.*: (\d+) \(file has gone\)\.", warning)
    assert found
    assert int(found[1]) > 6
    assert "gelkit heads" in warning
    assert page.said.count(warning) == 1
    assert str(tmp_path) not in page.said


def test_words_are_explained_alike_in_the_page_and_in_the_documentation(page: str) -> None:
    """A reader would meet 'p of lagging' or 'tied' and could look it up nowhere."""
    section = Elements(page[page.index('id="words"') : page.index('id="methods"')]).said
    documentation = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    for word, meaning in WORDS.items():
        assert f"{word} {meaning}" in section
        assert f"| {word} | {meaning} |" in documentation


def test_pictures_are_what_was_stored_and_what_was_seen(contents: Contents) -> None:
    """A user would judge an image by another picture."""
    images, best = contents.images, contents.best
    assert images is not None
    assert best is not None
    drawn = draw_thumbnails(images, {0: Uses(1, 1)}, best.recipe)[0]
    sizes = [_opened(uri).size for uri in (drawn.original, drawn.view)]
    assert sizes == [(224, 168), (224, 224)]
    with Image.open(images.images[0].path) as stored:
        expected = np.asarray(stored.convert("L").resize((32, 24), Image.Resampling.BOX), float)
    shown = np.asarray(_opened(drawn.original).convert("L").resize((32, 24)), float)
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.95


def test_each_page_of_a_file_has_its_own_picture(contents: Contents, tmp_path: Path) -> None:
    """A blot's second exposure would be shown as its first."""
    assert contents.best is not None
    first, second = (Image.new("L", (8, 8), grey) for grey in (50, 200))
    first.save(tmp_path / "blot.tif", save_all=True, append_images=[second])
    file = hashlib.sha256((tmp_path / "blot.tif").read_bytes()).hexdigest()
    pages = ComparedImages(
        images=tuple(CatalogImage(tmp_path / "blot.tif", "blot.tif", page=page) for page in (1, 2)),
        sha256s=tuple(image_identity(file, page) for page in (1, 2)),
        groups=np.zeros(2, np.int64),
    )
    drawn = draw_thumbnails(pages, dict.fromkeys((0, 1), Uses(1, 1)), contents.best.recipe)
    greys = [np.asarray(_opened(drawn[i].original).convert("L")).mean() for i in (0, 1)]
    assert greys == [pytest.approx(50, abs=3), pytest.approx(200, abs=3)]


def _opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_many_pictures_become_smaller_and_stay_within_the_budget(contents: Contents) -> None:
    """A report of large images could not be sent by mail."""
    images, best = contents.images, contents.best
    assert images is not None
    assert best is not None
    uses = dict.fromkeys(range(8), Uses(2, 1))
    generous = draw_thumbnails(images, uses, best.recipe)
    whole = sum(2 * len(its.original) + len(its.view) for its in generous.values())
    tight = draw_thumbnails(images, uses, best.recipe, budget=whole // 2)
    small = sum(2 * len(its.original) + len(its.view) for its in tight.values())
    assert _opened(generous[0].original).width == 224
    assert 48 <= _opened(tight[0].original).width < 224
    assert small <= whole // 2


def test_an_evaluated_test_set_is_reported(copied: Comparison) -> None:
    """A user would not find the figures that matter most, or what is wrong with them."""
    results = gelkit.read_results(copied.out / "results.csv")
    results["test_fingerprint"] = "f" * 64
    results["test_accuracy"], results["test_accuracy_without_overlap"] = 0.625, 0.8
    results["test_accuracy_low"], results["test_accuracy_high"] = 0.5, 0.75
    results["test_difference_p"] = 0.25
    for name, value in (("test_n_images", 40), ("test_overlap", 3), ("test_looks", 2)):
        results[name] = results[name].fillna(value)
    write_results(results, copied.out / "results.csv")
    keep_findings(copied.out, ["Three test images are training images."])
    elements = Elements(render_page(read_contents(copied.out, copied.cache), PLOTS))
    assert [its["id"] for its in elements.of("section")].count("test") == 1
    assert "40 images, 3 of which are training images" in elements.said
    assert "0.625 0.500 to 0.750" in elements.said
    assert "an accuracy of 0.800 on 37 images (95% interval 0." in elements.said
    assert "Three test images are training images." in elements.said
    assert "at look 2" in elements.said
    assert "Test accuracy" in elements.said


def test_neighbours_are_by_cosine_and_of_other_groups() -> None:
    """Copies of an image, or the brightest images, would be called its neighbours."""
    embeddings = np.array([[1, 0], [2, 0], [9, 1], [0, 5], [0, 0]], np.float32)
    found = nearest(0, embeddings, np.array([0, 0, 1, 2, 3]))
    assert [its.position for its in found] == [2, 3, 4]
    assert found[0].cosine == pytest.approx(9 / np.hypot(9, 1))
    assert [its.cosine for its in found[1:]] == [0, 0]


def test_the_interval_of_a_difference_belongs_to_its_test() -> None:
    """A difference would be called significant, and its interval hold zero."""
    drawn = np.random.default_rng(0).normal(0.1, 0.2, 15)
    t, p_value = corrected_t_test(drawn, 0.25)
    contrast = AssessedContrast("head: multi - single", float(drawn.mean()), t, p_value, p_value)
    difference = describe_difference(contrast, len(drawn))
    assert (difference.low > 0 or difference.high < 0) == (p_value < 0.05)
    assert difference.low < drawn.mean() < difference.high
    shifted = drawn - difference.low  # at the interval's end, p is its level
    assert corrected_t_test(shifted, 0.25)[1] == pytest.approx(0.05)
    even = describe_difference(replace(contrast, difference=0.0, t=0.0), len(drawn))
    assert even.interval == MISSING
    assert (difference.axis, difference.names) == ("head", "multi \N{MINUS SIGN} single")


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(1.0, 1, "100.0%"), (0.9999, 1, "99.9%"), (0.5, 0, "50%"), (float("nan"), 0, MISSING)],
    ids=["all", "nearly all", "half", "unknown"],
)
def test_nearly_all_is_not_shown_as_all(value: float, digits: int, expected: str) -> None:
    """Two devices that differ in a prediction would be said to agree in all."""
    assert percent(value, digits) == expected


def test_bars_lie_on_one_scale() -> None:
    """Bars of two rows could not be compared, or leave their cell."""
    scale = scale_of_fractions([0.63, float("nan"), 0.91], mark=0.65)
    assert scale == Scale(0.6, 1.0, 0.65)
    assert scale_of_fractions([0.83], mark=0.5) == Scale(0.8, 1.0, None)
    assert scale.place(0.8) == "50.00%"
    assert (scale.place(0.1), scale.place(1.5)) == ("0.00%", "100.00%")
    assert scale_of_fractions([1.0, 1.0]) == Scale(0.9, 1.0)


def test_random_weights_beside_pretrained_ones_are_marked_and_listed_last(
    contents: Contents,
) -> None:
    """A row that has learnt nothing from photographs would stand on top, and look like the rest."""
    results = contents.results.head(2).assign(
        weights=["random", "X.IMAGENET1K_V1"], accuracy=[0.99, 0.6], model_id=[1, 15]
    )
    columns = choose_columns(results)
    assert columns[-1].key == "weights"
    ranked = rank_configurations(results, columns, best=15)
    assert [row.cells["weights"].text for row in ranked] == ["pretrained", "RANDOM"]
    assert "weights" not in [its.key for its in choose_columns(contents.results)]
