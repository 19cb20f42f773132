"""Ray: the engine on a cluster gives what the local one gives, whichever of its processes die."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import bomb_png, png, slow_jpeg
from hypothesis import given
from hypothesis import strategies as st
from made_up import embeddings_in

from gelkit.errors import GelkitError, UsageError
from gelkit.features.backbones import get_backbone
from gelkit.features.clusters import (
    Needs,
    choose_needs,
    connected,
    divide,
    run_on_ray,
    undivided,
)
from gelkit.features.engines import run_workers
from gelkit.features.extraction import Workforce, extract
from gelkit.features.planning import plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.workers import Rendering, Setup, Task
from gelkit.images.catalog import read_catalog
from gelkit.images.formats import Limits

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

QUICK: dict[str, Any] = {
    "backbone": "mobilenet-v3",
    "options": RecipeOptions(weights="random"),
}
SETUP = Setup(
    backbone=get_backbone("mobilenet-v3"),
    weights="random",
    weights_seed=0,
    weights_dir=None,
    hardware="cpu",
    kernel="torch",
    precision="float32",
    rendering=Rendering(limits=Limits(seconds=3, memory=60 * 2**20)),
    batch_size=3,
    decoders=0,
    provenance={},
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Return the address of a local Ray to which this process is connected, and others may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with connected(workers=2):
            import ray

            yield ray.get_runtime_context().gcs_address


def _draw(folder: Path, count: int) -> list[Task]:
    tasks = []
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
        tasks.append(Task(path, path.name, sha256(path.read_bytes()).hexdigest()))
    return tasks


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Return different images to embed, of which two have two views."""
    drawn = _draw(tmp_path_factory.mktemp("gels"), 20)
    return [replace(task, views=(0, 3)) if task.name in "3.png 19.png" else task for task in drawn]


def _harm(task: Task, folder: Path) -> list[Task]:
    """Return images that cannot be embedded: damaged, changed, gone, too large, too slow."""
    files = {
        "damaged.png": png(100)[:-100],
        "large.png": bomb_png(9_000, 9_000),
        "slow.jpg": slow_jpeg(50_000),
    }
    made = [Task(folder / name, name, sha256(data).hexdigest()) for name, data in files.items()]
    for file in made:
        file.path.write_bytes(files[file.name])
    return [*made, replace(task, name="changed.png", sha256="0" * 64)]


@pytest.mark.exhaustive("clusters")
def test_embeddings_and_failures_are_the_local_engines(
    cluster: str, tasks: list[Task], tmp_path: Path
) -> None:
    """A cache would hold other numbers, or lack other images, for where they were computed."""
    mixed = [*tasks[:5], *_harm(tasks[0], tmp_path), *tasks[5:]]
    here, there = list(run_workers(mixed, SETUP, 2)), list(run_on_ray(mixed, SETUP))
    expected, found = embeddings_in(here), embeddings_in(there)
    assert set(found) == set(expected) == {(t.sha256, view) for t in tasks for view in t.views}
    assert [key for key in expected if not np.array_equal(expected[key], found[key])] == []
    failures = [
        sorted(
            (failure for batch in batches for failure in batch.failures), key=lambda its: its.name
        )
        for batches in (here, there)
    ]
    assert [failure.name for failure in failures[0]] == [
        "changed.png",
        "damaged.png",
        "large.png",
        "slow.jpg",
    ]
    assert failures[1] == failures[0]


def _processes(named: str) -> list[Any]:
    """Return the processes below this one whose command has a name in it."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if named in " ".join(process.cmdline()):
                found.append(process)
    return found


WORKER = "gelkit.features.workers"
ACTOR = "MapWorker"


@pytest.mark.exhaustive("clusters")
@pytest.mark.parametrize("killed", [WORKER, ACTOR], ids=["workers", "actors"])
def test_what_a_killed_process_held_is_embedded_by_another(
    killed: str, cluster: str, tasks: list[Task]
) -> None:
    """A process that a node kills for its memory would take images with it, or live on."""
    import psutil

    batches = run_on_ray(tasks, replace(SETUP, batch_size=1))
    done = [next(batches)]
    workers, victims = _processes(WORKER), _processes(killed)
    assert workers
    assert victims
    for process in victims:
        process.send_signal(signal.SIGKILL)
    done += batches
    assert [failure for batch in done for failure in batch.failures] == []
    assert set(embeddings_in(done)) == {
        (task.sha256, view) for task in tasks for view in task.views
    }
    assert psutil.wait_procs(workers, timeout=20)[1] == []


@pytest.mark.exhaustive("clusters")
def test_nothing_is_left_behind(cluster: str, tasks: list[Task]) -> None:
    """Someone who stops half-way would find the cluster busy with what nobody waits for."""
    import psutil

    batches = run_on_ray(tasks * 50, SETUP)
    next(batches)
    left = _processes(WORKER)
    batches.close()
    assert psutil.wait_procs(left, timeout=20)[1] == []


@pytest.mark.exhaustive("clusters")
@pytest.mark.parametrize(
    ("setup", "error", "message"),
    [
        (replace(SETUP, weights="/none.pth"), "WeightsError", "No such file"),
        (replace(SETUP, hardware="cuda"), "DeviceError", "Ray node for cuda, with 1 CPU, 1 GPU"),
    ],
    ids=["weights", "hardware"],
)
def test_what_a_node_refuses_reaches_the_caller(
    setup: Setup, error: str, message: str, cluster: str, tasks: list[Task]
) -> None:
    """Weights that a node lacks would be a page of Ray's, or tried again for ever."""
    with pytest.raises(GelkitError, match=message) as raised:
        list(run_on_ray(tasks, setup))
    assert type(raised.value).__name__ == error


@pytest.mark.exhaustive("clusters")
def test_a_file_that_a_node_lacks_says_so(cluster: str, tasks: list[Task], tmp_path: Path) -> None:
    """Someone whose cluster has no common disk would look for damaged images."""
    gone = Task(tmp_path / "gone.png", "gone.png", "0" * 64)
    [failure] = [its for batch in run_on_ray([gone], SETUP) for its in batch.failures]
    assert "every node of the cluster can read" in failure.error
    assert str(gone.path) in failure.error


@pytest.mark.exhaustive("clusters")
def test_the_local_ray_is_out_of_others_reach(cluster: str) -> None:
    """Anyone in the network could run programs here, and Ray's makers be told of the run."""
    import psutil

    listening: set[tuple[str, str]] = set()
    telling: set[str] = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            listening |= {
                (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            }
            if process.name() in ("gcs_server", "raylet"):
                telling.add(process.environ().get("RAY_USAGE_STATS_ENABLED", "unset"))
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1"}
    assert telling | {os.environ["RAY_USAGE_STATS_ENABLED"]} == {"0"}


@pytest.mark.parametrize(
    ("hardware", "given", "nodes", "needs", "actors"),
    [
        ("cpu", None, [{"CPU": 8, "memory": 64e9}], Needs(1, memory=1_300_000_000), 8),
        ("cpu", None, [{"CPU": 8, "memory": 4e9}], Needs(1, memory=1_300_000_000), 3),
        ("cpu", 5, [{"CPU": 8, "memory": 1e9}], Needs(1), 8),
        ("cpu", None, [{"memory": 64e9}, {"CPU": 2, "memory": 1e9}],
            Needs(1, memory=1_300_000_000), 0),
        ("cuda", None, [{"CPU": 64, "GPU": 8}, {"CPU": 8}, {"CPU": 12, "GPU": 2}],
            Needs(6, gpus=1), 10),
        ("cuda", None, [{"CPU": 2, "GPU": 4}], Needs(1, gpus=1), 2),
        ("cuda", 3, [{"CPU": 8}], Needs(1, gpus=1), 0),
        ("tpu", None, [{"CPU": 96, "TPU": 4}] * 3 + [{"CPU": 16}], Needs(96, tpus=4), 3),
        ("tpu-emulated", None, [{"CPU": 4}, {"CPU": 2}], Needs(2), 3),
    ],
    ids=[
        "a core each", "little memory", "as many as are wanted", "no room", "a gpu each",
        "few cores beside gpus", "gpus to come", "tpu hosts", "emulated",
    ],
)  # fmt: skip
def test_actors_ask_for_what_they_need(
    hardware: str, given: int | None, nodes: list[dict[str, float]], needs: Needs, actors: int
) -> None:
    """Half of a cluster would be idle, a node run out of memory, or two actors share a GPU."""
    found = choose_needs(hardware, 12_500_000, nodes, given)
    assert found == needs
    assert sum(found.fits(node) for node in nodes) == actors


@given(st.integers(1, 300), st.integers(1, 16), st.integers(1, 40))
def test_every_image_is_given_to_one_actor(images: int, images_a_batch: int, actors: int) -> None:
    """Images would be left out or embedded twice, or in other batches than here."""
    tasks = [Task(Path("gels", str(number)), str(number), "") for number in range(images)]
    calls = [undivided(call) for call in divide(tasks, images_a_batch, actors)]
    given = [task for call in calls for task in call]
    assert given == [replace(task, path=Path.cwd() / task.path) for task in tasks]
    assert {len(call) % images_a_batch for call in calls[:-1]} <= {0}
    assert len(calls) >= min(actors, -(-images // images_a_batch))


def test_an_address_where_nobody_listens_is_an_error(tmp_path: Path) -> None:
    """Someone who mistypes an address would wait for minutes."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            _draw(tmp_path / "gels", 1)
            said, _ = _start("--engine", "ray", "--address", given, folder=tmp_path).communicate()
            assert f"Expected a Ray cluster at {given}. Received: Connection refused" in said
            assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "Expected the engine local or ray. Received: 'spark'"),
        ({"address": "auto"}, "Add --engine ray"),
    ],
)
def test_an_engine_is_named_as_it_is(options: dict[str, str], message: str) -> None:
    """A cluster would be asked for, and the laptop do the work."""
    with pytest.raises(UsageError, match=message):
        Workforce(**options)


def test_a_ray_with_other_settings_is_refused() -> None:
    """A Ray that others can reach would be started by a program that has imported it before."""
    program = """
import ray
from gelkit.features.clusters import connected
with connected():
    pass
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Expected Ray to be imported here" in run.stderr.splitlines()[-1]


COMMAND = """
import sys
from gelkit.cli import main
from gelkit.features import extraction
extraction._PUBLISH_SECS = 0.0
main(sys.argv[1:])
"""


def _start(*words: str, folder: Path) -> subprocess.Popen[str]:
    """Start the command line, which publishes every batch, in a folder."""
    options = ["features", "gels", "--weights", "random", "--backbone", "mobilenet-v3"]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND, *options, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _published(folder: Path) -> dict[str, float]:
    """Return what was computed of which images: the seconds it took tell one time from another."""
    catalog = read_catalog(folder / "gels")
    cache = plan(catalog, cache=folder / "features", **QUICK).cache
    sha256s = sorted(digest for digest, _ in cache.identities())
    if not sha256s:
        return {}
    return dict(zip(sha256s, cache.read(sha256s).columns["extraction_secs"].tolist(), strict=True))


@pytest.mark.exhaustive("clusters")
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_killed_driver_loses_nothing_that_was_published(
    where: str, cluster: str, tmp_path: Path
) -> None:
    """A crash after days would cost the days; or a module among the images be run on the nodes."""
    import psutil

    _draw(tmp_path / "gels", 60)
    (tmp_path / "imagehash.py").write_text("open('run', 'w')")
    address = ["--address", cluster] if where == "there" else []
    driver = _start("--engine", "ray", "--batch-size", "1", *address, folder=tmp_path)
    while not list(tmp_path.glob("features/*/shard-*")):
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.02)
    working = _processes(WORKER)
    driver.kill()
    driver.communicate()
    assert psutil.wait_procs(working, timeout=20)[1] == []
    before = _published(tmp_path)
    assert 0 < len(before) < 60
    workforce = Workforce(engine="ray")
    extract(tmp_path / "gels", cache=tmp_path / "features", workforce=workforce, **QUICK)
    after = _published(tmp_path)
    assert len(after) == 60
    assert {digest: after[digest] for digest in before} == before
    assert not (tmp_path / "run").exists()
