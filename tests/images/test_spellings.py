"""Spellings: one class is one, however spreadsheets, disks and colleagues write it."""

from __future__ import annotations

import doctest
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gelkit.images.spellings
from gelkit.errors import UsageError
from gelkit.images.catalog import CatalogImage, read_catalog
from gelkit.images.spellings import find_alike, require_one_spelling

COMPOSED, DECOMPOSED = "Gr\u00fcn", "Gru\u0308n"


def _images(column: str, *names: str) -> list[CatalogImage]:
    return [CatalogImage(Path("1.png"), "1.png", **{column: name}) for name in names]


REFUSED = {
    "a spreadsheet's space": ("label", ["good", "good "], "'good', 'good '."),
    "spaces within": ("label", ["not  good", "not good"], "'not  good', 'not good'."),
    "no break": ("label", ["good\u00a0", "good"], r"'good', 'good\xa0'."),
    "case": ("label", ["good", "Good"], "'Good', 'good'."),
    "umlauts": ("label", [COMPOSED, DECOMPOSED], r"'Gru\u0308n', 'Gr\xfcn'."),
    "sources": ("source", ["Lab A", "lab A"], "each source to be spelled in one way."),
    "groups": ("group", ["gel 1", "gel 1 "], "the manifest's column 'group'"),
    "groups with umlauts": ("group", [COMPOSED, DECOMPOSED], "each group to be spelled"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_two_spellings_of_one_name_are_refused(case: str) -> None:
    """A class would be two, that no head can tell apart; or a group be torn by a split."""
    column, names, said = REFUSED[case]
    with pytest.raises(UsageError) as error:
        require_one_spelling(_images(column, *names, "bad"))
    assert said in str(error.value)


def test_what_differs_is_allowed() -> None:
    """The gels A and a, or images without a source, would be refused."""
    require_one_spelling(_images("group", "A", "a"))
    require_one_spelling([*_images("label", "1", "01", "1.0", "-1"), *_images("group", "1 ")])


def test_a_test_set_spells_as_the_heads_do() -> None:
    """A held-out class would be called unknown, with a name that looks like a known one."""
    with pytest.raises(UsageError, match="'good', 'good '"):
        require_one_spelling(_images("label", "good "), known=("good", "bad"))


TEXTS = st.text(alphabet="aAäÄßsS\u0308\u0323\u0130\u0131i \u00a0\t", max_size=5)


@given(TEXTS)
def test_every_form_of_a_name_is_the_same_name(name: str) -> None:
    """Of two accents, or of a sharp s, one order or case would make another class."""
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    assert len(find_alike({name, *forms, f" {name} ", "another"})) == 1


@pytest.mark.parametrize(("given", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_manifest_finds_files_of_either_form(given: str, there: str, tmp_path: Path) -> None:
    """A table made on a Mac would name no file on another disk, or the other way round."""
    for name in (f"{there}/{given}.png", f"{there}/{there}.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gels.csv").write_text(f"path\n{given}/{given}.png\n{there}/{there}.png\n")
    images = read_catalog(tmp_path / "gels.csv").images
    assert [its.path.relative_to(tmp_path).as_posix() for its in images] == [
        f"{there}/{given}.png",
        f"{there}/{there}.png",
    ]


def test_another_form_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Whoever wrote a manifest could have files read that its reader did not mean to show."""
    (tmp_path / "secret.png").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{DECOMPOSED}.png").symlink_to("../secret.png")
    (tmp_path / "data/gels.csv").write_text(f"path\n{COMPOSED}.png\n")
    with pytest.raises(UsageError, match="inside the manifest's folder"):
        read_catalog(tmp_path / "data/gels.csv")


def test_the_examples_are_true() -> None:
    """The documentation would show what does not happen."""
    assert doctest.testmod(gelkit.images.spellings).failed == 0
