"""The command line: the main job from nothing to results, and what a user can do wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import gelkit
from gelkit.cli import main
from gelkit.systems import SYSTEM

ROOT = Path(__file__).parents[1]
RANDOM = ("--weights", "random")
SMALL = ("--backbone", "mobilenet-v3")
QUICK = (*SMALL, *RANDOM, "--hardware", "cpu", "--folds", "2", "--repeats", "1", "--epochs", "2")


def _gelkit(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _done(*words: str | Path) -> str:
    result = _gelkit(*words)
    assert result.exit_code == 0, result.output
    return result.output


def _image(path: Path, number: int) -> None:
    """Write a picture of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def project(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the main job has been run once on ``my_gels``."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(samples, folder / "my_gels")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _done("features", "my_gels", *SMALL, *RANDOM, "--workers", "1")
        _done("heads", "my_gels", *QUICK, "--workers", "1")
    return folder


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work inside the project's folder."""
    monkeypatch.chdir(project)
    return project


def test_the_main_job_ends_with_results(inside: Path) -> None:
    """The commands of the README would not lead to a results.csv."""
    results = gelkit.read_results("results/my_gels/results.csv")
    assert list(results["model_id"]) == [9, 10, 11, 12]
    assert results["accuracy"].between(0, 1).all()
    heads = sorted(path.name for path in (inside / "results/my_gels/heads").glob("*.keras"))
    assert heads[0] == "09-cpu-mobilenet-v3-single-adam.keras"
    assert len(heads) == 4
    predictions = pd.read_csv("results/my_gels/predictions.csv")
    assert len(predictions) == 4 * 20


def test_a_held_out_set_fills_the_test_columns(inside: Path) -> None:
    """Scores of a test set could not be had, or would change the cross-validated ones."""
    before = gelkit.read_results("results/my_gels/results.csv")
    gelkit.draw_samples(inside / "more_gels", count=8, seed=5)
    output = _done("evaluate", "--test", "more_gels")
    after = gelkit.read_results("results/my_gels/results.csv")
    assert after["test_accuracy"].between(0, 1).all()
    assert set(after["test_n_images"]) == {8}
    assert set(after["test_overlap"]) == {0}
    assert "test accuracy" in output
    assert after["accuracy"].equals(before["accuracy"])
    assert "test_accuracy" not in _done("heads", "my_gels", *QUICK, "--epochs", "3")


def test_without_a_test_set_evaluate_shows_what_there_is(project: Path, tmp_path: Path) -> None:
    """Someone without a test set would see an error, or test figures that are none."""
    shutil.copytree(project / "results/my_gels", tmp_path / "results")
    (tmp_path / "results/test.csv").unlink(missing_ok=True)
    output = _done("evaluate", "--out", tmp_path / "results")
    assert "No test set" in output
    assert "RANDOM weights" in output


@pytest.mark.exhaustive("exhaustive grids")
def test_what_gelkit_wrote_is_not_read_as_data(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where data and results lie together, a report's plots would be a class of their own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project / "my_gels", ".", dirs_exist_ok=True)
    for name in ("features", "results/my_gels"):
        shutil.copytree(project / name, name)
    _done("report")
    _done("images", ".", "--sheet", "sheet.png", "--workers", "1")
    plots = sorted(Path("results/my_gels/plots").glob("*.png"))
    assert plots
    for plot in plots:  # as someone does who prepares a talk
        shutil.copy(plot, "gel")
    assert "20 images (gel 10, not_gel 10), 20 read" in _done("images", ".", "--workers", "1")
    shown = _done("heads", ".", *QUICK, "--out", "again", "--workers", "1")
    assert "20 images in 20 groups, classes gel, not_gel" in shown
    assert "results that gelkit wrote: results/my_gels" in shown
    assert f"a picture that gelkit drew: gel/{plots[0].name}" in shown


def test_a_cached_run_imports_neither_torch_nor_keras(inside: Path) -> None:
    """A run with nothing to do would take as long as its imports, and need the weights."""
    program = (
        "import sys\nfrom gelkit.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print('imported', sorted({'torch', 'keras', 'torch_xla'} & set(sys.modules)))"
    )
    words = ["features", "my_gels", *SMALL, *RANDOM]
    run = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert "all known" in run.stdout
    assert run.stdout.splitlines()[-1] == "imported []"


def test_an_unreadable_image_is_named_and_the_rest_goes_on(inside: Path) -> None:
    """One damaged file would stop a run over thousands, or vanish without a word."""
    shutil.copytree("my_gels", "damaged")
    Path("damaged/gel/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    Path("damaged/gel/notes.txt").write_text("no image")
    output = _done("features", "damaged", *SMALL, *RANDOM, "--workers", "1")
    assert "20 x 1280" in output
    assert "gel/broken.png" in output
    assert "gel/notes.txt" in output
    assert _gelkit("features", "damaged", *SMALL, *RANDOM, "--strict").exit_code == 1
    output = _done("heads", "damaged", *QUICK, "--workers", "1")
    assert "left out: 1 image that could not be read:\n  gel/broken.png: expected" in output
    assert "20 images" in output


@pytest.mark.exhaustive("fault states")
def test_damage_is_found_repaired_and_computed_again(inside: Path) -> None:
    """A failing disk would go unnoticed, or cost all that was computed."""
    shutil.copytree("features", "worn")
    before = _done("cache", "verify", "--cache", "worn")
    assert "0 damaged" in before
    shard = next(Path("worn").glob("*/shard-*.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    arguments = ("features", "my_gels", *SMALL, *RANDOM, "--cache", "worn")
    assert "gelkit cache verify --repair" in _gelkit(*arguments).output
    found = _gelkit("cache", "verify", "--cache", "worn")
    assert found.exit_code == 1
    assert "1 damaged" in found.output
    assert "1 to be computed again" in _done("cache", "verify", "--cache", "worn", "--repair")
    assert "1 to embed" in _done(*arguments)
    assert _done("cache", "verify", "--cache", "worn") == before


def test_the_doctor_tells_what_is_there() -> None:
    """Someone whose set-up is incomplete would not learn what to do."""
    output = _done("doctor", "--no-measure")
    assert "torchvision" in output
    assert "resnet18-f37072fd.pth" in output


@pytest.mark.exhaustive("fault states")
def test_equal_files_that_fail_are_all_named(tmp_path: Path) -> None:
    """A class folder would seem larger than it is."""
    _image(tmp_path / "data/a/good.png", 1)
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"no image")
    for _ in range(2):
        words = ("--cache", tmp_path / "cache", *SMALL, *RANDOM, *SMALL)
        output = _done("features", tmp_path / "data", *words)
        assert "failed, the others are done: 2" in output
        assert "a/1.png" in output
        assert "b/2.png" in output
        assert output.count("1 x 1280") == 1


def _known_image(path: Path, number: int) -> None:
    """Copy an image whose embedding is in ``features``, so that no backbone need be started."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(sorted(Path("known").rglob("*.png"))[number], path)


def _one_class() -> tuple[str, ...]:
    _known_image(Path("data/gel/a.png"), 0)
    return ("heads", "data", *QUICK)


def _fewer_images_than_folds() -> tuple[str, ...]:
    for number in range(4):
        _known_image(Path(f"data/{'ab'[number % 2]}/{number}.png"), number)
    return ("heads", "data", *QUICK, "--folds", "3")


def _empty_folder() -> tuple[str, ...]:
    Path("data").mkdir()
    return ("features", "data")


def _another_recipe() -> tuple[str, ...]:
    _known_image(Path("data/gel/a.png"), 0)
    other = gelkit.RecipeOptions(weights="random", weights_seed=1)
    from gelkit.features.recipe import make_recipe

    wanted = make_recipe("mobilenet-v3", "cpu", other).folder_name
    next(Path("features").glob("mobilenet*")).rename(Path("features", wanted))
    return ("features", "data", *SMALL, *RANDOM, "--weights-seed", "1")


def _heads_before_features() -> tuple[str, ...]:
    for number in range(4):
        _image(Path(f"data/{'ab'[number % 2]}/{number}.png"), number)
    return ("heads", "data", *QUICK)


def _without_weights() -> tuple[str, ...]:
    _image(Path("data/gel/a.png"), 0)
    Path("empty").mkdir()
    return ("features", "data", *SMALL, "--weights-dir", "empty")


def _without_tpu() -> tuple[str, ...]:
    _image(Path("data/gel/a.png"), 0)
    return ("features", "data", *SMALL, *RANDOM, "--hardware", "tpu")


def _cache_is_a_file() -> tuple[str, ...]:
    _image(Path("data/gel/a.png"), 0)
    os.utime("data/gel/a.png", (0, 0))
    Path("cache").touch()
    return ("features", "data", *SMALL, *RANDOM, "--cache", "cache")


def _several_results() -> tuple[str, ...]:
    for name in ("a", "b"):
        Path("results", name).mkdir(parents=True)
        Path("results", name, "results.csv").touch()
    return ("evaluate",)


def _results_are_a_file() -> tuple[str, ...]:
    for number in range(8):
        _known_image(Path(f"data/{'ab'[number % 2]}/{number}.png"), number)
    Path("results").touch()
    return ("heads", "data", *QUICK)


MISTAKES = {
    "one class": (_one_class, 2, "Expected at least two classes"),
    "few images": (_fewer_images_than_folds, 2, "Expected at least 6 groups in each class"),
    "empty folder": (_empty_folder, 2, "Received: none"),
    "no such path": (lambda: ("features", "nowhere"), 2, "does not exist"),
    "no TPU": (_without_tpu, 1, "add --emulate-tpu"),
    "no weights": (_without_weights, 1, "Download https://download.pytorch.org"),
    "other recipe": (_another_recipe, 1, "weights_seed: 1 here, 0 there"),
    "no features": (_heads_before_features, 1, "gelkit features data --backbone mobilenet-v3"),
    "several results": (_several_results, 2, "results/a, results/b. Name it with --out\n"),
    "unknown backbone": (
        lambda: ("heads", ROOT / "docs", "--backbone", "resnet19"),
        2,
        "(gelkit backbones lists them). Received: 'resnet19'. Did you mean resnet18?",
    ),
    "no results": (lambda: ("evaluate",), 2, "or make one with: gelkit heads DATA"),
    "no folds": (lambda: ("heads", "data", "--folds", "0"), 2, "x>=2"),
    "long path": (lambda: ("features", "x" * 300), 2, "File name too long"),
    "cache is a file": (_cache_is_a_file, 1, "Not a directory. Check"),
    "results are a file": (_results_are_a_file, 1, "Not a directory: 'results/data'"),
    "unknown option": (lambda: ("features", "--hardvare", "cpu"), 2, "No such option"),
}


CACHED = {"one class", "few images", "other recipe", "results are a file"}
"""The mistakes of someone who has embedded the images."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_a_message_and_an_exit_code(
    mistake: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user would see a traceback, or success where there was none."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project / "my_gels", "known")
    if mistake in CACHED:
        shutil.copytree(project / "features", "features")
    prepare, exit_code, message = MISTAKES[mistake]
    if mistake == "no TPU" and not SYSTEM.is_linux:
        pytest.skip("this system has no TPU at all, and says so")
    result = _gelkit(*prepare())
    assert message in result.output
    assert result.exit_code == exit_code
    assert isinstance(result.exception, SystemExit)


def test_a_command_in_another_folder_says_where_it_looked(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results and caches that are there would seem lost, and a new folder hint at the contrary."""
    monkeypatch.chdir(tmp_path)
    looked = _gelkit("heads", inside / "my_gels", *QUICK).output
    assert f"Received: none in '{tmp_path / 'features'}'" in looked
    assert f"in '{tmp_path / 'results'}'. Received: none" in _gelkit("report").output
    heads = _gelkit("predict", inside / "my_gels", "--out", inside / "results/my_gels").output
    assert f"'{tmp_path / 'features'}/" in heads
    assert "no cache there. Name with --cache" in heads
    assert list(tmp_path.iterdir()) == []


def test_heads_says_what_comes_next_and_what_was_left_out(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user would be warned of a TPU that nobody asked for, and not know how to go on."""
    monkeypatch.chdir(tmp_path)
    for name in ("features", "results/my_gels"):
        shutil.copytree(project / name, name)
    words = (project / "my_gels", *SMALL, *RANDOM, *QUICK[6:], "--workers", "1")
    shown = _done("heads", *words)
    assert "Warning: left out" not in shown
    assert "4 of the 8 configurations: those on cpu." in shown
    assert shown.splitlines()[-1] == (
        "Next:    gelkit evaluate (the report; --test DIR scores held-out images), gelkit predict "
        "IMAGE"
    )
    shutil.move("results/my_gels", "my out")
    shown = _done("heads", *words, "--out", "my out")
    assert f"gelkit predict IMAGE --out {SYSTEM.quoted('my out')}" in shown
    shown = _done("heads", *words, "--hardware", "cpu", "--hardware", "tpu")
    assert "Warning: left out, since their embeddings are not cached: mobilenet-v3 on tpu" in shown


HOSTILE = {
    "floatx": {"floatx": "float16", "epsilon": 0.1, "backend": "jax"},
    "variables": {"floatx": "float64", "image_data_format": "channels_first"},
}
VARIABLES = {"KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
VARIABLES |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONHASHSEED": "7", "TZ": "Asia/Kolkata"}


@pytest.mark.exhaustive("fault states")
@pytest.mark.parametrize("case", HOSTILE)
def test_somebodys_settings_of_keras_decide_nothing(
    case: str, project: Path, tmp_path: Path
) -> None:
    """Another configuration would be the best on a machine where Keras is used for other things."""
    (tmp_path / "keras.json").write_text(json.dumps(HOSTILE[case]))
    command = [sys.executable, ROOT / "cli.py", "heads", project / "my_gels", *QUICK]
    command += ["--cache", project / "features", "--workers", "2"]
    variables = VARIABLES if case == "variables" else {}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    environment = {**plain, "KERAS_HOME": str(tmp_path), **variables}
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for out, its in ((ours, plain), (theirs, environment)):
        subprocess.run([*command, "--out", out], env=its, check=True, capture_output=True)
    names = ["predictions.csv", "baselines.csv"]
    names += [path.relative_to(ours).as_posix() for path in ours.glob("heads/*.npy")]
    assert len(names) == 6
    for name in names:
        assert (theirs / name).read_bytes() == (ours / name).read_bytes(), name


UNUSABLE = {
    "bfloat16": ('{"floatx": "bfloat16"}', {}),
    "epsilon": ('{"epsilon": "small"}', {}),
    "no table": ("[]", {}),
    "no number": ("{}", {"KERAS_MAX_EPOCHS": "x"}),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_settings_that_keep_keras_from_starting_are_named(case: str, tmp_path: Path) -> None:
    """A traceback would not say that a forgotten file in the home folder is the cause."""
    settings, variables = UNUSABLE[case]
    (tmp_path / "keras.json").write_text(settings)
    program = (
        "from gelkit.errors import GelkitError\n"
        "from gelkit.heads.architectures import load_keras\n"
        "try: load_keras()\n"
        "except GelkitError as error: print(error)"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), **variables}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "Expected Keras to start." in run.stdout
    assert "correct or remove keras.json in ~/.keras (or in KERAS_HOME)" in run.stdout


@pytest.mark.exhaustive("fault states")
def test_whoever_ends_the_command_keeps_what_was_finished(
    project: Path, tmp_path: Path, ending: Any
) -> None:
    """Minutes of training would be lost, or the terminal filled with tracebacks."""
    command = [sys.executable, ROOT / "cli.py", "heads", project / "my_gels", "--out", tmp_path]
    words = [*SMALL, *RANDOM, "--hardware", "cpu", "--cache", project / "features"]
    words += ["--repeats", "1", "--folds", "2", "--epochs", "100", "--workers", "2"]
    with ending.starting():
        process = subprocess.Popen(
            [*command, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("heads/*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    ending.send(process.pid)
    _, errors = process.communicate(timeout=60)  # until nobody is left who could write there
    assert process.returncode == ending.exit_code
    assert ending.message in errors
    assert "Traceback" not in errors
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("heads/*.keras")}
    assert 1 <= len(kept) < 4
    subprocess.run([*command, *words], check=True, capture_output=True)
    assert len(gelkit.read_results(tmp_path / "results.csv")) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
