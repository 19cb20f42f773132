"""The folder of results: other data's are not overwritten, and the same data's are found again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gelkit.errors import UsageError
from gelkit.heads.assessment import read_assessment
from gelkit.heads.intervals import Interval
from gelkit.heads.results_folder import record_data, remove_outdated, require_same_data
from gelkit.heads.selection import Answer
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.own_output import PNG_TEXT


def _gels(folder: Path) -> Path:
    for name in ("a/1.png", "b/2.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with results of the data ``2023/gels``."""
    _gels(tmp_path / "project/2023/gels")
    monkeypatch.chdir(tmp_path / "project")
    Path("results/gels").mkdir(parents=True)
    record_data(Path("results/gels"), read_catalog("2023/gels"))
    return tmp_path / "project"


def test_other_data_of_the_same_name_are_refused(project: Path) -> None:
    """Last year's results would be gone, without a word."""
    _gels(Path("2024/gels"))
    with pytest.raises(UsageError) as error:
        require_same_data(Path("results/gels"), read_catalog("2024/gels"))
    for said in (f"'{project}/2023/gels'", f"'{project}/2024/gels'", "--out results/2024-gels."):
        assert said in str(error.value)
    require_same_data(Path("results/2024-gels"), read_catalog("2024/gels"))


def test_images_that_come_and_go_do_not_make_other_data(project: Path) -> None:
    """Whoever adds a day's images would have to find a new name each time."""
    Path("2023/gels/a/1.png").rename("2023/gels/a/3.png")
    require_same_data(Path("results/gels"), read_catalog(project / "2023/gels"))
    require_same_data(Path("results/gels"), read_catalog("2023/../2023/gels/"))


def test_a_project_that_is_moved_keeps_its_results(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project that was copied to another disk would be refused its own results."""
    moved = shutil.copytree(project, project.parent / "moved")
    shutil.rmtree(project / "2023")
    monkeypatch.chdir(moved)
    require_same_data(Path("results/gels"), read_catalog("2023/gels"))


def test_results_that_are_moved_are_those_of_their_data(project: Path) -> None:
    """Someone who tidies up results would be told that they are another's."""
    moved = Path("results/gels").rename("old")
    require_same_data(moved, read_catalog("2023/gels"))


def test_data_that_were_moved_are_told_what_to_do(project: Path) -> None:
    """Results of data that are elsewhere now would be lost, with nobody knowing how to go on."""
    moved = read_catalog(Path("2023/gels").rename("gels"))
    with pytest.raises(UsageError, match=r"moved: delete 'results/gels/gelkit\.json'"):
        require_same_data(Path("results/gels"), moved)
    Path("results/gels/gelkit.json").unlink()
    require_same_data(Path("results/gels"), moved)


@pytest.mark.parametrize("harm", [b"", b"[1]", b'{"data": ["x"]}', b"\xff"])
def test_a_damaged_record_is_written_anew(harm: bytes, project: Path) -> None:
    """A file that a crash or an editor has harmed would end every run."""
    Path("results/gels/gelkit.json").write_bytes(harm)
    catalog = read_catalog("2023/gels")
    require_same_data(Path("results/gels"), catalog)
    record_data(Path("results/gels"), catalog)
    _gels(Path("2024/gels"))
    with pytest.raises(UsageError, match="2023/gels"):
        require_same_data(Path("results/gels"), read_catalog("2024/gels"))


def test_a_catalog_made_by_hand_has_no_place(project: Path) -> None:
    """From Python, images that were put together by hand could not be compared."""
    require_same_data(Path("results/gels"), Catalog("gels", ()))
    record_data(Path("results/gels"), Catalog("gels", ()))
    require_same_data(Path("results/gels"), read_catalog("2023/gels"))


def test_an_assessment_of_before_is_still_read(tmp_path: Path) -> None:
    """Heads that were trained before would be refused by predict until they are trained again."""
    answer = dict.fromkeys(Answer.__dataclass_fields__, 1)
    answer |= {"interval": dict.fromkeys(Interval.__dataclass_fields__, 0.5), "tied": [1]}
    before = {"answer": answer, "estimand": "", "contrasts": [], "cautions": []}
    (tmp_path / "assessment.json").write_text(json.dumps({**before, "fingerprint": "of before"}))
    assessment = read_assessment(tmp_path)
    assert assessment is not None
    assert (assessment.answer.winner, assessment.heads) == (1, ())


def test_what_a_person_put_there_stays(project: Path) -> None:
    """With an outdated report, somebody's own figures would be deleted."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    plots, own = Path("results/gels/plots"), PngInfo()
    plots.mkdir()
    own.add_text("Software", PNG_TEXT["Software"])
    Image.new("L", (4, 4)).save(plots / "roc.png", pnginfo=own)
    Image.new("L", (4, 4)).save(plots / "talk.png")
    for name in ("roc.svg", "talk.svg", "../report.html", "../notes.txt"):
        (plots / name).touch()
    assert remove_outdated(Path("results/gels")) == ["report.html", "plots"]
    left = {path.relative_to("results/gels").as_posix() for path in plots.parent.rglob("*.*")}
    assert left == {"gelkit.json", "notes.txt", "plots/talk.png", "plots/talk.svg"}
    assert remove_outdated(Path("results/gels")) == []
