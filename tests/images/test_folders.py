"""Folders: what systems and gelkit itself leave there is no image, and is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gelkit.errors import UsageError
from gelkit.images import folders
from gelkit.images.catalog import read_catalog
from gelkit.images.formats import decode
from gelkit.images.samples import draw_samples
from gelkit.own_output import PNG_TEXT


def _image(path: Path, text: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = PngInfo()
    if text is not None:
        fields.add_text("Software", text)
    Image.new("L", (8, 8), 100).save(path, pnginfo=fields)


@pytest.fixture
def gels(tmp_path: Path) -> Path:
    """Return a folder of two classes with an image each."""
    _image(tmp_path / "gels/bad/1.png")
    _image(tmp_path / "gels/good/1.png")
    return tmp_path / "gels"


def _read(gels: Path) -> tuple[list[str], dict[str, str]]:
    catalog = read_catalog(gels)
    return [its.name for its in catalog.images], {it.name: it.kind for it in catalog.leftovers}


LEFT = {
    "trash": (".Trash-1000/files/1.png", ".Trash-1000"),
    "notebook": ("good/.ipynb_checkpoints/1.png", "good/.ipynb_checkpoints"),
    "zip of a Mac": ("__MACOSX/good/1.png", "__MACOSX"),
    "Synology": ("good/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "good/@eaDir"),
    "recycle bin of a store": ("#recycle/1.png", "#recycle"),
    "recycle bin": ("$Recycle.Bin/S-1-5/1.png", "$Recycle.Bin"),
    "Windows": ("System Volume Information/1.png", "System Volume Information"),
    "disk check": ("lost+found/1.png", "lost+found"),
    "snapshots": (".snapshot/hourly/good/1.png", ".snapshot"),
    "resource fork": ("good/._1.png", "good/._1.png"),
    "office": ("good/~$1.png", "good/~$1.png"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_systems_leave_is_no_class_and_no_image(case: str, gels: Path) -> None:
    """A recycle bin would be a class, or thumbnails would double every image."""
    file, left = LEFT[case]
    _image(gels / file)
    images, leftovers = _read(gels)
    assert images == ["bad/1.png", "good/1.png"]
    assert list(leftovers) == [left]


def test_a_hidden_folder_that_is_given_is_read(gels: Path) -> None:
    """Someone whose images lie in ``~/.data`` would be told that there are none."""
    gels.rename(gels.with_name(".data"))
    assert _read(gels.with_name(".data")) == (["bad/1.png", "good/1.png"], {})


OWN = {
    "results": (("gelkit.json",), "results that gelkit wrote"),
    "results of before": (("results.csv", "assessment.json"), "results that gelkit wrote"),
    "first results": (("results.csv", "heads/1.keras"), "results that gelkit wrote"),
    "cache": (("shard-20261128T090145.961292Z-d1ab0d408034.h5",), "a cache of gelkit"),
    "model": (("model.onnx", "preprocessing.json"), "a model that gelkit exported"),
}


@pytest.mark.parametrize("case", OWN)
def test_folders_that_gelkit_wrote_are_no_classes(case: str, gels: Path) -> None:
    """Where data and results lie together, plots would become a class that is easily known."""
    files, kind = OWN[case]
    _image(gels / "out/this/plots/roc.png")
    for name in files:
        (gels / "out/this" / name).parent.mkdir(parents=True, exist_ok=True)
        (gels / "out/this" / name).touch()
    assert _read(gels) == (["bad/1.png", "good/1.png"], {"out/this": kind})


@pytest.mark.parametrize("left", ["results.csv", "model.json", "shard-1.h5", "plots/x.svg"])
def test_a_folder_that_only_resembles_is_a_class(left: str, gels: Path) -> None:
    """A class whose folder holds somebody's own table would vanish."""
    (gels / "good" / left).parent.mkdir(exist_ok=True)
    (gels / "good" / left).touch()
    assert _read(gels) == (["bad/1.png", "good/1.png"], {})


def test_results_beside_the_classes_do_not_hide_them(gels: Path) -> None:
    """Whoever once said ``--out`` with the data's own folder would lose all images."""
    (gels / "gelkit.json").touch()
    assert _read(gels) == (["bad/1.png", "good/1.png"], {})


def test_a_picture_that_gelkit_drew_is_known_wherever_it_is(gels: Path) -> None:
    """A contact sheet would be an image without a label, and a copied plot one of a class."""
    for name in ("sheet.png", "good/roc.png"):
        _image(gels / name, PNG_TEXT["Software"])
    _image(gels / "good/2.png", "Imager 3.1")
    images, leftovers = _read(gels)
    assert images == ["bad/1.png", "good/1.png", "good/2.png"]
    assert leftovers == dict.fromkeys(["good/roc.png", "sheet.png"], "a picture that gelkit drew")
    given = read_catalog(gels / "sheet.png", gels / "good/2.png")
    assert [image.name for image in given.images] == ["2.png"]
    with pytest.raises(UsageError, match=r"no data: 'sheet\.png', a picture that gelkit drew"):
        read_catalog(gels / "sheet.png")


def test_samples_are_data(tmp_path: Path) -> None:
    """The sample set would be left out as gelkit's own output."""
    drawn = draw_samples(tmp_path / "samples", count=40)
    assert _read(tmp_path / "samples") == (
        sorted(path.relative_to(tmp_path / "samples").as_posix() for path in drawn),
        {},
    )


LINKS = {
    "before it": ("a", "good", "a", "good"),
    "after it": ("z", "good", "z", "good"),
    "from deeper": ("bad/more", "good", "bad/more", "good"),
    "to what is above": ("good/up", ".", "good/up", "."),
    "to a part": ("a", "good/deep", "a", "good/deep"),
}


@pytest.mark.parametrize("case", LINKS)
def test_a_link_to_a_class_does_not_take_its_images(case: str, gels: Path) -> None:
    """The class would vanish, and its images get the label of the link."""
    link, target, left, first = LINKS[case]
    _image(gels / "good/deep/2.png")
    (gels / link).symlink_to(gels / target)
    assert _read(gels) == (
        ["bad/1.png", "good/1.png", "good/deep/2.png"],
        {left: f"the same folder as {first!r}"},
    )


def test_links_to_elsewhere_are_followed_once(gels: Path) -> None:
    """Images that are kept once and linked would be lost, or have two labels."""
    _image(gels.parent / "store/ugly/1.png")
    for name in ("ugly", "zugly"):
        (gels / name).symlink_to("../store/ugly")
    assert _read(gels) == (
        ["bad/1.png", "good/1.png", "ugly/1.png"],
        {"zugly": "the same folder as 'ugly'"},
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_picture_that_may_not_be_read_is_left_to_stage_one(gels: Path) -> None:
    """One file of somebody else's would end the run instead of being named."""
    (gels / "good/1.png").chmod(0)
    assert _read(gels) == (["bad/1.png", "good/1.png"], {})


def _saved(path: Path, format_: str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 100).save(path, format_)
    return path.read_bytes()


@pytest.mark.parametrize("ending", [".jfif", ".JPE", ".jp2", ".j2k", ".avif", ".heic", ".hif"])
def test_further_endings_are_images(ending: str, gels: Path) -> None:
    """A telephone's photographs, or what a browser saves, would be left aside."""
    (gels / f"good/2{ending}").write_bytes(b"")
    assert _read(gels)[0] == ["bad/1.png", "good/1.png", f"good/2{ending}"]


@pytest.mark.parametrize(
    "format_", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF"]
)
def test_without_an_ending_an_image_is_known_by_its_content(format_: str, gels: Path) -> None:
    """Exports of systems that name files by numbers would be left aside."""
    data = _saved(gels / "good/0042", format_)
    assert _read(gels)[0] == ["bad/1.png", "good/0042", "good/1.png"]
    assert decode(data).record.format == format_


NO_IMAGES = {
    "a text": b"Read me first.\n",
    "a text about BMP": b"BMP files are kept in the folder of the year, see below.\n",
    "a text about GIF": b"GIF is not for gels: it has 256 colours\n",
    "a film": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(40),
    "sound": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(40),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_without_an_ending_nothing_else_is_an_image(kind: str, gels: Path) -> None:
    """Every README and Makefile would be an image that fails."""
    (gels / "good/README").write_bytes(NO_IMAGES[kind])
    _saved(gels / "good/notes.txt", "PNG")
    os.mkfifo(gels / "good/pipe")
    assert _read(gels)[0] == ["bad/1.png", "good/1.png"]
    assert read_catalog(gels).skipped == ("good/README", "good/notes.txt", "good/pipe")


def test_only_what_has_no_ending_is_opened(gels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of 100,000 files, on a network's disk above all, would take minutes to list."""
    for number in range(30):
        (gels / f"good/{number}.tif").touch()
        (gels / f"good/{number}.txt").touch()
    (gels / "good/LICENSE").touch()
    opened: list[str] = []
    monkeypatch.setattr(
        folders, "read_beginning", lambda path, count: opened.append(path.name) or b""
    )
    assert len(read_catalog(gels)) == 32
    assert opened == ["LICENSE"]


def test_a_folder_of_foreign_files_says_what_to_do(gels: Path) -> None:
    """Someone whose microscope writes its own files would hear that there are none."""
    for name in ("a.czi", "b.CZI", "c.lif", "d.pdf", "e.npy", "f.zip", "README"):
        (gels.parent / "own/day" / name).parent.mkdir(parents=True, exist_ok=True)
        (gels.parent / "own/day" / name).touch()
    with pytest.raises(UsageError) as refusal:
        read_catalog(gels.parent / "own")
    said = str(refusal.value)
    assert "2 .czi, 1 .lif (microscope and imager files: export each as a 16-bit TIFF" in said
    assert "1 .pdf (documents: save each figure as PNG or TIFF)" in said
    assert "1 .zip (archives: unpack them)" in said
    assert "1 without ending, 1 .npy. Give a folder" in said
