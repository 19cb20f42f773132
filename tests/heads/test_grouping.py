"""Grouping: copies and near-copies stay together, and too little data is said to be too little."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.heads.grouping import find_near_copies, group_images, require_splittable
from gelkit.images.catalog import CatalogImage, image_identity, part_name, read_catalog
from gelkit.images.formats import ImageError, decode
from gelkit.images.likeness import perceptual_hash
from gelkit.images.samples import draw_samples
from gelkit.images.views import render

MakeEmbeddings = Callable[..., Embeddings]


GROUPED: dict[str, tuple[str, Sequence[str | None], list[int]]] = {
    "all different": ("abc", [None] * 3, [0, 1, 2]),
    "equal bytes": ("aba", [None] * 3, [0, 1, 0]),
    "the user's group": ("abc", ["x", None, "x"], [0, 1, 0]),
    "a-b by bytes, b-c by group": ("aab", [None, "x", "x"], [0, 0, 0]),
    "the same in another order": ("baa", ["x", "x", None], [0, 0, 0]),
    "a chain": ("aabbccd", [None, "x", "x", "y", "y", "z", "z"], [0] * 7),
    "no group is not a group": ("abcd", [None, None, "None", None], [0, 1, 2, 3]),
    "a group called like bytes": ("abc", ["b", "c", "a"], [0, 1, 2]),
}


@pytest.mark.parametrize("case", GROUPED)
def test_equal_bytes_and_the_users_groups_join(case: str, make_embeddings: MakeEmbeddings) -> None:
    """Images that belong together would be separated by a split."""
    sha256s, groups, expected = GROUPED[case]
    images = make_embeddings(["gel"] * len(sha256s), groups=groups, sha256s=list(sha256s))
    numbers = group_images(images)
    assert sorted(set(numbers)) == list(range(len(set(expected))))
    assert [np.flatnonzero(numbers == number)[0] for number in numbers] == [
        expected.index(number) for number in expected
    ]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, *"uvwxyz"])),
        min_size=1,
        max_size=14,
    )
)
def test_groups_are_what_can_be_reached(
    make_embeddings: MakeEmbeddings, images: list[tuple[str, str | None]]
) -> None:
    """Some chain of copies and groups would be cut."""
    sha256s, groups = zip(*images, strict=True)
    numbers = group_images(make_embeddings(["gel"] * len(images), groups=groups, sha256s=sha256s))
    reached = np.array(
        [[a == b or (g == h and g is not None) for b, h in images] for a, g in images]
    )
    for _ in images:
        reached = reached @ reached
    assert np.array_equal(numbers[:, np.newaxis] == numbers, reached)


def test_a_group_of_two_labels_is_refused_and_its_files_listed(
    make_embeddings: MakeEmbeddings,
) -> None:
    """A mislabelled copy would train one label and test the other."""
    images = make_embeddings(["gel", "gel", "photo"], sha256s=["a", "b", "a"])
    with pytest.raises(UsageError, match=r"'0\.png' as 'gel' and '2\.png' as 'photo'"):
        group_images(images)
    images = make_embeddings(["gel", "b", "photo", "b"] * 2, sha256s=[*"abacdede"])
    with pytest.raises(UsageError, match="Received 2 such sets") as caught:
        group_images(images)
    assert str(caught.value).count(" and '") == 2
    assert "--no-near-duplicates" not in str(caught.value)  # which keeps no equal bytes apart
    images = make_embeddings(["gel", "gel", "photo"], groups=[None, "x", "x"])
    with pytest.raises(UsageError, match=r"'1\.png' as 'gel' and '2\.png' as 'photo'"):
        group_images(images)


def _of_pages(
    pages: Sequence[tuple[Path, int | None]], make_embeddings: MakeEmbeddings
) -> Embeddings:
    """Return embeddings of images, all of which have the same hash and so must be looked at."""
    digests = [sha256(path.read_bytes()).hexdigest() for path, _ in pages]
    identities = [image_identity(*its) for its in zip(digests, [n for _, n in pages], strict=True)]
    images = tuple(
        CatalogImage(path, part_name(path.name, page), "gel", page=page) for path, page in pages
    )
    embeddings = make_embeddings(["gel"] * len(pages), sha256s=identities)
    described = {
        "images": images,
        "records": {"perceptual_hash": np.zeros(len(pages), dtype=np.uint64)},
        "files": dict(zip(identities, digests, strict=True)),
    }
    return Embeddings(**(vars(embeddings) | described))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a folder of a file of two pages, and of each page alone, inverted."""
    folder = tmp_path_factory.mktemp("stack")
    pages = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 9), np.uint8)).resize(
            (180, 240), Image.Resampling.BICUBIC
        )
        for seed in (1, 2)
    ]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    for number, page in enumerate(pages, start=1):
        ImageOps.invert(page).save(folder / f"{number}.png")
    return folder


def test_pages_of_one_file_join(stack: Path, make_embeddings: MakeEmbeddings) -> None:
    """One exposure of a blot would train and another be predicted."""
    pages = [(stack / "stack.tif", 1), (stack / "1.png", None), (stack / "stack.tif", 2)]
    groups = group_images(_of_pages(pages, make_embeddings), find_near_duplicates=False)
    assert groups[0] == groups[2] != groups[1]
    described = _of_pages(pages, make_embeddings)
    labels = ("gel", "gel", "photo")
    images = tuple(
        replace(image, label=label) for image, label in zip(described.images, labels, strict=True)
    )
    message = (
        r"(?s)pages or channels of one file.*"
        r"stack\.tif\[page 1\]' as 'gel' and .*\[page 2\]' as 'photo'"
    )
    with pytest.raises(UsageError, match=message):
        group_images(replace(described, images=images), find_near_duplicates=False)


def test_of_a_page_its_own_picture_is_compared(
    stack: Path, make_embeddings: MakeEmbeddings
) -> None:
    """Copies of a page would not be found, and those of its neighbour be taken for copies of it."""
    alone = [(stack / "1.png", None), (stack / "2.png", None)]
    for page in (1, 2):
        known = _of_pages([(stack / "stack.tif", page)], make_embeddings)
        copies = find_near_copies(_of_pages(alone, make_embeddings), known)
        assert copies.tolist() == [page == 1, page == 2]


def test_other_pages_of_a_training_file_are_no_new_images(
    stack: Path, make_embeddings: MakeEmbeddings
) -> None:
    """A test set would be half known, since its files' other exposures were trained on."""
    known = _of_pages([(stack / "stack.tif", 1)], make_embeddings)
    held_out = _of_pages([(stack / "2.png", None), (stack / "stack.tif", 2)], make_embeddings)
    assert find_near_copies(held_out, known).tolist() == [False, True]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw eight images, and save one of each class again: inverted, or smaller as JPEG."""
    folder = tmp_path_factory.mktemp("copied")
    draw_samples(folder, count=8)
    first = {path.parent.name: path for path in sorted(folder.rglob("*.*"), reverse=True)}
    for name, path in first.items():
        grey = Image.fromarray(render(decode(path.read_bytes())))
        copy = ImageOps.invert(grey) if name == "gel" else grey.resize((180, 200))
        copy.save(folder / name / f"copy.{'png' if name == 'gel' else 'jpg'}")
    return folder


def _described(folder: Path, make_embeddings: MakeEmbeddings) -> Embeddings:
    """Return embeddings of real files, with the hashes that stage one would keep."""
    images = read_catalog(folder).images
    files = [image.path.read_bytes() for image in images]
    embeddings = make_embeddings(
        [image.label for image in images], sha256s=[sha256(data).hexdigest() for data in files]
    )
    hashes = [perceptual_hash(render(decode(data))) for data in files]
    records = {"perceptual_hash": np.array(hashes, dtype=np.uint64)}
    return Embeddings(**(vars(embeddings) | {"images": images, "records": records}))


def test_near_duplicates_join(copied: Path, make_embeddings: MakeEmbeddings) -> None:
    """A gel would train and its inverted or shrunken copy be predicted."""
    embeddings = _described(copied, make_embeddings)
    groups = group_images(embeddings)
    assert len(embeddings) == 10
    assert len(np.unique(groups)) == 8
    for name in ("gel", "not_gel"):
        its = [i for i, image in enumerate(embeddings.images) if image.label == name]
        joined = [i for i in its if (groups == groups[i]).sum() == 2]
        assert [embeddings.images[i].path.stem for i in joined].count("copy") == 1
    assert len(np.unique(group_images(embeddings, find_near_duplicates=False))) == 10


@pytest.mark.parametrize("change", ["other bytes", "No such file", "a named pipe"])
def test_a_file_that_changed_since_it_was_embedded_is_named(
    change: str, copied: Path, make_embeddings: MakeEmbeddings, tmp_path: Path
) -> None:
    """Pictures would be compared that are not those of the embeddings, or a pipe be waited for."""
    folder = shutil.copytree(copied, tmp_path / "gels")
    embeddings = _described(folder, make_embeddings)
    copy = folder / "gel" / "copy.png"
    copy.unlink()
    if change == "other bytes":
        shutil.copy(folder / "not_gel" / "copy.jpg", copy)
    elif change == "a named pipe":
        os.mkfifo(copy)
    with pytest.raises(UsageError, match=f"copy.*embedded.*{change}"):
        group_images(embeddings)


def test_limits_were_stage_ones_to_keep(make_embeddings: MakeEmbeddings, tmp_path: Path) -> None:
    """Images that were embedded with a raised --max-pixels could never be compared."""
    (tmp_path / "a").mkdir()
    wide = Image.effect_noise((11_000, 10), 60).resize((11_000, 10_000))
    wide.save(tmp_path / "a" / "1.png", compress_level=1)
    ImageOps.invert(wide).save(tmp_path / "a" / "2.png", compress_level=1)
    with pytest.raises(ImageError, match="100,000,000 pixels"):
        decode((tmp_path / "a" / "1.png").read_bytes())
    images = read_catalog(tmp_path).images
    digests = [sha256(image.path.read_bytes()).hexdigest() for image in images]
    records = {"perceptual_hash": np.zeros(2, dtype=np.uint64)}
    embeddings = make_embeddings(["a", "a"], sha256s=digests)
    described = Embeddings(**(vars(embeddings) | {"images": images, "records": records}))
    assert len(group_images(described)) == 2


def test_a_near_duplicate_under_another_label_is_refused(
    copied: Path, make_embeddings: MakeEmbeddings, tmp_path: Path
) -> None:
    """A picture under two labels would be taken for two pictures."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    copy = copied / "gel" / "copy.png"
    gel = min(path for path in copy.parent.iterdir() if path != copy)
    (tmp_path / "a" / gel.name).write_bytes(gel.read_bytes())
    (tmp_path / "b" / copy.name).write_bytes(copy.read_bytes())
    embeddings = _described(tmp_path, make_embeddings)
    with pytest.raises(UsageError, match=r"(?s)as 'a' and .* as 'b'.*--no-near-duplicates"):
        group_images(embeddings)


def test_too_few_groups_in_a_class_are_refused_with_the_arithmetic(
    make_embeddings: MakeEmbeddings,
) -> None:
    """A fold would hold one gel of a class, and its figures be all or nothing."""
    embeddings = make_embeddings(["gel"] * 12 + ["other"] * 40)
    groups = np.array([0, 0, 1, 1, *range(2, 50)])[: len(embeddings)]
    with pytest.raises(
        UsageError,
        match=r"at least 12 groups .* two for each of 6 folds\. Received: 10 in 'gel' \(12 images\)"
        r"\..*--folds 5",
    ):
        require_splittable(embeddings, groups, folds=6)
    require_splittable(embeddings, groups, folds=5)


SMALL_CLASSES: dict[str, tuple[list[int], list[int], str]] = {
    "the smallest decides": ([4] + [1] * 16, [1] * 7, "use --folds 3."),
    "all are listed": ([1] * 5, [1] * 4, "Received: 4 in 'b' (4 images), 5 in 'a' (5 images)."),
    "no folds are few enough": ([1] * 10, [1], "Received: 1 in 'b' (1 image). Near-identical"),
    "a large group counts, too": ([3] + [1] * 5, [1] * 20, "use --folds 2."),
    "a large group alone": ([3] + [1] * 9, [1] * 20, "(0.png, 1.png, 2.png). Keep some of them o"),
    "one picture alone": ([9] + [1] * 9, [1] * 20, "and 4 more). Keep some of them only, or"),
    "too large for any folds": ([20] + [1] * 9, [1] * 20, "and 15 more). Keep some of them only."),
}


@pytest.mark.parametrize("case", SMALL_CLASSES)
def test_the_folds_that_are_advised_are_enough(case: str, make_embeddings: MakeEmbeddings) -> None:
    """A user would follow one piece of advice after the other, each refused by the next."""
    *classes, said = SMALL_CLASSES[case]
    labels = [label for label, sizes in zip("ab", classes, strict=True) for _ in range(sum(sizes))]
    sizes = [size for its_sizes in classes for size in its_sizes]
    embeddings, groups = make_embeddings(labels), np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(UsageError) as error:
        require_splittable(embeddings, groups, folds=5)
    assert said in str(error.value)
    advised = re.search(r"use --folds (\d+)", str(error.value))
    if advised is not None:
        require_splittable(embeddings, groups, folds=int(advised[1]))
    for folds in range(int(advised[1]) + 1 if advised else 2, 5):
        with pytest.raises(UsageError):
            require_splittable(embeddings, groups, folds=folds)


def test_few_groups_are_warned_of(
    make_embeddings: MakeEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    """Someone would read three digits from twenty gels."""
    embeddings = make_embeddings(["gel"] * 29 + ["other"] * 30)
    with caplog.at_level(logging.WARNING):
        require_splittable(embeddings, np.arange(59), folds=5)
    assert [record.getMessage() for record in caplog.records] == [
        "1 class has few groups, 29 in 'gel' (29 images): below 30 no interval is narrow, and the "
        "best configuration may be so by luck"
    ]


def test_of_many_small_classes_some_are_named_and_all_counted(
    make_embeddings: MakeEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    """What to do would stand behind a hundred names, or be warned of a hundred times."""
    one_each = make_embeddings([f"class {number:03}" for number in range(100)])
    with pytest.raises(UsageError) as error:
        require_splittable(one_each, np.arange(100), folds=5)
    said = str(error.value)
    assert "1 in 'class 000' (1 image), 1 in 'class 001'" in said
    assert "and 95 more (of 100 classes 100 are too small)" in said
    assert said.endswith("Add images, join or leave out classes that are too small.")
    four_each = make_embeddings([f"class {number:03}" for number in range(100)] * 4)
    with caplog.at_level(logging.WARNING):
        require_splittable(four_each, np.arange(400), folds=2)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "100 classes have few groups, 4 in 'class 000' (4 images), " in warning
    assert "and 95 more: below 30" in warning


def test_a_group_larger_than_a_fold_is_refused_and_its_pictures_named(
    make_embeddings: MakeEmbeddings,
) -> None:
    """One fold would predict one picture over and over, the others never."""
    embeddings = make_embeddings(["gel"] * 20 + ["other"] * 20)
    groups = np.concatenate([np.zeros(5, dtype=np.int64), np.arange(1, 36)])
    with pytest.raises(UsageError, match=r"20 / 5 = 4\.0 .* 5 images of 'gel'.*0\.png, 1\.png"):
        require_splittable(embeddings, groups, folds=5)
    require_splittable(embeddings, groups, folds=4)
