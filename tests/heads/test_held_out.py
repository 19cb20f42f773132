"""Held-out sets: what training has seen of one is found, and how often it was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from gelkit.features.embeddings import Embeddings
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.heads.configurations import Configuration
from gelkit.heads.held_out import (
    HeldOut,
    count_look,
    describe_held_out,
    find_faults,
    keep_findings,
    read_findings,
)
from gelkit.heads.saved import SavedHead
from gelkit.heads.training import Settings
from gelkit.images.catalog import read_catalog
from gelkit.images.formats import decode
from gelkit.images.likeness import perceptual_hash
from gelkit.images.samples import draw_samples
from gelkit.images.views import render

MakeEmbeddings = Callable[..., Embeddings]


def _head(training: Embeddings, settings: Settings | None = None) -> SavedHead:
    return SavedHead(
        configuration=Configuration(1, "cpu", "resnet18", "single", "adam"),
        classes=training.classes,
        recipe=make_recipe("resnet18", "cpu", RecipeOptions(weights="random")),
        options=RecipeOptions(weights="random"),
        settings=settings or Settings(),
        fingerprint="",
        sha256s=training.sha256s,
        row={},
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Draw training and test images; of the latter one is a copy, and one a copy saved anew."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_samples(folder / "training", count=8)
    draw_samples(folder / "test", count=6, seed=9)
    same, inverted = sorted((folder / "training" / "gel").iterdir())[:2]
    (folder / "test" / "gel" / f"renamed{same.suffix}").write_bytes(same.read_bytes())
    grey = Image.fromarray(render(decode(inverted.read_bytes())))
    ImageOps.invert(grey).save(folder / "test" / "gel" / "inverted.jpg", quality=80)
    return folder / "training", folder / "test"


def _embeddings(folder: Path, make_embeddings: MakeEmbeddings) -> Embeddings:
    """Return made-up embeddings of real files, with their hashes."""
    images = read_catalog(folder).images
    contents = [image.path.read_bytes() for image in images]
    made = make_embeddings([image.label for image in images])
    hashes = [perceptual_hash(render(decode(content))) for content in contents]
    return replace(
        made,
        images=images,
        sha256s=tuple(sha256(content).hexdigest() for content in contents),
        records={**made.records, "perceptual_hash": np.array(hashes, dtype=np.uint64)},
    )


def test_copies_of_training_images_are_found(
    drawn: tuple[Path, Path], make_embeddings: MakeEmbeddings
) -> None:
    """Memory would pass for skill: a test image that is only saved anew would count as new."""
    training, test = (_embeddings(folder, make_embeddings) for folder in drawn)
    head = _head(training)
    held_out = describe_held_out(test, training, head)
    seen = [test.images[i].path.stem for i in np.flatnonzero(held_out.overlapping)]
    assert sorted(seen) == ["inverted", "renamed"]
    assert held_out.targets.tolist() == [head.classes.index(str(label)) for label in test.labels]
    lost = describe_held_out(test, None, head)
    assert [test.images[i].path.stem for i in np.flatnonzero(lost.overlapping)] == ["renamed"]
    unlike = describe_held_out(test, training, _head(training, Settings(near_duplicates=False)))
    assert unlike.overlapping.sum() == 1


def _made(
    make_embeddings: MakeEmbeddings, count: int, shift: float = 0.0, seed: int = 0
) -> Embeddings:
    made = make_embeddings(
        ["a", "b"] * count, seed=seed, sha256s=[f"{seed}-{i}" for i in range(2 * count)]
    )
    intensity = np.random.default_rng(seed).random((2 * count, 13), dtype=np.float32)
    hashes = np.random.default_rng(seed + 50).integers(0, 2**64, 2 * count, dtype=np.uint64)
    records = {
        **made.records,
        "intensity": intensity + np.float32(shift),
        "perceptual_hash": hashes,
    }
    return replace(made, values=made.values + np.float32(shift), records=records)


def _sentences(
    training: Embeddings | None, test: Embeddings, head: SavedHead, looks: int = 1
) -> str:
    held_out = describe_held_out(test, training, head)
    probabilities = np.tile(np.array([[0.9, 0.1]], dtype=np.float32), (len(test), 1))
    return " ".join(find_faults(held_out, test, training, head, probabilities, looks))


def test_a_shifted_test_set_is_cautioned_of_and_another_is_not(
    make_embeddings: MakeEmbeddings,
) -> None:
    """A test on differently exposed images would be read as a test on images like these."""
    training = _made(make_embeddings, 30)
    head = _head(training)
    assert _sentences(training, _made(make_embeddings, 15, seed=1), head) == ""
    said = _sentences(training, _made(make_embeddings, 15, shift=2.0, seed=1), head)
    assert "brighter" in said
    assert "embeddings of the test images differ" in said
    assert "unknown" in _sentences(None, _made(make_embeddings, 15, seed=1), head)


def test_a_test_set_of_training_images_alone_says_nothing(make_embeddings: MakeEmbeddings) -> None:
    """Training accuracy would be quoted as a test."""
    training = _made(make_embeddings, 10)
    said = _sentences(training, training, _head(training))
    assert "say nothing of new images" in said


def test_looks_are_counted_for_each_test_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A test set that was looked at twenty times would pass for untouched."""
    assert [count_look(tmp_path, name) for name in ("a", "b", "a", "a")] == [1, 1, 2, 3]
    (tmp_path / "test_looks.json").write_text("broken")
    assert count_look(tmp_path, "a") == 1
    assert "counted anew" in caplog.text


def test_looking_again_is_cautioned_of(make_embeddings: MakeEmbeddings) -> None:
    """Whoever tunes by the test set would not be told what that does."""
    training = _made(make_embeddings, 30)
    test = _made(make_embeddings, 15, seed=1)
    assert "looked at 3 times" in _sentences(training, test, _head(training), looks=3)


@pytest.mark.parametrize("content", [None, "broken", "3"])
def test_findings_are_kept_and_lost_ones_are_none(content: str | None, tmp_path: Path) -> None:
    """A lost or broken file would end in a traceback."""
    keep_findings(tmp_path, ["one", "two"])
    assert read_findings(tmp_path) == ["one", "two"]
    if content is None:
        (tmp_path / "test_findings.json").unlink()
    else:
        (tmp_path / "test_findings.json").write_text(content)
    assert read_findings(tmp_path) == []


def test_groups_of_the_test_set_are_its_own(make_embeddings: MakeEmbeddings) -> None:
    """Copies within the test set would narrow its intervals."""
    test = _made(make_embeddings, 5, seed=1)
    doubled = test.take(np.array([*range(10), 0, 0]))
    held_out: HeldOut = describe_held_out(doubled, None, _head(_made(make_embeddings, 5)))
    assert len(np.unique(held_out.groups)) == 10
    assert not held_out.overlapping.any()


def test_another_page_of_a_training_file_overlaps(
    drawn: tuple[Path, Path], make_embeddings: MakeEmbeddings
) -> None:
    """A second exposure of a gel that was trained on would count as a new one."""
    training, test = (_embeddings(folder, make_embeddings) for folder in drawn)
    files = {test.sha256s[0]: "of one file", training.sha256s[0]: "of one file"}
    head = _head(training, Settings(near_duplicates=False))
    apart = describe_held_out(test, training, head).overlapping
    together = describe_held_out(
        replace(test, files=files), replace(training, files=files), head
    ).overlapping
    assert not apart[0]
    assert together[0]
    assert (together[1:] == apart[1:]).all()
