"""Engines: how images become rows of a cache. This one decodes in threads ahead of the device."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gelkit.features.cache import Failure
from gelkit.features.devices import Device, DeviceError
from gelkit.features.shards import Rows, make_rows
from gelkit.images.formats import FLAGS, DecodeRecord, ImageError, decode
from gelkit.images.likeness import intensity_statistics, perceptual_hash
from gelkit.images.views import View, render


@dataclass(frozen=True)
class Task:
    """An image to embed."""

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class Rendering:
    """A view, and how it is made: the recipe's part that an engine needs."""

    geometry: str = "stretch"
    window: str = "percentile"


@dataclass(frozen=True)
class _Prepared:
    sha256: str
    view: View
    perceptual_hash: int
    record: DecodeRecord
    n_bytes: int
    intensity: npt.NDArray[np.float32]
    secs: float


def embed_locally(
    tasks: Sequence[Task],
    device: Device,
    rendering: Rendering,
    batch_size: int,
    provenance: Mapping[str, Any],
) -> Iterator[tuple[Rows | None, list[Failure]]]:
    """Embed images in this process, a batch at a time, in the order of ``tasks``.

    Memory is bounded by a few batches. An image that fails does not touch its neighbours.

    :returns: for each batch its rows (None if all failed) and the images that failed.
    """
    results = _prepare_ahead(tasks, rendering, window=2 * batch_size)
    while batch := list(islice(results, batch_size)):
        failures = [result for result in batch if isinstance(result, Failure)]
        prepared = [result for result in batch if isinstance(result, _Prepared)]
        yield (_embed(prepared, device, provenance) if prepared else None), failures


def _prepare_ahead(
    tasks: Iterable[Task], rendering: Rendering, window: int
) -> Iterator[_Prepared | Failure]:
    """Prepare images in threads, at most ``window`` ahead of the caller."""
    remaining = iter(tasks)
    pending: deque[Future[_Prepared | Failure]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while True:
                for task in islice(remaining, window - len(pending)):
                    pending.append(pool.submit(_prepare, task, rendering))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare(task: Task, rendering: Rendering) -> _Prepared | Failure:
    started = time.perf_counter()
    try:
        data = task.path.read_bytes()
    except OSError as error:
        return Failure(task.name, task.sha256, f"cannot be read: {error.strerror}", retry=True)
    if sha256(data).hexdigest() != task.sha256:
        return Failure(task.name, task.sha256, "changed while it was read", retry=True)
    try:
        image = decode(data)
    except ImageError as error:
        return Failure(task.name, task.sha256, str(error), retry=False, decoder=decoder_version())
    clean = render(image)  # likeness must not depend on the recipe
    is_clean = rendering == Rendering()
    view = clean if is_clean else render(image, rendering.geometry, rendering.window)
    return _Prepared(
        sha256=task.sha256,
        view=view,
        perceptual_hash=perceptual_hash(clean),
        record=image.record,
        n_bytes=len(data),
        intensity=intensity_statistics(image.pixels),
        secs=time.perf_counter() - started,
    )


def decoder_version() -> str:
    """Name what decodes images here, with its version."""
    return f"Pillow {version('pillow')}"


def _embed(prepared: list[_Prepared], device: Device, provenance: Mapping[str, Any]) -> Rows:
    started = time.perf_counter()
    embeddings = device.run(np.stack([image.view for image in prepared]))
    if not np.isfinite(embeddings).all():
        raise DeviceError(
            f"Expected finite embeddings. Received: NaN or infinity from {device.name}. "
            "Check the weights; nothing of this batch was kept."
        )
    share = (time.perf_counter() - started) / len(prepared)
    records = [image.record for image in prepared]
    columns = {
        "sha256": [image.sha256 for image in prepared],
        "view": [0] * len(prepared),
        "embedding": embeddings,
        "perceptual_hash": np.array([image.perceptual_hash for image in prepared], dtype="u8"),
        "height": [record.height for record in records],
        "width": [record.width for record in records],
        "bit_depth": [record.bit_depth for record in records],
        "n_bytes": [image.n_bytes for image in prepared],
        "format": [record.format for record in records],
        "mode": [record.mode for record in records],
        "intensity": np.stack([image.intensity for image in prepared]),
        "flags": [_flag_bits(record) for record in records],
        "extraction_secs": [image.secs + share for image in prepared],
    }
    return make_rows(columns, provenance)


def _flag_bits(record: DecodeRecord) -> int:
    return sum(1 << bit for bit, flag in enumerate(FLAGS) if flag in record.flags)
