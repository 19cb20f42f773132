"""The catalog: which files count as images, with which label, and what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.images.catalog import (
    Catalog,
    CatalogImage,
    image_identity,
    part_name,
    read_catalog,
    require_classes,
    write_manifest,
)


def _files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_the_first_sub_folders_are_the_classes(tmp_path: Path) -> None:
    """Labels would be turned into numbers or missing values, or taken from the wrong folder."""
    root = _files(tmp_path, "001/a.png", "NA/deep/er/b.TIF", "001/notes.txt", "loose.jpg")
    catalog = read_catalog(root)
    assert {image.name: image.label for image in catalog.images} == {
        "001/a.png": "001",
        "NA/deep/er/b.TIF": "NA",
        "loose.jpg": None,
    }
    assert catalog.classes == ("001", "NA")
    assert catalog.skipped == ("001/notes.txt",)
    assert catalog.name == tmp_path.name


GIVEN = {
    "a folder above": (
        "gels/gel",
        "Is 'gels/gel' one of the classes? Then give the folder above it: 'gels'.",
    ),
    "the folder one is in": (
        ".",
        "Is '.' one of the classes? Then give the folder above it: '{above}'.",
    ),
    "from the folder above": (
        "gel",
        "Is 'gel' one of the classes? Then give the folder above it: '{above}'.",
    ),
    "labels for some": ("gels", "'loose.png'). Move them into a class folder"),
    "a manifest": ("gels.csv", "'gels/loose.png'). Move them into a class folder"),
    "a file": ("gels/loose.png", "'loose.png'). Move them into a class folder"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_class_given_for_the_whole_is_told(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone who gave one of the classes would be told to move images about."""
    _files(tmp_path, "gels/gel/a.png", "gels/other/b.png", "gels/loose.png")
    (tmp_path / "gels.csv").write_text("path\ngels/loose.png\n")
    data, said = GIVEN[case]
    monkeypatch.chdir(tmp_path / {".": "gels/gel", "gel": "gels"}.get(data, ""))
    with pytest.raises(UsageError) as error:
        require_classes(read_catalog(data))
    assert said.format(above=tmp_path / "gels") in str(error.value)


def test_the_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    """Splits would differ between machines."""
    names = ["b/2.png", "a/10.png", "a/9.png", "b/1.png"]
    catalog = read_catalog(_files(tmp_path, *names))
    assert [image.name for image in catalog.images] == sorted(names)


def test_links_in_circles_and_pipes_do_no_harm(tmp_path: Path) -> None:
    """A run would hang for ever on a linked folder or a pipe."""
    _files(tmp_path, "a/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.mkfifo(tmp_path / "a" / "pipe.txt")
    (tmp_path / "gels.png").mkdir()
    catalog = read_catalog(tmp_path)
    assert [image.name for image in catalog.images] == ["a/1.png"]
    assert [(its.name, its.reason) for its in catalog.unreadable] == [
        ("a/pipe.png", "expected a regular file. Received: a named pipe")
    ]
    assert catalog.skipped == ("a/pipe.txt",)
    assert [(its.name, its.kind) for its in catalog.leftovers] == [
        ("a/loop", "the same folder as '.'")
    ]


def test_folders_too_deep_for_the_system_are_named(tmp_path: Path) -> None:
    """A folder that a backup program put into itself a hundred times would end the run."""
    _files(tmp_path, "a/1.png")
    folder = os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=folder)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    catalog = read_catalog(tmp_path)
    assert [image.name for image in catalog.images] == ["a/1.png"]
    assert [its.reason for its in catalog.unreadable] == ["cannot be listed: File name too long"]


def test_several_pieces_become_one_catalog(tmp_path: Path) -> None:
    """Only the first of several folders would be embedded."""
    first, second = _files(tmp_path / "x", "a/1.png"), _files(tmp_path / "y", "2.png")
    catalog = read_catalog(first, second, second / "2.png")
    assert [image.name for image in catalog.images] == ["a/1.png", "2.png", "2.png"]
    assert catalog.name == "x"


def test_a_manifest_tells_label_group_source_and_split(tmp_path: Path) -> None:
    """What the user wrote into the table would be ignored."""
    _files(tmp_path, "1.png", "2.png")
    manifest = tmp_path / "gels.csv"
    text = "\ufeffpath,label,group,source,split\n1.png,001,g1,lab,train\n2.png,NA,,,test\n"
    manifest.write_text(text, encoding="utf-8")
    catalog = read_catalog(manifest)
    assert catalog.name == "gels"
    assert catalog.images == (
        CatalogImage(tmp_path / "1.png", "1.png", "001", "g1", "lab", "train"),
        CatalogImage(tmp_path / "2.png", "2.png", "NA", None, None, "test"),
    )
    assert [image.name for image in catalog.only("test").images] == ["2.png"]


def test_a_manifest_makes_an_image_of_each_page_it_names(tmp_path: Path) -> None:
    """Of a file of several blots all but one would be lost, or all be called the same."""
    _files(tmp_path, "stack.tif", "1.png")
    text = "path,page,label\nstack.tif,1,a\nstack.tif,2,b\n1.png,,a\nstack.tif,,\n"
    (tmp_path / "gels.csv").write_text(text)
    images = read_catalog(tmp_path / "gels.csv").images
    assert [(image.name, image.page, image.label) for image in images] == [
        ("stack.tif[page 1]", 1, "a"),
        ("stack.tif[page 2]", 2, "b"),
        ("1.png", None, "a"),
        ("stack.tif", None, None),
    ]
    assert {image.path.name for image in images} == {"stack.tif", "1.png"}


PAGES = st.none() | st.integers(1, 12)
DIGESTS = st.binary(max_size=2).map(lambda data: hashlib.sha256(data).hexdigest())


@given(one=st.tuples(DIGESTS, PAGES, PAGES), other=st.tuples(DIGESTS, PAGES, PAGES))
@example(one=("0" * 64, 1, None), other=("0" * 64, None, 1))
def test_pages_are_told_apart_and_files_keep_their_name(
    one: tuple[str, int | None, int | None], other: tuple[str, int | None, int | None]
) -> None:
    """A page would get the embedding of another, or every cache have to be made again."""
    assert (image_identity(*one) == image_identity(*other)) == (one == other)
    assert image_identity(one[0], None) == one[0]
    assert len(bytes.fromhex(image_identity(*one))) == 32


def test_a_pages_identity_is_what_the_readme_says() -> None:
    """Whoever joins a cache with a list of files would find no row of a page."""
    file = hashlib.sha256(b"stack").hexdigest()
    expected = hashlib.sha256(f"{file} page 2".encode()).hexdigest()
    assert image_identity(file, 2) == expected
    expected = hashlib.sha256(f"{file} page 2 channel 3".encode()).hexdigest()
    assert image_identity(file, 2, 3) == expected
    assert image_identity(file, None, 3) == hashlib.sha256(f"{file} channel 3".encode()).hexdigest()


MANIFESTS: dict[str, tuple[str | bytes, str]] = {
    "no path": ("file,label\n1.png,a\n", "the column 'path'"),
    "unknown column": ("path,lable\n1.png,a\n", "Received: 'path', 'lable'"),
    "empty": ("", "no columns"),
    "missing file": (
        "path,label\n1.png,a\nnowhere.png,a\n",
        "line 3: expected an image, received 'nowhere.png': No such file",
    ),
    "no such split": ("path,split\n1.png,validation\n", "line 2: expected the split"),
    "twice": ("path,label\n1.png,a\n./1.png,b\n", "line 3: expected each image once"),
    "a page twice": (
        "path,page\n1.png,2\n1.png,1\n./1.png,2\n",
        "line 4: expected each image once, received './1.png[page 2]' of line 2",
    ),
    "no channel": ("path,channel\n1.png,0\n", "line 2: expected a channel from 1 on, or an empty"),
    "a channel by name": ("path,channel\n1.png,red\n", "line 2: expected a channel from 1 on"),
    "a channel twice": (
        "path,channel,page\n1.png,2,\n1.png,1,\n1.png,2,1\n./1.png,2,\n",
        "line 5: expected each image once, received './1.png[channel 2]' of line 2",
    ),
    "no page": ("path,page\n1.png,0\n", "line 2: expected a page from 1 on, or an empty cell"),
    "half a page": ("path,page\n1.png,1.0\n", "line 2: expected a page from 1 on"),
    "pages": ("path,page\n1.png,1-3\n", "received '1-3'"),
    "a page in words": ("path,page\n1.png,\u0663\n", "line 2: expected a page"),
    "an endless page": (f"path,page\n1.png,{'9' * 5000}\n", "line 2: expected a page"),
    "cells": ("path,label\n1.png\n", "line 2: expected 2 cells, received 1"),
    "column twice": ("path,label,label\n1.png,a,b\n", "each once"),
    "no end of a quote": ('path,label\n1.png,a\n"1.png,b\n', "line 3: expected CSV"),
    "other separators": ("path:label\n1.png:a\n", "separate them by commas"),
    "old line ends": ("path,label\r1.png,a\rx.png,a\r", "line 3: expected an image"),
    "after a name of two lines": ('path\n1.png\n"x\n.png"\n\ny.png\n', "line 6: expected an image"),
    "more cells": ("path,label\n1.png,a,b\n", "line 2: expected 2 cells, received 3"),
    "a long cell": (f"path\n1.png\n{'x' * 10_000}\n", f"received '{'x' * 200}'...: File name too"),
    "a pipe": ("path\npipe.png\n", "line 2: expected an image, received 'pipe.png': a named pipe"),
    "a folder": ("path\nfolder.png\n", "received 'folder.png': a folder"),
    "a link to itself": ("path\nloop.png\n", "received 'loop.png': Too many levels"),
    "many": ("path\n" + "x.png\n" * 30, "line 21: expected an image, received 'x.png': No such"),
    "how many": ("path\n" + "x.png\n" * 30, "Received 30 that do not"),
    "and how many more": ("path\n" + "x.png\n" * 30, "\n  and 10 more"),
    "NUL": ("path,label\n1.png\0,a\n", "line 2: expected the path of an image"),
    "all of them": (
        "path,split\nx.png,\n1.png,no\n\n1.png,train\n1.png,train\n",
        "Received 3 that do not; nothing was read:\n  line 2: ",
    ),
    "outside": ("path,label\n../outside.png,a\n", "inside the manifest's folder"),
    "outside by a link": ("path\nlink.png\n", "inside the manifest's folder"),
    "outside by a folder": ("path\nup/outside.png\n", "inside the manifest's folder"),
    "outside and not there": ("path\n../none.png\n", "inside the manifest's folder"),
    "outside from the root": ("path\n/dev/null\n", "inside the manifest's folder"),
}


@pytest.mark.parametrize("mistake", MANIFESTS)
def test_a_mistake_in_a_manifest_names_its_line(mistake: str, tmp_path: Path) -> None:
    """Someone with 10,000 lines would have to search for the wrong one."""
    _files(tmp_path, "outside.png", "data/1.png", "data/folder.png/2.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "data" / "pipe.png")
    content, message = MANIFESTS[mistake]
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "data" / "gels.csv").write_bytes(data)
    with pytest.raises(UsageError) as error:
        read_catalog(tmp_path / "data" / "gels.csv")
    assert message in str(error.value)


def test_links_within_the_folder_and_outside_if_allowed_are_followed(tmp_path: Path) -> None:
    """Someone who keeps images once and links them would have to copy them."""
    _files(tmp_path, "outside.png", "data/1.png")
    (tmp_path / "data" / "inner.png").symlink_to("1.png")
    (tmp_path / "data" / "outer.png").symlink_to("../outside.png")
    (tmp_path / "data" / "inner.csv").write_text("path\ninner.png\n")
    (tmp_path / "data" / "outer.csv").write_text("path\nouter.png\n../outside.png\n")
    assert len(read_catalog(tmp_path / "data" / "inner.csv")) == 1
    with pytest.raises(UsageError, match="line 3: expected each image once"):
        read_catalog(tmp_path / "data" / "outer.csv", allow_outside=True)
    (tmp_path / "data" / "outer.csv").write_text("path\nouter.png\n")
    assert len(read_catalog(tmp_path / "data" / "outer.csv", allow_outside=True)) == 1


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1.png", "=1.png"),
        ("=1.png", "'=1.png"),
        ("'1.png", "'1.png"),
        ("''1.png", "'''1.png"),
        (" 1.png", " 1.png"),
        ('"1".png', '"""1"".png"'),
        ("1\n2.png", '"1\n2.png"'),
        ("\x1b[2J.png", "\x1b[2J.png"),
    ],
)
def test_names_in_a_manifest_are_what_they_say(name: str, cell: str, tmp_path: Path) -> None:
    """A file with an odd name could not be listed, or another be taken for it."""
    _files(tmp_path, name)
    (tmp_path / "gels.csv").write_text(f"path\n{cell}\n")
    (image,) = read_catalog(tmp_path / "gels.csv").images
    assert image.name == name


BYTES = st.binary(min_size=1, max_size=8).map(lambda data: data.decode(errors="surrogateescape"))
LABELS = BYTES | st.text(min_size=1, max_size=8).filter(lambda text: text.encode(errors="ignore"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.tuples(LABELS, st.none() | LABELS, st.booleans(), PAGES, PAGES), min_size=1, max_size=4
    )
)
def test_a_written_manifest_reads_back(
    rows: list[tuple[str, str | None, bool, int | None, int | None]], tmp_path: Path
) -> None:
    """A test set would lose its labels, pages or channels between heads and evaluate."""
    images = tuple(
        CatalogImage(
            path=_files(tmp_path, f"images/{i}.png") / f"images/{i}.png",
            name=part_name(str(tmp_path / f"images/{i}.png"), page, channel),
            label=label,
            group=group,
            split="test" if test else "train",
            page=page,
            channel=channel,
        )
        for i, (label, group, test, page, channel) in enumerate(rows)
    )
    write_manifest(Catalog("gels", images), tmp_path / "gels.csv")
    assert read_catalog(tmp_path / "gels.csv", allow_outside=True).images == images


def test_names_that_are_no_utf8_are_written_and_read_back(tmp_path: Path) -> None:
    """After all training, one file with an old name would end the run."""
    names = [os.fsdecode(b"images/g\xe9l/\xff.png"), "images/g\u00e9l/1.png"]
    catalog = read_catalog(_files(tmp_path, *names) / "images")
    write_manifest(catalog, tmp_path / "gels.csv")
    again = read_catalog(tmp_path / "gels.csv", allow_outside=True)
    assert [(image.path, image.label) for image in again.images] == [
        (image.path, image.label) for image in catalog.images
    ]
    assert {os.fsencode(image.path.name) for image in again.images} == {b"\xff.png", b"1.png"}
    (tmp_path / "by_hand.csv").write_bytes(b"path,label\nimages/g\xe9l/\xff.png,g\xe9l\n")
    (image,) = read_catalog(tmp_path / "by_hand.csv").images
    assert image.path == tmp_path / names[0]
    assert image.label == os.fsdecode(b"g\xe9l")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """Someone with a typing error would get an empty result instead of a message."""
    with pytest.raises(UsageError, match="does not exist"):
        read_catalog(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"Received: none, but 1 \.txt\."):
        read_catalog(_files(tmp_path / "texts", "a/notes.txt"))
    (tmp_path / "texts" / "a" / "gone.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"cannot be read: 'a/gone\.png', .*No such file"):
        read_catalog(tmp_path / "texts")
    with pytest.raises(UsageError, match=r"Received: 1 \('a'\)"):
        require_classes(read_catalog(_files(tmp_path / "one", "a/1.png")))
    with pytest.raises(UsageError, match=r"'2\.png'"):
        require_classes(read_catalog(_files(tmp_path / "loose", "a/1.png", "2.png")))
