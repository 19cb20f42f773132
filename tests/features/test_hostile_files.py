"""Hostile files: whatever lies in the folder costs one row of the failures, and the run goes on.

The same holds for looking at images and for embedding them: both read them in the same workers.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hostile import bomb_png, png, slow_jpeg

import gelkit
from gelkit.cli import main
from gelkit.features.extraction import Workforce, extract
from gelkit.features.planning import plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.surveys import Survey, survey
from gelkit.features.workers import Prepared, Rendering, prepare
from gelkit.images.catalog import Catalog
from gelkit.images.formats import Limits
from gelkit.systems import SYSTEM
from gelkit.tables import read_table

LIMITS = Limits(pixels=10**6, bytes=2**20, seconds=1.5, path=200)


def _write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _socket(path: Path) -> None:
    with _within(path.parent), socket.socket(socket.AF_UNIX) as its:
        its.bind(path.name)  # whose length is limited


def _sparse(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe.png": (os.mkfifo, "a named pipe"),
    "socket.png": (_socket, "a socket"),
    "device.png": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "folder.png": (Path.mkdir, "a folder"),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "loop.png": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "refused.png": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read"),
    "empty.png": (_write(b""), "expected"),
    "also-empty.png": (_write(b""), "expected"),
    "cut.png": (_write(png()[:300]), "expected an image file that is whole"),
    "text.png": (_write(b"<script>alert(1)</script>"), "expected"),
    "large.png": (_write(png(side=1200)), "expected at most 1,048,576 bytes"),
    "terabyte.png": (lambda path: _sparse(path, 2**40), "expected at most 1,048,576 bytes"),
    "wide.png": (_write(bomb_png(20_000, 200)), "expected at most 1,000,000 pixels"),
    "vast.png": (_write(bomb_png(60_000, 60_000, rows=1)), "expected at most 1,000,000 pixels"),
    "slow.jpg": (_write(slow_jpeg(40_000, side=700)), "read and decoded within 1.5 s"),
    f"{'long' * 45}.png": (_write(png(98)), "expected a path of at most 200 bytes"),
}

NAMES = (
    "plain.png",
    "=cmd|' -C calc'!A0.png",
    "+1.png",
    "-rf.png",
    "@sum.png",
    "'quoted'.png",
    '"quoted".png',
    "two\nlines.png",
    "\x1b[2Jescape.png",
    "<img src=x onerror=alert(1)>.png",
    os.fsdecode(b"\xff\xfe.png"),
)


def _make_folder(root: Path) -> Path:
    """Make a folder of two classes: all hostile things, and images of all kinds of names."""
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
    for name, (make, _) in HOSTILE.items():
        make(root / "a" / name)
    (root / "a" / "folder.png" / "inside.png").write_bytes(png(99))
    for number, name in enumerate(NAMES):
        (root / "b" / name).write_bytes(png(number))
    return root


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Return what looking at the folder finds."""
    folder = _make_folder(tmp_path_factory.mktemp("d"))
    return survey(gelkit.read_catalog(folder), limits=LIMITS)


def test_every_image_is_read_and_nothing_else(found: Survey) -> None:
    """One file would cost its neighbours, or a name its own image."""
    names = {"a/folder.png/inside.png", *(f"b/{name}" for name in NAMES)}
    assert {image.name for image in found.images} == names


@pytest.mark.parametrize("name", HOSTILE)
def test_every_hostile_file_is_one_failure_with_its_reason(name: str, found: Survey) -> None:
    """Nobody would know why an image is missing."""
    errors = [failure.error for failure in found.failures if failure.name == f"a/{name}"]
    assert len(errors) == 1
    assert HOSTILE[name][1] in errors[0]
    assert len(found.failures) == len(HOSTILE)


def _features(folder: Path, cache: Path, *options: str) -> Result:
    words = ["features", folder, "--cache", cache, "--backbone", "mobilenet-v3"]
    words += ["--weights", "random", "--workers", "1", *options]
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.exhaustive("fault states")
def test_the_failures_table_names_what_failed(tmp_path: Path) -> None:
    """After a run over thousands, what failed would be gone with the terminal."""
    folder = _make_folder(tmp_path / "d")
    cache = tmp_path / "c"
    limits = ["--max-pixels", "1000000", "--max-bytes", "1048576", "--decode-seconds", "1.5"]
    limits += ["--max-path", str(len(os.fsencode(folder)) + 100)]
    done = _features(folder, cache, *limits)
    assert done.exit_code == 0, done.output
    assert f"the others are done: {len(HOSTILE)}" in done.output
    (table,) = cache.glob("*/failures.csv")
    columns, rows = read_table(table)
    assert columns == ["path", "sha256", "error", "retry", "decoder"]
    assert sorted(row[0] for row in rows) == sorted(f"a/{name}" for name in HOSTILE)
    assert all(HOSTILE[row[0][2:]][1].split(" of at most")[0] in row[2] for row in rows)
    for name in ("pipe.png", "slow.jpg"):
        (folder / "a" / name).unlink()
    strict = _features(folder, cache, *limits, "--strict")
    assert strict.exit_code == 1
    assert f"the others are done: {len(HOSTILE) - 2}" in strict.output
    known = [row[0] for row in read_table(table)[1]]
    assert sorted(known) == sorted(f"a/{name}" for name in HOSTILE if name != "pipe.png")


CLASSES = ("=1+1", "\x1b[2J<b>\n\"'")


def _make_named(root: Path, seed: int) -> Path:
    """Make a folder of two classes, with odd names of their own, of images of odd names."""
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (root / CLASSES[number % 2] / name).write_bytes(png(seed + number))
    return root


def _gelkit(*words: object) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words], color=True)  # kept, as on a tty
    assert done.exit_code == 0, done.output
    assert "\x1b[2J" not in done.output
    return done


@pytest.mark.exhaustive("fault states")
def test_odd_names_go_all_the_way(tmp_path: Path) -> None:
    """After hours, the results would lack an image, or name another, because of its name."""
    data, test, out = (tmp_path / name for name in ("data", "test", "out"))
    places = ["--cache", tmp_path / "c", "--backbone", "mobilenet-v3", "--weights", "random"]
    _make_named(data, 0)
    (data / "\x1b[2Jno\nimage.txt").write_text("")
    assert "\\x1b[2J<b>" in _gelkit("images", data, "--workers", "1").output
    assert "\\x1b[2Jno\\nimage.txt" in _gelkit("features", data, *places, "--workers", "1").output
    brief = ["--folds", "2", "--repeats", "1", "--epochs", "1", "--workers", "1"]
    one = ["--hardware", "cpu", "--head", "single", "--optimizer", "sgd"]
    _gelkit("heads", data, *places, *brief, *one, "--out", out)
    _gelkit("evaluate", "--test", _make_named(test, 100), "--cache", tmp_path / "c", "--out", out)
    (row,) = gelkit.read_results(out / "results.csv").to_dict("records")
    assert row["classes"] == sorted(CLASSES)
    assert row["test_n_images"] == len(NAMES)
    for name in ("predictions.csv", "test_predictions.csv"):
        columns, rows = read_table(out / name)
        labels = {row[columns.index("image")]: row[columns.index("label")] for row in rows}
        expected = {f"{CLASSES[i % 2]}/{name}": CLASSES[i % 2] for i, name in enumerate(NAMES)}
        assert labels == expected
        assert [f"probability_{label}" for label in sorted(CLASSES)] == columns[-2:]
    trained = gelkit.read_catalog(out / "training.csv", allow_outside=True)
    assert {image.path for image in trained.images} == set(data.glob("*/*.png"))


@pytest.mark.parametrize("change", ["gone", "pipe", "other"])
def test_a_file_that_changes_under_way_is_one_failure(change: str, tmp_path: Path) -> None:
    """An image that another program moves while gelkit runs would end the run, or block it."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    catalog = gelkit.read_catalog(tmp_path)
    (tmp_path / "1.png").unlink()
    if change == "pipe":
        os.mkfifo(tmp_path / "1.png")
    elif change == "other":
        (tmp_path / "1.png").mkdir()
    found = survey(catalog)
    assert [image.name for image in found.images] == ["0.png", "2.png"]
    assert [failure.name for failure in found.failures] == ["1.png"]


def _survey_of(data: bytes, limits: Limits, tmp_path: Path) -> Survey:
    (tmp_path / "image.png").write_bytes(data)
    (tmp_path / "other.png").write_bytes(png())
    catalog: Catalog = gelkit.read_catalog(tmp_path)
    return survey(catalog, limits=limits, workers=1)


@pytest.mark.skipif(not SYSTEM.is_linux, reason="an image may be done before anyone looks")
def test_an_image_that_takes_too_much_memory_fails_alone(tmp_path: Path) -> None:
    """One scan of a metre would take the memory of the machine, and the run with it."""
    bomb = bomb_png(30_000, 3_000)
    limits = replace(Limits(), memory=60 * 2**20)
    found = _survey_of(bomb, limits, tmp_path)
    (failure,) = found.failures
    assert failure.name == "image.png"
    assert "decoded with 60 MiB" in failure.error
    assert "--decode-memory" in failure.error
    assert [image.name for image in found.images] == ["other.png"]
    assert not _survey_of(bomb, Limits(), tmp_path).failures


@pytest.mark.skipif(SYSTEM.is_linux, reason="Linux refuses the memory itself")
def test_an_image_that_stays_too_large_fails_alone(tmp_path: Path) -> None:
    """The same, where the system lets it have the memory, and somebody has to look."""
    large = slow_jpeg(2_000, side=6_000)
    found = _survey_of(large, replace(Limits(), memory=20 * 2**20), tmp_path)
    (failure,) = found.failures
    assert failure.name == "image.png"
    assert "decoded with 20 MiB" in failure.error
    assert [image.name for image in found.images] == ["other.png"]


@pytest.mark.exhaustive("fault states")
@pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="needs the extra xla")
def test_beside_an_accelerator_too_an_image_fails_alone(tmp_path: Path) -> None:
    """One file would take the memory of the machine, or the process that has compiled for a TPU."""
    (tmp_path / "bomb.png").write_bytes(bomb_png(30_000, 3_000))
    (tmp_path / "slow.jpg").write_bytes(slow_jpeg(40_000, side=700))
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    done = extract(
        gelkit.read_catalog(tmp_path),
        backbone="mobilenet-v3",
        hardware="tpu",
        cache=tmp_path / "c",
        options=RecipeOptions(weights="random", emulate_tpu=True),
        workforce=Workforce(batch_size=2, limits=replace(Limits(), memory=60 * 2**20, seconds=1.5)),
    )
    errors = {failure.name: failure.error for failure in done.failures}
    assert set(errors) == {"bomb.png", "slow.jpg"}
    assert "decoded with 60 MiB" in errors["bomb.png"]
    assert "read and decoded within 1.5 s" in errors["slow.jpg"]
    assert done.names == ("0.png", "1.png", "2.png")
    assert "emulated" in done.device


def test_a_long_path_is_no_fault_of_an_equal_file(tmp_path: Path) -> None:
    """A backup far down in the folder would take the image that it is a copy of with it."""
    deep = tmp_path / "a" / ("deep" * 50)
    deep.mkdir(parents=True)
    for path in (deep / "copy.png", tmp_path / "a" / "image.png", tmp_path / "a" / "longer.png"):
        path.write_bytes(png())
    limits = Limits(path=len(os.fsencode(tmp_path)) + 50)
    planned = plan(gelkit.read_catalog(tmp_path), cache=tmp_path / "c", limits=limits)
    (prepared,) = (prepare(task, Rendering(limits=limits)) for task in planned.tasks)
    assert isinstance(prepared, Prepared)
    assert prepared.name == "a/image.png"
