"""Workers: processes that read, decode and embed images, started and watched by the engine.

A worker runs :func:`main` in a process of its own, which multiprocessing does not start: the
caller's program is not imported a second time, and needs no guard. Whoever decodes does it in the
worker's main thread, one image at a time, so that the engine knows which image is to blame, and the
memory that the process asks for meanwhile is the image's.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from mmap import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from gelkit.children import Line
from gelkit.errors import GelkitError
from gelkit.features.agreement import PlainTorch, Trial, describe_random, require_agreement
from gelkit.features.backbones import Backbone
from gelkit.features.cache import Failure
from gelkit.features.devices import Device, DeviceError
from gelkit.features.freezing import freeze
from gelkit.features.hardware import open_device
from gelkit.features.shards import Rows, make_rows
from gelkit.features.weights import load_weights
from gelkit.images.catalog import image_identity, own_part
from gelkit.images.formats import (
    FLAGS,
    DecodedImage,
    DecodeOptions,
    DecodeRecord,
    ImageError,
    LimitError,
    Limits,
    decode,
)
from gelkit.images.inspection import Inspected, draw_pictures
from gelkit.images.likeness import intensity_statistics, perceptual_hash
from gelkit.images.reading import read_bytes, why_unread
from gelkit.images.views import VIEW_SIZE, View, render, render_views
from gelkit.paths import RemotePath, as_path
from gelkit.systems import SYSTEM

_CHANGED = "its bytes are not those it is known by: run again, with --verify if this stays"
_DECODERS = ("pillow", "tifffile", "imagecodecs", "pillow-heif")
_FETCHERS = 8
_FETCHED_BYTES = 2**24
"""Of a larger object the bytes are fetched when it is decoded: several would fill the memory."""
AHEAD = 3
"""Batches that a worker may hold: one that it is at, and those that come next."""


@dataclass(frozen=True)
class Task:
    """An image to embed, and which of its views."""

    path: Path
    name: str
    sha256: str
    """What the image is known by, as of :func:`gelkit.images.catalog.image_identity`; empty if
    that is not known: the bytes are then not compared with it."""
    views: tuple[int, ...] = (0,)
    page: int | None = None
    """From 1: which page of the file; None: the one that the recipe takes."""
    channel: int | None = None
    """The same of the channel."""


@dataclass(frozen=True)
class Rendering:
    """How views are made: the part of a recipe that concerns images."""

    geometry: str = "stretch"
    window: str = "percentile"
    size: int = VIEW_SIZE
    interpolation: str = "bilinear"
    augmentations: tuple[str, ...] = ()
    decoding: DecodeOptions = field(default_factory=DecodeOptions)
    limits: Limits = field(default_factory=Limits)

    @property
    def shown(self) -> tuple[str, str, int, str]:
        """What decides a clean view, given the pixels."""
        return self.geometry, self.window, self.size, self.interpolation


Step: TypeAlias = "Callable[[Sequence[Any]], Batch]"
"""What a worker does with a batch of prepared images."""


@dataclass(frozen=True)
class Setup:
    """The assignment to embed images, which are decoded in the same process or come decoded."""

    backbone: Backbone
    weights: str
    weights_seed: int
    weights_dir: Path | None
    hardware: str
    kernel: str
    precision: str
    rendering: Rendering
    batch_size: int
    """Views that the device embeds at once, all of its chips together."""
    decoders: int
    """Processes that decode ahead of the device; 0: the process that embeds decodes."""
    provenance: Mapping[str, Any]
    """What the caller wants kept of where rows come from."""

    def open(self) -> Step:
        """Open the device and put the backbone on it; return what embeds images."""
        device, provenance = open_backbone(self)

        def step(prepared: Sequence[Prepared | Failure]) -> Batch:
            return embed(prepared, device, device.batch_size, provenance)

        return step

    def prepare(self, task: Task) -> Prepared | Failure:
        """Read and decode an image, and render its views."""
        return prepare(task, self.rendering)


@dataclass(frozen=True)
class Decoding:
    """The assignment to decode images for a worker that embeds them and does nothing else."""

    rendering: Rendering
    batch_size: int
    hardware: str = "cpu"

    def open(self) -> Step:
        """Return what passes on what was prepared."""
        return _passed_on

    def prepare(self, task: Task) -> Prepared | Failure:
        """Read and decode an image, and render its views."""
        return prepare(task, self.rendering)


@dataclass(frozen=True)
class Inspection:
    """The assignment to look at images and embed nothing."""

    rendering: Rendering
    with_pictures: bool
    batch_size: int = 4
    hardware: str = "cpu"

    def open(self) -> Step:
        """Return what passes on what was found."""
        return _passed_on

    def prepare(self, task: Task) -> Inspected | Failure:
        """Read and decode an image, and draw the pictures that are wanted."""
        return inspect(task, self.rendering, self.with_pictures)


Assignment: TypeAlias = Setup | Decoding | Inspection
"""What a worker is there for, which it is told before its first image.

Each says how images are rendered and within which limits, how many views come at once
(``batch_size``), and on what (``hardware``); ``open`` returns the step that makes a batch of what
``prepare`` has made of each image.
"""


@dataclass(frozen=True)
class Batch:
    """What a worker sends back: rows (None if there are none), what it saw, and what failed."""

    rows: Rows | None
    failures: list[Failure]
    inspected: list[Inspected] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)


class Decoded(NamedTuple):
    """What a worker is at."""

    number: int
    """The image's."""
    secs: float
    """For how long."""
    allowed: int
    """The bytes that the worker may have meanwhile; 0 if the system sees to it."""


class Clock:
    """Tells the engine, through shared memory, which image is being decoded, and since when.

    That is the image's number, or -1, between the monotonic clock's time and the same time again:
    the engine may look while it is being written, and what does not agree tells nothing.
    """

    _CONTENT = struct.Struct("=dqqd")
    SIZE = _CONTENT.size

    def __init__(self, memory: mmap) -> None:
        self._memory = memory

    def stop(self) -> None:
        """Say that nothing is being decoded."""
        self._write(-1)

    @contextmanager
    def running(self, number: int, allowed: int = 0) -> Iterator[None]:
        """Say that an image is being decoded, for as long as it is."""
        self._write(number, allowed)
        try:
            yield
        finally:
            self.stop()

    def read(self) -> Decoded | None:
        """Return which image is being decoded; None if none is."""
        since, number, allowed, again = self._CONTENT.unpack(self._memory[: self.SIZE])
        if number < 0 or since != again:
            return None
        return Decoded(number, time.monotonic() - since, allowed)

    def _write(self, number: int, allowed: int = 0) -> None:
        now = time.monotonic()
        # not pack_into, which first fills the place with zeros: image 0, since ever
        self._memory[: self.SIZE] = self._CONTENT.pack(now, number, allowed, now)


@dataclass(frozen=True)
class Prepared:
    """An image that is ready to be embedded."""

    task: Task
    views: list[View]
    perceptual_hash: int
    record: DecodeRecord
    n_bytes: int
    intensity: npt.NDArray[np.float32]
    secs: float

    @property
    def name(self) -> str:
        """How results call the image."""
        return self.task.name

    @property
    def sha256(self) -> str:
        """What the image is known by."""
        return self.task.sha256


def prepare(task: Task, rendering: Rendering) -> Prepared | Failure:
    """Read and decode an image, and render its views; what cannot be done is a failure.

    :raises MemoryError: there is too little of it.
    """
    started = time.perf_counter()
    read = _read(task, rendering)
    if isinstance(read, Failure):
        return read
    image, n_bytes, _ = read
    views = render_views(
        image,
        task.views,
        task.sha256,
        rendering.geometry,
        rendering.window,
        rendering.augmentations,
        rendering.size,
        rendering.interpolation,
    )
    is_usual = task.views[0] == 0 and rendering.shown == Rendering().shown
    likeness = views[0] if is_usual else render(image)
    return Prepared(
        task=task,
        views=views,
        perceptual_hash=perceptual_hash(likeness),  # it must not depend on the recipe
        record=image.record,
        n_bytes=n_bytes,
        intensity=intensity_statistics(
            image.pixels, None if image.pixels.dtype == np.uint8 else image.ordered
        ),
        secs=time.perf_counter() - started,
    )


def inspect(task: Task, rendering: Rendering, with_pictures: bool) -> Inspected | Failure:
    """Read and decode an image, and draw the pictures that are wanted."""
    read = _read(task, rendering)
    if isinstance(read, Failure):
        return read
    image, n_bytes, its_sha256 = read
    pictures = draw_pictures(image, rendering.geometry, rendering.window) if with_pictures else None
    return Inspected(task.name, its_sha256, n_bytes, image.record, pictures)


def _passed_on(seen: Sequence[Inspected | Prepared | Failure]) -> Batch:
    return Batch(
        rows=None,
        failures=[image for image in seen if isinstance(image, Failure)],
        inspected=[image for image in seen if isinstance(image, Inspected)],
        prepared=[image for image in seen if isinstance(image, Prepared)],
    )


def _read(task: Task, rendering: Rendering) -> tuple[DecodedImage, int, str] | Failure:
    """Return an image, how many bytes its file has, and what it is known by."""
    limits = rendering.limits
    length = len(os.fsencode(task.path))
    if length > limits.path:
        reason = (
            f"expected a path of at most {limits.path} bytes. Received: one of {length}. Move the "
            "file up, or raise --max-path."
        )
        return Failure(task.name, task.sha256, reason, retry=True)
    try:
        data = read_bytes(task.path, limits.bytes)
    except OSError as error:
        return Failure(task.name, task.sha256, why_unread(error), retry=True)
    its_sha256 = image_identity(sha256(data).hexdigest(), task.page, task.channel)
    if task.sha256 and its_sha256 != task.sha256:
        return Failure(task.name, task.sha256, _CHANGED, retry=True)
    decoding = own_part(rendering.decoding, task.page, task.channel)
    try:
        return decode(data, decoding, limits), len(data), its_sha256
    except LimitError as error:
        return Failure(task.name, its_sha256, str(error), retry=True)
    except ImageError as error:
        decoder = decoder_within(limits)
        return Failure(task.name, its_sha256, str(error), retry=False, decoder=decoder)


def out_of_memory(limits: Limits) -> str:
    """Say why an image failed that took more memory than it may."""
    return (
        f"expected an image that can be decoded with {limits.memory / 2**20:,.0f} MiB. Received: "
        "one that takes more. Crop it or make it smaller, or raise --decode-memory."
    )


def _warm_up(assignment: Assignment) -> None:
    """Have imported what the first images would import: that is not memory of theirs."""
    with TemporaryDirectory() as folder:
        for name in ("first.png", "first.tif"):
            Image.new("L", (8, 8)).save(Path(folder, name))
            assignment.prepare(Task(Path(folder, name), name, sha256=""))


def decoder_version() -> str:
    """Name what decodes images here, with versions."""
    return ", ".join(f"{name} {_version(name)}" for name in _DECODERS)


def decoder_within(limits: Limits) -> str:
    """Name what decodes images here, and the memory it has: short of it, some speak of damage."""
    return f"{decoder_version()}, {limits.memory / 2**20:.0f} MiB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def embed(
    prepared: Sequence[Prepared | Failure],
    device: Device,
    batch_size: int,
    provenance: Mapping[str, Any],
) -> Batch:
    """Embed the views of prepared images; an image that failed does not touch its neighbours.

    :raises DeviceError: an embedding is no number.
    """
    failures = [image for image in prepared if isinstance(image, Failure)]
    images = [image for image in prepared if isinstance(image, Prepared)]
    if not images:
        return Batch(None, failures)
    started = time.perf_counter()
    views = np.stack([view for image in images for view in image.views])
    embeddings = np.concatenate(
        [device.run(views[i : i + batch_size]) for i in range(0, len(views), batch_size)]
    )
    if not np.isfinite(embeddings).all():
        raise DeviceError(
            f"Expected finite embeddings. Received: NaN or infinity from {device.name}. "
            "Check the weights; nothing of this batch was kept."
        )
    share = (time.perf_counter() - started) / len(views)
    return Batch(make_rows(_columns(images, embeddings, share), provenance), failures)


def _columns(
    images: Sequence[Prepared], embeddings: npt.NDArray[np.float32], share: float
) -> dict[str, object]:
    rows = [(image, view) for image in images for view in image.task.views]
    return {
        "sha256": [image.task.sha256 for image, _ in rows],
        "view": [view for _, view in rows],
        "embedding": embeddings,
        "perceptual_hash": np.array([image.perceptual_hash for image, _ in rows], dtype="u8"),
        "height": [image.record.height for image, _ in rows],
        "width": [image.record.width for image, _ in rows],
        "bit_depth": [image.record.bit_depth for image, _ in rows],
        "n_bytes": [image.n_bytes for image, _ in rows],
        "format": [image.record.format for image, _ in rows],
        "mode": [image.record.mode for image, _ in rows],
        "intensity": np.stack([image.intensity for image, _ in rows]),
        "flags": [_flag_bits(image.record) for image, _ in rows],
        "extraction_secs": [image.secs / len(image.task.views) + share for image, _ in rows],
    }


def _flag_bits(record: DecodeRecord) -> int:
    return sum(1 << bit for bit, flag in enumerate(FLAGS) if flag in record.flags)


def open_backbone(setup: Setup) -> tuple[Device, dict[str, Any]]:
    """Open the device and put the frozen backbone on it; return what is to be kept of both.

    :raises DeviceError: the hardware is not there, or does not agree with plain torch.
    """
    device = open_device(setup.hardware, setup.kernel, setup.precision)
    model, weights_sha256 = load_weights(
        setup.backbone, setup.weights, setup.weights_seed, setup.weights_dir
    )
    frozen = freeze(model, setup.backbone)
    device.prepare(frozen, setup.batch_size)
    trial = Trial(
        backbone=setup.backbone.name,
        weights=weights_sha256 or describe_random(setup.weights_seed, setup.backbone.library),
        hardware=setup.hardware,
        kernel=setup.kernel,
        precision=setup.precision,
        input_size=frozen.input_size,
    )
    agreement = require_agreement(device, PlainTorch(frozen), trial)
    return device, {
        **setup.provenance,
        "device": device.name,
        "versions": device.versions() | {"decoder": decoder_version()},
        "weights_sha256": weights_sha256,
        "batch_size": device.batch_size,
        **({} if agreement is None else {"agreement": asdict(agreement)}),
    }


def _serve(connection: Line, clock: Clock) -> None:
    assignment: Assignment = connection.recv()
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit: that of the assignment is checked instead
    step = assignment.open()
    _warm_up(assignment)
    connection.send(None)  # ready: from here on, an image may be to blame
    with ThreadPoolExecutor(1) as sender, _fetching() as fetchers:
        waiting: deque[list[tuple[int, Callable[[], Task | Prepared]]]] = deque()
        most = min(assignment.rendering.limits.bytes, _FETCHED_BYTES)
        while True:
            while not waiting or (len(waiting) < AHEAD and connection.poll()):
                items = connection.recv()
                waiting.append([(number, _begun(item, most, fetchers)) for number, item in items])
            batch = step(
                [_prepared(item(), number, assignment, clock) for number, item in waiting.popleft()]
            )
            # pickled here, where no image limits the memory; and sent without waiting for the
            # engine, which may be sending itself
            sender.submit(connection.send_bytes, pickle.dumps(batch))


@contextmanager
def _fetching() -> Iterator[ThreadPoolExecutor]:
    """Yield threads that fetch; when one has failed, the others are not waited for."""
    fetchers = ThreadPoolExecutor(_FETCHERS)
    try:
        yield fetchers
    finally:
        fetchers.shutdown(wait=False, cancel_futures=True)


def _begun(
    item: Task | Prepared, most: int, fetchers: ThreadPoolExecutor
) -> Callable[[], Task | Prepared]:
    """Begin to fetch the bytes of an object in a store: its image is not to blame for the network.

    :returns: what waits until they are there.
    """
    if isinstance(item, Task):
        path = as_path(item.path)
        if isinstance(path, RemotePath):
            return fetchers.submit(_fetched, replace(item, path=path), most).result
    return lambda: item


def _fetched(task: Task, most: int) -> Task:
    """Return a task with its object's bytes; as it is if they cannot be had, or are too many."""
    path = task.path
    with suppress(OSError, MemoryError):
        if isinstance(path, RemotePath) and path.known().size <= most:
            return replace(task, path=path.fetched())
    return task


def _prepared(item: Task | Prepared, number: int, assignment: Assignment, clock: Clock) -> Any:
    """Prepare an image within its memory, under the eyes of the engine, if nobody has yet."""
    if isinstance(item, Prepared):
        return item
    limits = assignment.rendering.limits
    try:
        with SYSTEM.limited_memory(limits.memory) as allowed, clock.running(number, allowed):
            return assignment.prepare(item)
    except MemoryError:
        return Failure(item.name, item.sha256, out_of_memory(limits), retry=True)


def main(connection: Line, memory: mmap) -> None:
    """Serve the engine until it hangs up.

    :param connection: the line to the engine.
    :param memory: where the engine looks for the clock.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the engine's to handle
    try:
        _serve(connection, Clock(memory))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except GelkitError as error:
        connection.send(error)
