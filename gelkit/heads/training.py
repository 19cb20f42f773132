"""Training: one configuration's cross-validation and its final head, as a job of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError, UsageError
from gelkit.heads.architectures import LEARNING_RATE, build_compiled, load_keras
from gelkit.heads.splits import Folds, derived_seed

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Settings:
    """How heads are trained and compared; the defaults are those of the study gelkit follows."""

    folds: int = 5
    repeats: int = 5
    epochs: int = 20
    batch_size: int = 23
    learning_rate: float = LEARNING_RATE
    class_weights: bool = False
    """Weigh the classes in the loss by the inverse of their frequency."""
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """Everything that training one configuration needs; it can be sent to another process."""

    name: str
    head: str
    optimizer: str
    values: npt.NDArray[np.float32]
    """Embeddings (images x width)."""
    targets: npt.NDArray[np.int64]
    num_classes: int
    splits: Folds
    settings: Settings


@dataclass(frozen=True)
class Trained:
    """What training one configuration gives."""

    probabilities: npt.NDArray[np.float32]
    """Out-of-fold predictions (repeats x images x classes)."""
    head: bytes
    """The final head, fitted on all images, as a ``.keras`` file."""
    training_time_secs: float
    """Cross-validation and final fit."""
    inference_time_secs: float
    """The final head over the data set."""


def train(job: Job) -> Trained:
    """Cross-validate a configuration, then fit its final head on all images.

    The same job gives the same result. The global random state of Python, NumPy and torch is left
    as it was; Keras' own global seed generator is not, since Keras has no public way to read it: it
    starts anew.

    :raises UsageError: the training diverged, or the seed is out of range.
    """
    with _random_state_kept():
        started = time.perf_counter()
        probabilities = _cross_validate(job)
        everything = np.arange(len(job.targets))
        head = _fit(job, everything, seed=job.settings.seed)
        trained_at = time.perf_counter()
        _require_finite(job, predict(head, job.values))
        predicted_at = time.perf_counter()
    return Trained(
        probabilities=probabilities,
        head=_saved(head),
        training_time_secs=trained_at - started,
        inference_time_secs=predicted_at - trained_at,
    )


def train_all(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Trained]]:
    """Train jobs and yield each when it is done.

    :param workers: processes of one thread each; 1 trains in this process.
    :raises GelkitError: a worker died, out of memory perhaps.
    :raises UsageError: the training of a job diverged.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, train(job)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        futures = {pool.submit(train, job): job for job in _longest_first(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise GelkitError(
            "Expected the training processes to finish. Received: one died, perhaps out of "
            "memory. Run again with fewer --workers; what was finished is kept."
        ) from error
    except BaseException:  # Ctrl-C, or the caller has had enough: do not wait for the rest
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


def predict(head: keras.Model, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a head's probabilities (images x classes) for raw embeddings (images x width)."""
    probabilities: npt.NDArray[np.float32] = head.predict(values, batch_size=1024, verbose=0)
    return probabilities


def load_head(path: Path) -> keras.Model:
    """Load a saved head. Code inside the file, such as a Lambda layer's, is refused, never run.

    :raises GelkitError: there is none, it is damaged, or it holds what Keras does not know.
    """
    keras = load_keras()
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # a damaged file can fail anywhere in zipfile, JSON, HDF5 and Keras
        raise GelkitError(
            f"Expected a head saved by gelkit. Received: {path}, {error}. If it has layers of your "
            "own, import their module first; otherwise train it again with: gelkit heads DATA"
        ) from error


def _cross_validate(job: Job) -> npt.NDArray[np.float32]:
    repeats, count = job.splits.shape
    probabilities = np.zeros((repeats, count, job.num_classes), dtype=np.float32)
    for repeat, folds in enumerate(job.splits):
        for fold in np.unique(folds):
            seed = derived_seed(job.settings.seed, repeat, int(fold))
            head = _fit(job, np.flatnonzero(folds != fold), seed)
            held_out = np.flatnonzero(folds == fold)
            probabilities[repeat, held_out] = predict(head, job.values[held_out])
            _require_finite(job, probabilities[repeat, held_out])
    return probabilities


def _require_finite(job: Job, probabilities: npt.NDArray[np.float32]) -> None:
    if not np.isfinite(probabilities).all():
        raise UsageError(
            f"Expected {job.name} to give probabilities. Received: NaN, since its training "
            f"diverged. Use a --learning-rate below {job.settings.learning_rate:g}, or leave this "
            "configuration out; heads that were finished are kept."
        )


def _fit(job: Job, index: npt.NDArray[np.intp], seed: int) -> keras.Model:
    settings = job.settings
    values, targets = job.values[index], job.targets[index]
    load_keras().utils.set_random_seed(seed)
    head = build_compiled(job.head, job.optimizer, values, job.num_classes, settings.learning_rate)
    head.fit(
        values,
        targets,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        class_weight=_class_weights(targets, job.num_classes) if settings.class_weights else None,
        verbose=0,
    )
    return head


def _class_weights(targets: npt.NDArray[np.int64], num_classes: int) -> Mapping[int, float]:
    """Return images / (classes x images of the class), as scikit-learn's ``balanced``."""
    counts = np.bincount(targets, minlength=num_classes)
    return {number: len(targets) / (num_classes * int(n)) for number, n in enumerate(counts)}


def _saved(head: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.keras")
        head.save(path)
        return path.read_bytes()


def _longest_first(jobs: Sequence[Job]) -> list[Job]:
    """Order jobs so that no long one is left for the end."""
    return sorted(jobs, key=lambda job: (job.head != "single", job.values.shape[1]), reverse=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["KERAS_BACKEND"] = "torch"
    import torch

    torch.set_num_threads(1)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put back the global random state of Python, NumPy and torch, which Keras seeds."""
    import torch

    states: tuple[Any, Any] = (random.getstate(), np.random.get_state())
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
