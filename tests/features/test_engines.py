"""The engine: rows do not depend on workers or batches, and no image can stop or harm a run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from mmap import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hostile import slow_jpeg
from made_up import embeddings_in
from PIL import Image
from rounding import CLOSE

from gelkit.errors import GelkitError
from gelkit.features.backbones import get_backbone
from gelkit.features.devices import DeviceError
from gelkit.features.engines import choose_workers, run_workers
from gelkit.features.weights import load_weights
from gelkit.features.weights_files import WeightsError
from gelkit.features.workers import AHEAD, Clock, Rendering, Setup, Task
from gelkit.images.fingerprints import Fingerprints
from gelkit.images.formats import Limits

ROW = get_backbone("mobilenet-v3")


def _setup(batch_size: int = 4, weights: str = "random", secs: float = 20) -> Setup:
    return Setup(
        backbone=ROW,
        weights=weights,
        weights_seed=0,
        weights_dir=None,
        hardware="cpu",
        kernel="torch",
        precision="float32",
        rendering=Rendering(limits=Limits(seconds=secs)),
        batch_size=batch_size,
        decoders=0,
        provenance={},
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Return eleven different images to embed, the first and the last with two views."""
    folder = tmp_path_factory.mktemp("gels")
    made = []
    for number in range(11):
        path = folder / f"{number}.png"
        values = np.random.default_rng(number).integers(0, 256, (9, 9), dtype=np.uint8)
        Image.fromarray(values).resize((300, 200), Image.Resampling.BILINEAR).save(path)
        views = (0, 3) if number in (0, 10) else (0,)
        made.append(Task(path, path.name, Fingerprints().sha256(path), views))
    return made


@pytest.fixture(scope="module")
def expected(tasks: list[Task]) -> dict[tuple[str, int], npt.NDArray[np.float32]]:
    """Return the embeddings that one worker makes of one image at a time."""
    return embeddings_in(list(run_workers(tasks, _setup(1), workers=1)))


@pytest.mark.parametrize(
    ("workers", "batch_size", "backwards"),
    [
        pytest.param(1, 16, False, marks=pytest.mark.exhaustive("exhaustive grids")),
        pytest.param(2, 4, False, marks=pytest.mark.exhaustive("exhaustive grids")),
        (2, 3, True),
    ],
)
def test_rows_depend_on_nothing_but_the_image(
    workers: int,
    batch_size: int,
    backwards: bool,
    tasks: list[Task],
    expected: dict[tuple[str, int], npt.NDArray[np.float32]],
) -> None:
    """The same image would get other embeddings on another machine, or among other images."""
    ordered = tasks[::-1] if backwards else tasks
    found = embeddings_in(list(run_workers(ordered, _setup(batch_size), workers)))
    assert set(found) == {(task.sha256, view) for task in tasks for view in task.views}
    largest = max(float(np.abs(values).max()) for values in expected.values())
    for identity, values in expected.items():
        np.testing.assert_allclose(found[identity], values, rtol=0, atol=CLOSE * largest)


class _Watched(Task):
    """A task that counts how many of its kind were given to workers."""

    given = 0

    def __reduce__(self) -> tuple[type[Task], tuple[object, ...]]:
        _Watched.given += 1
        return Task, (self.path, self.name, self.sha256, self.views)


def test_a_module_in_the_images_folder_is_not_run(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of images from a stranger could run its own code."""
    (tmp_path / "imagehash.py").write_text("open('run', 'w')")
    monkeypatch.chdir(tmp_path)
    assert len(embeddings_in(list(run_workers(tasks[:1], _setup(2), workers=1)))) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive("fault states")
def test_long_paths_in_large_batches_do_not_block(tasks: list[Task], tmp_path: Path) -> None:
    """A run would stand still for ever, engine and worker waiting for each other."""
    deep = tmp_path.joinpath(*["long" * 50] * 10)
    deep.mkdir(parents=True)
    path = Path(shutil.copy(tasks[1].path, deep))
    same = Task(path, path.name, tasks[1].sha256)
    batches = run_workers([same] * 700, _setup(128), workers=1)
    assert sum(len(batch.rows) for batch in batches if batch.rows) == 700


@pytest.mark.exhaustive("exhaustive grids")
def test_memory_stays_bounded(tasks: list[Task]) -> None:
    """A data set larger than the memory could not be embedded."""
    many = [_Watched(task.path, task.name, task.sha256, task.views) for task in tasks] * 50
    batches = run_workers(many, _setup(4), workers=2)
    for _ in range(3):
        next(batches)
    assert 0 < _Watched.given <= 4 * (2 * AHEAD + 3)
    batches.close()


def _children() -> list[int]:
    own = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in own for pid in file.read_text().split()]
    return [pid for pid in pids if b"gelkit.features.workers" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_no_worker_is_left_behind(tasks: list[Task]) -> None:
    """Someone who stops half-way would find processes that hold the memory."""
    batches = run_workers(tasks * 50, _setup(2), workers=2)
    next(batches)
    assert len(_children()) == 2
    batches.close()
    assert _children() == []


@pytest.mark.exhaustive("fault states")
def test_images_of_a_killed_worker_are_embedded_by_another(
    tasks: list[Task], expected: dict[tuple[str, int], npt.NDArray[np.float32]]
) -> None:
    """A worker that the system kills for its memory would take images with it."""
    batches = run_workers(tasks, _setup(1), workers=2)
    done = [next(batches)]
    for pid in _children():
        os.kill(pid, signal.SIGKILL)
    done += batches
    assert [failure for batch in done for failure in batch.failures] == []
    assert set(embeddings_in(done)) == set(expected)


@pytest.fixture
def hanging(tmp_path: Path) -> Task:
    """Return an image that takes minutes."""
    data = slow_jpeg(50_000)
    (tmp_path / "hanging.png").write_bytes(data)
    return Task(tmp_path / "hanging.png", "hanging.png", sha256(data).hexdigest())


@pytest.mark.exhaustive("fault states")
def test_an_image_that_hangs_fails_alone(tasks: list[Task], hanging: Task) -> None:
    """One file that was made to take for ever would stop a run over thousands."""
    mixed = [*tasks[:2], hanging, *tasks[2:6]]
    batches = list(run_workers(mixed, _setup(4, secs=1.5), workers=1))
    failures = [failure for batch in batches for failure in batch.failures]
    assert [failure.name for failure in failures] == ["hanging.png"]
    assert "read and decoded within 1.5 s" in failures[0].error
    assert {sha256 for sha256, _ in embeddings_in(batches)} == {task.sha256 for task in tasks[:6]}


@pytest.fixture
def kill_workers() -> Iterator[Callable[[float], None]]:
    """Return what kills all workers again and again, so many seconds apart, until the test ends."""
    over = threading.Event()

    def kill(every: float) -> None:
        while not over.wait(every):
            for pid in _children():
                os.kill(pid, signal.SIGKILL)

    threads: list[threading.Thread] = []

    def start(every: float) -> None:
        threads.append(threading.Thread(target=kill, args=(every,)))
        threads[0].start()

    yield start
    over.set()
    threads[0].join()


@pytest.mark.exhaustive("fault states")
def test_an_image_whose_worker_dies_twice_fails_alone(
    tasks: list[Task], hanging: Task, kill_workers: Callable[[float], None]
) -> None:
    """An image that crashes its decoder would be tried for ever, or spoil its batch."""
    batches = run_workers([hanging, *tasks[:3]], _setup(4), workers=1)
    kill_workers(12.0)
    failures, embedded = [], set()
    for batch in batches:
        failures += batch.failures
        embedded |= {sha256 for sha256, _ in embeddings_in([batch])}
    assert [failure.name for failure in failures] == ["hanging.png"]
    assert "died 2 times (Killed" in failures[0].error
    assert failures[0].retry
    assert embedded == {task.sha256 for task in tasks[:3]}


def test_workers_that_only_die_are_an_error(
    tasks: list[Task], kill_workers: Callable[[float], None]
) -> None:
    """A machine without memory would start workers for ever."""
    batches = run_workers(tasks, _setup(4), workers=2)
    kill_workers(0.05)
    with pytest.raises(GelkitError, match="deaths in a row, the last by Killed"):
        list(batches)


def test_a_worker_that_cannot_start_is_an_error(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation would start processes for minutes, or end without rows or a word."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(GelkitError, match=r"deaths in a row, the last by|to start a worker"):
        list(run_workers(tasks, _setup(4), workers=1))


def test_what_a_worker_refuses_reaches_the_caller(tasks: list[Task], tmp_path: Path) -> None:
    """Weights that cannot be had would look like a crash; broken ones would fill the cache."""
    with pytest.raises(WeightsError, match="No such file"):
        list(run_workers(tasks, _setup(weights=str(tmp_path / "none.pth")), workers=1))
    state = load_weights(ROW, "random")[0].state_dict()
    state["classifier.0.bias"][:] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(DeviceError, match="Check the weights"):
        list(run_workers(tasks, _setup(weights=str(tmp_path / "broken.pth")), workers=1))


@pytest.mark.exhaustive("fault states")
def test_what_is_imported_once_is_no_images_memory(tasks: list[Task]) -> None:
    """The first image would fail for what all of them need, and a broken import fail the rest."""
    setup = replace(_setup(1), rendering=Rendering(limits=Limits(memory=2**19)))
    batches = list(run_workers(tasks[:2], setup, workers=1))
    assert [failure for batch in batches for failure in batch.failures] == []
    assert len(embeddings_in(batches)) == sum(len(task.views) for task in tasks[:2])


def test_workers_fit_the_machine() -> None:
    """A laptop would swap, or half of its cores be idle; a TPU be asked for twice."""
    assert choose_workers("cpu", ROW.parameters) >= 1
    assert choose_workers("cpu", 10**12) == 1
    assert choose_workers("tpu", ROW.parameters) == 1
    assert choose_workers("tpu", ROW.parameters, given=4) == 1
    assert choose_workers("cpu", ROW.parameters, given=7) == 7


@pytest.mark.exhaustive("fault states")
def test_time_goes_on_while_nothing_is_wrong(tasks: list[Task]) -> None:
    """A slow computer would lose images to the clock of an image that was done long ago."""
    batches = run_workers(tasks, _setup(2, secs=1.0), workers=1)
    done = [next(batches)]
    time.sleep(2.5)
    done += batches
    assert [failure for batch in done for failure in batch.failures] == []


_RUN_CLOCK = """
import sys
from mmap import mmap
from gelkit.features.workers import Clock
with open(sys.argv[1], "r+b") as file:
    clock = Clock(mmap(file.fileno(), Clock.SIZE))
print(flush=True)
while True:
    with clock.running(7):
        pass
"""


def test_a_clock_that_is_being_set_blames_nobody() -> None:
    """An image that nobody is decoding would be called too slow, and its worker be killed."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(Clock.SIZE)
        clock = Clock(mmap(file.fileno(), Clock.SIZE))
        clock.stop()
        command = [sys.executable, "-c", _RUN_CLOCK, file.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            seen = [clock.read() for _ in range(300_000)]
            process.kill()
    read = [its for its in seen if its is not None]
    assert {its.number for its in read} == {7}
    assert max(its.secs for its in read) < 60
