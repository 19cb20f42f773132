"""Faults: whatever stops a run, and whenever, no published row is lost and the next run ends it."""

from __future__ import annotations

import errno
import io
import itertools
import multiprocessing
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from disk import FailingOs, Operation, RecordingOs, State, distinct, kill_states, power_states
from made_up import RECIPE, count_stored, make, numbers_in, publish_many, read_on, sha256_of
from PIL import Image
from rounding import assert_close

from gelkit import files, systems
from gelkit.features import extraction, shards
from gelkit.features.cache import Cache, Failure
from gelkit.features.extraction import Workforce, extract
from gelkit.features.planning import plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.shards import CacheError
from gelkit.images.catalog import Catalog, read_catalog

ALL = frozenset(range(10))
FAILURE = Failure("broken.png", sha256_of(99), "broken", retry=False)
QUICK: dict[str, Any] = {"backbone": "mobilenet-v3", "options": RecipeOptions(weights="random")}
ALONE = Workforce(workers=1, batch_size=2)
WORDS = ("--backbone", "mobilenet-v3", "--weights", "random")
CLI = (sys.executable, "-c", "from gelkit.cli import main; main()")

Run = Callable[[Path, Callable[[object], None]], None]


def _run_of_months(root: Path, note: Callable[[object], None]) -> None:
    """Do all that changes a cache, and note which rows are there to stay."""
    cache = Cache(root / "features", RECIPE)
    published: frozenset[int] = frozenset()
    for numbers in ({0, 1}, {2}, {3, 4}):
        cache.publish(make(numbers))
        note(published := published | numbers)
    cache.record_failures([FAILURE])
    cache.compact()
    for numbers in ({5, 6}, {7}):
        cache.publish(make(numbers))
        note(published := published | numbers)
    cache.publish(make({4, 6}, attempt=1))  # another run, which did the same images
    cache.compact()
    cache.record_failures([], resolved=[FAILURE.sha256])
    cache.publish(make({8, 9}))
    note(published | {8, 9})


def _replace_os(patch: pytest.MonkeyPatch, its: object) -> None:
    """Have something stand for ``os`` wherever a cache changes files."""
    for module in (files, systems):
        patch.setattr(module, "os", its)


def _recorded(root: Path, run: Run) -> list[Operation]:
    """Do a run, and return each operation of it."""
    recorder = RecordingOs(root)
    with pytest.MonkeyPatch.context() as patch:
        _replace_os(patch, recorder)
        run(root, recorder.note)
    return recorder.log


def _published(log: Sequence[Operation]) -> list[frozenset[int]]:
    """Return, for each operation, which rows were published before it was begun."""
    notes = [operation.note or frozenset() for operation in log]
    return list(accumulate(notes, frozenset.union))


class _NoSync:
    """Stands for ``os`` where a state is resumed: nobody crashes there, so nothing is synced."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        """Do nothing."""


def _fault(state: State, published: frozenset[int], root: Path, *, resume: bool) -> str:
    """Return what is wrong with what a crash left, or with what the next run makes of it."""
    root.mkdir()
    state.write(root)
    cache = Cache(root / "features", RECIPE)
    try:
        found = numbers_in(cache)
        assert found >= published, f"lost {sorted(published - found)}"
        cache.failures()
        if resume:
            _resume(cache, found)
    except Exception as error:
        return f"after operation {state.last}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(root)
    return ""


def _resume(cache: Cache, found: set[int]) -> None:
    """Publish what is missing, and compact; check that this is all there is then."""
    missing = ALL - found
    if missing:
        cache.publish(make(missing, attempt=2))
    cache.record_failures([FAILURE])
    cache.compact()
    assert numbers_in(cache, dict.fromkeys(missing, 2)) == ALL, "rows are missing at the end"
    assert count_stored(cache) == len(ALL), "rows are doubled"
    assert list(cache.failures()) == [FAILURE.sha256]


def _faults(
    log: Sequence[Operation], states: Callable[[Sequence[Operation]], Iterator[State]], root: Path
) -> tuple[int, list[str]]:
    """Return how many states there are, and what is wrong with them.

    All are opened and read; resumed are those that differ in more than a temporary file's bytes.
    """
    published = _published(log)
    chosen = distinct(states(log), published)
    faults, resumed = [], set()
    with pytest.MonkeyPatch.context() as patch:
        _replace_os(patch, _NoSync())
        for state in chosen:
            key = (state.folders, *((n, "" if ".tmp" in n else d) for n, d in state.files.items()))
            faults.append(_fault(state, published[state.last], root, resume=key not in resumed))
            resumed.add(key)
    return len(chosen), [fault for fault in faults if fault]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    """Return the operations of a run in which everything happens to a cache."""
    return _recorded(tmp_path_factory.mktemp("recorded"), _run_of_months)


def test_nothing_changes_the_disk_unseen(tmp_path: Path) -> None:
    """What the recorder does not see could lose rows without a test to notice."""
    log = _recorded(tmp_path, _run_of_months)
    *_, last = kill_states(log)
    there = {p.relative_to(tmp_path).as_posix(): p for p in tmp_path.rglob("*")}
    assert {name for name, path in there.items() if path.is_dir()} == last.folders
    assert {n: p.read_bytes() for n, p in there.items() if p.is_file()} == last.files


@pytest.mark.parametrize(
    "states",
    [
        pytest.param(kill_states, id="kill"),
        pytest.param(power_states, id="power", marks=pytest.mark.exhaustive("fault states")),
    ],
)
def test_every_state_that_a_crash_leaves_is_a_good_one(
    states: Callable[[Sequence[Operation]], Iterator[State]],
    log: list[Operation],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """A crash or a loss of power would cost finished embeddings, or need a repair."""
    count, faults = _faults(log, states, tmp_path / "state")
    record_property("states", count)
    print(f"{states.__name__}: {len(faults)} bad of {count}")
    assert faults == []
    assert count > 100


def _careless(root: Path, note: Callable[[object], None]) -> None:
    """Write as one does who thinks of no crash: to the final name, without a sync."""
    cache = Cache(root / "features", RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gelkit.features.cache.write_atomically", _write_in_place)
        for number in range(3):
            cache.publish(make({number}))
            note(frozenset(range(number + 1)))


def _write_in_place(path: Path, data: bytes) -> None:
    descriptor = files.os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    files.os.write(descriptor, data)
    files.os.close(descriptor)


@pytest.mark.parametrize("states", [kill_states, power_states], ids=["kill", "power"])
def test_the_faults_of_a_careless_writer_are_found(
    states: Callable[[Sequence[Operation]], Iterator[State]], tmp_path: Path
) -> None:
    """A harness that finds nothing would find nothing wrong with any writer."""
    log = _recorded(tmp_path, _careless)
    count, faults = _faults(log, states, tmp_path / "state")
    print(f"careless, {states.__name__}: {len(faults)} bad of {count}")
    assert len(faults) > count / 4


def test_of_doubled_rows_the_same_one_counts_after_a_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings, and the results traced to them, would change when nothing was computed."""
    cache = Cache(tmp_path, RECIPE)
    cache.publish(make({0}))
    cache.publish(make(range(1, 20)))  # too large to be merged
    cache.publish(make({2, 3}, attempt=1))
    cache.publish(make({4, 20}, attempt=1))
    sizes = sorted(shard.stat().st_size for shard in cache.folder.iterdir())
    monkeypatch.setattr("gelkit.features.cache.COMPACTED_BYTES", sizes[-1] + sizes[0] - 1)
    cache.compact()
    assert numbers_in(cache, {20: 1}) == set(range(21))
    assert len(list(cache.folder.iterdir())) == 3


@pytest.mark.exhaustive("fault states")
@pytest.mark.parametrize(
    ("number", "stays"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["bad sector", "full disk"]
)
def test_each_operation_may_fail(
    number: int, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector or a full disk would end in a traceback, or take rows with it."""
    first, resumed = 0, set()
    while True:
        first += 1
        root = tmp_path / str(first)
        failing = FailingOs(first, number, stays=stays)
        with monkeypatch.context() as patch:
            _let_fail(failing, patch)
            published = _published_in_spite(Cache(root, RECIPE))
        cache = Cache(root, RECIPE)
        found = numbers_in(cache)
        assert found >= published, f"operation {first}"
        left = (*sorted(found), len(list(root.glob("*/shard-*"))), len(list(root.glob("*/.*"))))
        with monkeypatch.context() as patch:
            _replace_os(patch, _NoSync())
            if left not in resumed:
                _resume(cache, found)
                resumed.add(left)
        if failing.count < first:
            break
    assert first > 40


def _let_fail(failing: FailingOs, patch: pytest.MonkeyPatch) -> None:
    """Let all that a cache writes and reads go through what fails."""

    class FailingFile(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            failing.fail()
            return super().readinto(buffer)

        def readall(self) -> bytes:
            failing.fail()
            return super().readall()

    def open_failing(path: Path, mode: str) -> io.BufferedReader:
        failing.fail()
        return io.BufferedReader(FailingFile(path, mode))

    _replace_os(patch, failing)
    patch.setattr(shards, "open", open_failing, raising=False)


def _published_in_spite(cache: Cache) -> set[int]:
    """Do each thing that a run does; what fails may only be a :class:`CacheError`."""
    published: set[int] = set()
    things: list[tuple[Callable[[], object], set[int]]] = [
        (lambda: cache.publish(make({0, 1})), {0, 1}),
        (lambda: cache.record_failures([FAILURE]), set()),
        (lambda: cache.publish(make({2})), {2}),
        (lambda: numbers_in(cache), set()),
        (cache.weights_sha256, set()),
        (cache.compact, set()),
    ]
    for do, numbers in things:
        with suppress(CacheError):
            do()
            published |= numbers
    return published


def _draw(folder: Path, count: int) -> Catalog:
    """Write different images whose files are old enough to be remembered."""
    folder.mkdir()
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(values).resize((40, 30), Image.Resampling.BILINEAR).save(path)
        os.utime(path, (0, 0))
    return read_catalog(folder)


def _embeddings(catalog: Catalog, cache: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return what is cached, by image, without computing anything."""
    planned = plan(catalog, cache=cache, **QUICK)
    missing = {task.sha256 for task in planned.tasks}
    there = [str(sha256) for sha256 in planned.identified.sha256s if sha256 not in missing]
    values = planned.cache.read(there).columns["embedding"] if there else []
    return dict(zip(there, values, strict=True))


@pytest.mark.exhaustive("fault states")
def test_a_run_that_crashed_ends_in_the_same_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results would depend on whether, and when, the computer crashed."""
    catalog = _draw(tmp_path / "gels", 6)
    monkeypatch.setattr(extraction, "_PUBLISH_BYTES", 0)  # every batch, as if it took a minute

    def run(root: Path, note: Callable[[object], None]) -> None:
        files.make_folder(root / "features")
        extract(catalog, cache=root / "features", workforce=ALONE, **QUICK)

    (tmp_path / "recorded").mkdir()
    log = _recorded(tmp_path / "recorded", run)
    whole = _embeddings(catalog, tmp_path / "recorded" / "features")
    states = [*kill_states(log), *power_states(log)]
    random.Random(0).shuffle(states)
    to_resume = {0: 0, 2: 1, 4: 1, 6: 20}  # rows that are left: how many such states
    for number, state in enumerate(states):
        root = tmp_path / f"state {number}"
        root.mkdir()
        state.write(root)
        left = _embeddings(catalog, root / "features")
        if to_resume[len(left)]:
            to_resume[len(left)] -= 1
            extract(catalog, cache=root / "features", workforce=ALONE, **QUICK)
            ended = _embeddings(catalog, root / "features")
            assert set(ended) == set(whole)
            for sha256, values in whole.items():
                assert sha256 not in left or np.array_equal(ended[sha256], values)
                assert_close(ended[sha256], values)
        if not any(to_resume.values()):
            return
    pytest.fail(f"there were too few states with so many rows: {to_resume}")


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> ForkServerContext:
    """Return what starts processes that have imported what they need, in no time."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["made_up"])
    return context


@pytest.mark.exhaustive("fault states")
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, processes: ForkServerContext) -> None:
    """A machine that runs out of memory, or a batch system's limit, would cost finished work."""
    root, said = tmp_path / "features", tmp_path / "said"
    cache, rng = Cache(root, RECIPE), random.Random(0)
    said.touch()
    deadline = time.monotonic() + 120  # on a machine that is busy fewer rows come between kills
    published = set[int]()
    for kill in itertools.count():
        if kill >= 50 and (len(published) > 50 or time.monotonic() > deadline):
            break
        writer = processes.Process(target=publish_many, args=(root, kill * 1000, 1000, said))
        writer.start()
        time.sleep(rng.uniform(0, 0.2))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        published = {int(number) for number in said.read_text().split()}
        found = numbers_in(cache)
        assert found >= published
        assert len(found - published) <= kill + 1  # each time, killed before it could say so
    assert len(published) > 50
    cache.compact()
    assert numbers_in(cache) == found
    assert count_stored(cache) == len(found)


@pytest.mark.exhaustive("fault states")
def test_runs_at_once_neither_lose_nor_double_rows(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    """Two terminals at work on one cache would destroy each other's rows, or stop a third."""
    root, found = tmp_path / "features", processes.Queue()
    jobs: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (publish_many, (root, 0, 40, tmp_path / "said 0")),
        (publish_many, (root, 20, 40, tmp_path / "said 1")),  # the half of them are the same
        (read_on, (root, 60, found)),
    ]
    running = [processes.Process(target=job, args=arguments) for job, arguments in jobs]
    for process in running:
        process.start()
    assert found.get(timeout=120) == ""
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0, 0]
    cache = Cache(root, RECIPE)
    assert numbers_in(cache) == set(range(60))
    cache.compact()
    assert count_stored(cache) == 60


def test_two_runs_may_make_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two runs that begin at once would fail with 'File exists'."""

    class Later(_NoSync):
        def mkdir(self, path: Path) -> None:
            os.mkdir(path)  # the other run
            os.mkdir(path)

    cache = Cache(tmp_path / "features", RECIPE)
    _replace_os(monkeypatch, Later())
    cache.publish(make({0}))
    assert numbers_in(cache) == {0}


@pytest.mark.exhaustive("fault states")
def test_two_real_runs_at_once_both_finish(tmp_path: Path) -> None:
    """Starting the command twice would end in an error, or in half of the embeddings."""
    catalog = _draw(tmp_path / "gels", 12)
    command = [*CLI, "features", tmp_path / "gels", *WORDS, "--cache", tmp_path / "features"]
    running = [
        subprocess.Popen(
            [*command, "--workers", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [run.communicate()[1] for run in running]
    assert [run.returncode for run in running] == [0, 0], errors
    assert len(_embeddings(catalog, tmp_path / "features")) == 12
    cache = plan(catalog, cache=tmp_path / "features", **QUICK).cache
    assert len(list(cache.folder.glob("shard-*.h5"))) <= 2
    assert errors == ["", ""]


@pytest.mark.exhaustive("fault states")
def test_whoever_ends_the_command_keeps_what_was_finished(tmp_path: Path, ending: Any) -> None:
    """An hour's work would be lost, or processes left behind that hold the memory."""
    catalog = _draw(tmp_path / "gels", 60)
    command = [*CLI, "features", tmp_path / "gels", *WORDS, "--cache", tmp_path / "features"]
    terminal, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    command += ["--workers", "2", "--batch-size", "1"]
    with (
        ending.starting(),
        subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True) as run,
        open(terminal, "rb", buffering=0) as screen,
    ):
        os.close(its)
        said, done = b"", 0
        while done < 3:
            said += screen.read(4096)
            shown = re.findall(rb"on cpu: [^\r\n]* (\d+)/60", said)
            done = max(map(int, shown), default=0)
        ending.send(run.pid)
        with suppress(OSError):  # as soon as nobody is left who could write to the terminal
            while part := screen.read(4096):
                said += part
    assert run.returncode == ending.exit_code
    assert ending.message.encode() in said
    assert b"Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    kept = _embeddings(catalog, tmp_path / "features")
    assert done <= len(kept) < 60
    extract(catalog, cache=tmp_path / "features", **QUICK)
    ended = _embeddings(catalog, tmp_path / "features")
    assert len(ended) == 60
    assert all(np.array_equal(ended[sha256], values) for sha256, values in kept.items())


def test_what_was_being_written_when_ctrl_c_came_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a minute's work would be lost if Ctrl-C met the moment in which it is published."""

    class Interrupted(_NoSync):
        def fsync(self, descriptor: int) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

    _replace_os(monkeypatch, Interrupted())
    monkeypatch.setattr(extraction, "_PUBLISH_BYTES", 0)
    cache, rows = Cache(tmp_path / "features", RECIPE), make({0, 1})
    weights = {"weights_sha256": RECIPE.weights_sha256.ljust(64, "0")}
    with pytest.raises(KeyboardInterrupt), extraction._publishing(cache) as unpublished:
        unpublished.add(replace(rows, provenance=(weights,)))
    assert numbers_in(cache) == {0, 1}


Disk = Callable[[str], Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """Return what makes a disk of the size given, or gives it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(size: str) -> Path:
        how = f"{'remount,' if folder.is_mount() else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
        return folder

    yield resize
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_loses_nothing_and_room_is_used(small_disk: Disk) -> None:
    """What was computed before would be destroyed, or have to be computed again."""
    cache = Cache(small_disk("300k") / "features", RECIPE)
    published = set[int]()

    def publish() -> None:
        for number in range(20):
            cache.publish(make({number}))
            published.add(number)

    with pytest.raises(CacheError, match="No space left"):
        publish()
    with pytest.raises(CacheError, match="No space left"):
        cache.compact()
    assert len(published) > 2
    assert numbers_in(cache) == published
    assert all(path.suffix == ".h5" for path in cache.folder.iterdir())
    small_disk("2m")
    cache.publish(make(set(range(20)) - published))
    cache.compact()
    assert numbers_in(cache) == set(range(20))
    assert count_stored(cache) == 20


@pytest.mark.exhaustive("fault states")
def test_the_command_says_that_the_disk_is_full(small_disk: Disk, tmp_path: Path) -> None:
    """Someone whose disk is full would see a traceback, and not what to do."""
    catalog = _draw(tmp_path / "gels", 4)
    disk = small_disk("40k")
    (disk / "others").write_bytes(bytes(40 * 1024))
    cache = disk / "features"
    command = [*CLI, "features", tmp_path / "gels", *WORDS, "--cache", cache, "--workers", "1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "No space left on device. Make room or choose another --cache" in run.stderr
    assert "Traceback" not in run.stderr
    small_disk("2m")
    assert len(extract(catalog, cache=cache, workforce=ALONE, **QUICK)) == 4
