"""Clusters: the engine that has images embedded on the nodes of a Ray cluster, or a local Ray.

Ray Data hands tasks to a pool of actors. Each supervises a worker process of its own, as the local
engine does, so that an image that crashes, hangs or eats memory costs the life of a worker and is
one failure; an actor or a node that dies is Ray's to replace, and what it held to try again. The
driver holds no embeddings but those it is about to publish, and is the only one that writes.
"""

from __future__ import annotations

import os
import pickle
import platform
import secrets
import socket
import sys
import tempfile
import warnings
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from gelkit.errors import GelkitError
from gelkit.features.devices import DeviceError
from gelkit.features.engines import (
    MOST_DECODERS,
    Workers,
    count_images_a_batch,
    count_worker_bytes,
)
from gelkit.features.hardware import count_chips
from gelkit.features.workers import Batch, Setup, Task
from gelkit.processes import import_path
from gelkit.systems import SYSTEM
from gelkit.termination import termination_kept

_BATCHES_A_CALL = 8
"""What an actor is given at once, and loses if it is killed: some seconds of work on a core."""

_TASK_RETRIES = 10
"""How often a call may lose its actor: nodes come and go, but no call may do so for ever."""

_OBJECT_STORE_BYTES = 2**28
_CONNECT_SECS = 5.0

_UNREAD = "cannot be read"
"""How :func:`gelkit.images.reading.why_unread` begins."""

_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray sets for a program that was handed in with ``ray job submit``."""

_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}
"""What keeps Ray from writing on the terminal, where progress is shown."""

_IMPATIENT = {"RAY_NUM_REDIS_GET_RETRIES": "1"}
"""What has Ray give up within a minute where something listens that is no Ray, instead of 12."""

_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # read on Linux too: no cluster, so loopback alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}
"""What keeps the Ray that is started here to this machine, and to this user of it."""


@dataclass(frozen=True)
class Needs:
    """What one actor asks of a node, in Ray's resources; ``memory`` is in bytes."""

    cpus: int = 0
    gpus: int = 0
    tpus: int = 0
    memory: int = 0

    def wanted(self) -> dict[str, int]:
        """Return the resources by Ray's names, without those of which it wants none."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "TPU": self.tpus, "memory": self.memory}
        return {name: amount for name, amount in named.items() if amount}

    def fits(self, node: Mapping[str, float]) -> int:
        """Return how many such shares a node's resources hold."""
        wanted = self.wanted().items()
        return min(int(node.get(name, 0) // amount) for name, amount in wanted)

    def options(self) -> dict[str, Any]:
        """Return what Ray is told of it."""
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.tpus:
            options["resources"] = {"TPU": self.tpus}
        if self.memory:
            options["memory"] = self.memory
        return options


def choose_needs(
    hardware: str, parameters: int, nodes: Sequence[Mapping[str, float]], given: int | None = None
) -> Needs:
    """Return what an actor needs for a recipe's hardware.

    On the CPU that is a core, and memory for the backbone. A GPU is one actor's; the chips of a TPU
    host all belong to one, and so does a host that emulates a TPU. Beside an accelerator an actor
    has its part of the host's cores, to decode.

    :param parameters: of the backbone.
    :param nodes: the resources of each node.
    :param given: how many actors the user wants, which is not questioned: not for memory either.
    """
    if hardware == "cpu":
        return Needs(1, memory=0 if given else int(count_worker_bytes(parameters)))
    if hardware == "tpu-emulated":
        return Needs(_smallest([node.get("CPU", 0) for node in nodes]))
    name = {"cuda": "GPU", "tpu": "TPU"}[hardware]
    fitted = [node for node in nodes if node.get(name, 0) >= 1]
    if name == "GPU":
        return Needs(_smallest([node.get("CPU", 0) / node["GPU"] for node in fitted]), gpus=1)
    return Needs(
        _smallest([node.get("CPU", 0) for node in fitted]),
        tpus=_smallest([node["TPU"] for node in fitted]),
    )


def _smallest(amounts: Iterable[float]) -> int:
    return max(1, int(min(amounts, default=1)))


def run_on_ray(
    tasks: Sequence[Task], setup: Setup, workers: int | None = None, address: str | None = None
) -> Generator[Batch, None, None]:
    """Embed images on the nodes of a Ray cluster; yield batches in no certain order.

    They are the batches that the local engine makes of the same tasks.

    :param workers: actors; None for as many as the cluster holds now.
    :param address: as of :func:`connected`, unless there is a connection already.
    :raises DeviceError: no node has the hardware.
    :raises GelkitError: what a worker refuses (weights, device); or Ray is not there, or gives up.
    """
    with connected(address, workers):
        nodes = _list_nodes()
        needs = choose_needs(setup.hardware, setup.backbone.parameters, nodes, workers)
        actors = workers or sum(needs.fits(node) for node in nodes)
        if not actors:
            raise _nowhere(setup.hardware, needs)
        if needs.tpus:  # what this machine has is not what the nodes have
            each = setup.batch_size // count_chips(setup.hardware)
            setup = replace(setup, batch_size=each * needs.tpus)
        images_a_batch = count_images_a_batch(tasks, setup)
        calls = divide(tasks, images_a_batch, actors)
        arguments = (setup, images_a_batch, needs.cpus)
        yield from _embedded(calls, arguments, needs, min(actors, len(calls)))


def divide(tasks: Sequence[Task], images_a_batch: int, actors: int) -> list[bytes]:
    """Pack tasks into what an actor is given at once: whole batches, and some for every actor.

    Paths become absolute: actors have another working directory.
    """
    batches = -(-len(tasks) // images_a_batch)
    images = images_a_batch * max(1, min(_BATCHES_A_CALL, batches // (2 * actors)))
    absolute = (replace(task, path=task.path.absolute()) for task in tasks)
    calls = []
    while call := list(islice(absolute, images)):
        calls.append(zlib.compress(pickle.dumps(call), level=1))
    return calls


def undivided(call: bytes) -> list[Task]:
    """Return the tasks that :func:`divide` has packed together."""
    tasks: list[Task] = pickle.loads(zlib.decompress(call))
    return tasks


class _Embedder:
    """What an actor does with each call, its worker being kept from one to the next.

    Errors of gelkit are answers: raised, Ray would wrap them in its own, and try again.
    """

    def __init__(self, setup: Setup, images_a_batch: int, cpus: int) -> None:
        self._host = platform.node()
        self._setup = replace(
            setup,
            decoders=min(cpus, MOST_DECODERS) if setup.decoders else 0,
            provenance={**setup.provenance, "host": self._host},
        )
        self._images_a_batch = images_a_batch
        self._workers: Workers | None = None

    def __call__(self, rows: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        """Embed the images of one call."""
        tasks = undivided(rows["call"][0])
        answers: Sequence[Batch | GelkitError]
        try:
            answers = [self._explained(batch, tasks) for batch in self._run(tasks)]
        except GelkitError as error:
            answers = [error]
        return {"answer": [pickle.dumps(answer) for answer in answers]}

    def _run(self, tasks: Sequence[Task]) -> list[Batch]:
        if self._workers is None:
            self._workers = Workers(self._setup, self._images_a_batch, workers=1)
        try:
            return list(self._workers.run(tasks))
        except BaseException:
            self._workers.close()
            self._workers = None
            raise

    def _explained(self, batch: Batch, tasks: Sequence[Task]) -> Batch:
        """Say of files that a node cannot read which node that is, and what it would have to."""
        paths = {task.sha256: task.path for task in tasks}
        failures = [
            replace(
                failure,
                error=f"{failure.error} (expected a path that every node of the cluster can read. "
                f"Received: {paths[failure.sha256]} on {self._host})",
            )
            if failure.error.startswith(_UNREAD)
            else failure
            for failure in batch.failures
        ]
        return replace(batch, failures=failures)


def _embedded(
    calls: Sequence[bytes], arguments: tuple[object, ...], needs: Needs, actors: int
) -> Iterator[Batch]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items
    from ray.data.exceptions import SystemException

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray Data's own, of its own defaults
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        with DataContext.current(context):
            dataset = from_items(
                [{"call": call} for call in calls], override_num_blocks=len(calls)
            ).map_batches(
                _Embedder,
                fn_constructor_args=arguments,
                batch_size=1,
                compute=ActorPoolStrategy(size=actors),
                max_restarts=-1,
                max_task_retries=_TASK_RETRIES,
                **needs.options(),
            )
    try:
        for row in dataset.iter_rows():
            answer = pickle.loads(row["answer"])
            if isinstance(answer, GelkitError):
                raise answer
            yield answer
    except (ray.exceptions.RayError, SystemException) as error:
        raise GelkitError(
            f"Expected the Ray cluster to embed the images. Received: {_told(error)} What "
            "was finished is kept: run again, with gelkit of the same version on every node."
        ) from error


def _nowhere(hardware: str, needs: Needs) -> DeviceError:
    wanted = ", ".join(f"{amount:,} {name}" for name, amount in needs.wanted().items())
    return DeviceError(
        f"Expected a Ray node for {hardware}, with {wanted}. Received: none that has as much. Use "
        "another --hardware, or give --workers, to wait for nodes that the cluster starts."
    )


def _list_nodes() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


@contextmanager
def connected(address: str | None = None, workers: int | None = None) -> Iterator[None]:
    """Connect this process to a Ray cluster for as long as the context lasts.

    A process has one connection at most: within another context, or in a program that has called
    ``ray.init``, that one is used.

    :param address: what ``ray.init`` takes: ``host:port``, ``auto`` or ``ray://host:port``. None
        starts a Ray on this machine, which nothing outside it can reach and which reports nothing,
        and ends it with the context.
    :param workers: CPUs of the Ray that is started here; None for those that there are.
    :raises GelkitError: this is not Linux; Ray is not installed, does not start or answer.
    """
    if not SYSTEM.is_linux:
        raise GelkitError(
            f"Expected Linux, for --engine ray. Received: {SYSTEM.name}, on which Ray has no "
            "clusters. Leave --engine out: every core of this machine works then, too."
        )
    if find_spec("ray") is None:
        raise GelkitError(
            "Expected Ray, for --engine ray. Received: it is not installed. Install gelkit's extra "
            "'ray'."
        )
    if _is_connected():
        yield
        return
    if address is None:
        _require_alone()
    else:
        _require_listening(address)
    with (
        _environment(_QUIET | (_ALONE | _token() if address is None else _IMPATIENT)),
        tempfile.TemporaryDirectory(prefix="gelkit-", ignore_cleanup_errors=True) as folder,
    ):
        import ray
        import ray.data

        try:
            _start(Path(folder), address, workers)
            yield
        finally:
            ray.shutdown()


def _is_connected() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@cache
def _require_alone() -> None:
    """Refuse a Ray that has read other settings than those of a local one, when it was imported."""
    if "ray" in sys.modules:
        raise GelkitError(
            "Expected Ray to be imported here, with the settings that keep it to this machine. "
            "Received: one that was imported before. Call ray.init first, as you need it: it is "
            "then used."
        )


def _start(folder: Path, address: str | None, workers: int | None) -> None:
    """Start a Ray of this machine whose files are in a folder, or connect to a cluster."""
    import ray

    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if _SUBMITTED not in os.environ:
        # Otherwise Ray has its processes import from the current folder, too, and a folder of
        # images from a stranger may hold a numpy.py.
        (folder / "nothing").mkdir()
        options["runtime_env"] = {"working_dir": str(folder / "nothing")}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": workers,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": str(folder / "ray"),  # which Ray lets everyone enter; not so its parent
        }
    try:
        with termination_kept():  # Ray's own handler would exit with 15
            ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise GelkitError(
            f"Expected to {'connect to' if address else 'start'} Ray. Received: "
            f"{_told(error)} Give --address the host:port of a cluster with the same versions of "
            "Ray and Python, or leave it out."
        ) from error


@cache
def _token() -> dict[str, str]:
    """Return the secret that the processes of a local Ray know each other by: one for good.

    Ray would otherwise make one in the user's home, and keeps the first that a process has.
    """
    token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
    return {"RAY_AUTH_TOKEN": token, "PYTHONPATH": import_path()}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _require_listening(address: str) -> None:
    """Find out within seconds that nobody is there: Ray itself tries for minutes."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("", "ray") or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECS).close()
    except OSError as error:
        raise GelkitError(
            f"Expected a Ray cluster at {address}. Received: {error.strerror or error}. Start one "
            "there with: ray start --head, or give the --address of another; without, a local Ray "
            "is started."
        ) from error


def _told(error: Exception) -> str:
    """Return the line of Ray's many that tells what happened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".") + "."
